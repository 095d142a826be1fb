"""Tiny networks of many architectures with random weights, built in memory as the backbones build them."""

from typing import Any

import numpy as np
import torch

from graftwork.backbones.pooling import ImageNetwork, TextNetwork
from graftwork.backbones.quiet import quiet

_VIT = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8,
}  # fmt: skip
_STAGES = {"hidden_sizes": [8, 16, 16, 16], "depths": [1, 2, 1, 1], "num_stages": 4, "image_size": 32}
_SWIN = {"image_size": 32, "patch_size": 2, "embed_dim": 8, "window_size": 4}
_BERT = {
    "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2,
    "intermediate_size": 32, "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip
_RELATIVE = {"relative_attention": True, "position_buckets": 8, "pos_att_type": ["p2c", "c2p"]}

IMAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet": (
        "ResNet",
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [2, 2], "layer_type": "basic"},
    ),
    "regnet": ("RegNet", {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 2], "groups_width": 4}),
    "convnext": ("ConvNext", _STAGES),
    "mobilenet_v1": ("MobileNetV1", {"depth_multiplier": 0.25, "image_size": 32}),
    "mobilenet_v2": ("MobileNetV2", {"depth_multiplier": 0.25, "image_size": 32}),
    "efficientnet": (
        "EfficientNet",
        {"image_size": 32, "width_coefficient": 0.25, "depth_coefficient": 0.3, "hidden_dim": 320},
    ),
    "vit": ("ViT", {**_VIT, "intermediate_size": 32}),
    "dinov2": ("Dinov2", {**_VIT, "mlp_ratio": 2}),
    "swin": ("Swin", {**_SWIN, "depths": [2, 2, 1], "num_heads": [2, 2, 2]}),
    "poolformer": ("PoolFormer", {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 8, 16, 16]}),
}
"""The beginning of the classes' names in transformers, and settings."""
TEXTS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", _BERT),
    "distilbert": (
        "DistilBert",
        {"vocab_size": 50, "dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 32},
    ),
    "mpnet": ("MPNet", _BERT),
    "deberta": ("DebertaV2", {**_BERT, **_RELATIVE}),
    "modernbert": ("ModernBert", _BERT),
    "xlnet": ("XLNet", {"vocab_size": 50, "d_model": 16, "n_layer": 3, "n_head": 2, "d_inner": 32}),
    "albert": ("Albert", {**_BERT, "embedding_size": 8}),
}
SIDE, TOKENS = 32, 8


def network(name: str, seed: int = 0) -> torch.nn.Module:
    """In eval mode, float32."""
    import transformers

    start, settings = {**IMAGES, **TEXTS}[name]
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = getattr(transformers, f"{start}Config")(**settings)
        config._attn_implementation = "eager"
        encoder = getattr(transformers, f"{start}Model")(config)
    if name in TEXTS:
        return TextNetwork(encoder, "mean", False).eval()
    return ImageNetwork(encoder, "auto", [127.0] * 3, [60.0] * 3).eval()


def inputs(name: str, rows: int = 2) -> tuple[torch.Tensor, ...]:
    rng = np.random.default_rng(1)
    if name in TEXTS:
        ids = torch.from_numpy(rng.integers(5, 50, (rows, TOKENS)))
        return ids, torch.ones_like(ids)
    return (torch.from_numpy(rng.integers(0, 256, (rows, SIDE, SIDE, 3), dtype=np.uint8)),)
