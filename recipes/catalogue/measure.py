"""Parameters, operations and width of the catalogue's networks, counted on networks without weights.

    python recipes/catalogue/measure.py            # compare with src/graftwork/packaged/catalogue.json
    python recipes/catalogue/measure.py --write    # and write what was counted

To add a source: write its entry into catalogue.json (facts from its model card; a fact that is not known
is left out), add its architecture below where the configuration is publicly certain, run with --write.
Networks are built on torch's meta device: nothing is downloaded and no memory is taken.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModel

TABLE = Path(__file__).parents[2] / "src" / "graftwork" / "packaged" / "catalogue.json"
RATE = 16_000
SECONDS = 10
TOKENS = 128

DINOV2 = {"image_size": 518, "patch_size": 14}
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
MINI = {"hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536}
DISTILHUBERT = {"num_hidden_layers": 2, "feat_proj_layer_norm": False}
CONFIGS: dict[str, dict[str, Any]] = {
    "resnet-18": {"hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2], "layer_type": "basic"},
    "resnet-50": {},
    "mobilenet-v2": {},
    "vit-base": {},
    "dinov2-small": {**DINOV2, "hidden_size": 384, "num_attention_heads": 6},
    "dinov2-base": DINOV2,
    "dinov2-large": {**DINOV2, **LARGE},
    "convnextv2-tiny": {},
    "birds-efficientnet": {
        "width_coefficient": 1.1, "depth_coefficient": 1.2, "hidden_dim": 1408, "image_size": 260,
    },
    "rad-dino": DINOV2,
    "phikon-v2": {**LARGE, "image_size": 224, "patch_size": 16},
    "eurosat-vit": {},
    "dit-documents": {"use_absolute_position_embeddings": True},
    "minilm": {**MINI, "num_hidden_layers": 6},
    "mpnet-base": {"vocab_size": 30527},
    "bge-small-en": {**MINI, "num_hidden_layers": 12},
    "e5-small": {**MINI, "num_hidden_layers": 12, "vocab_size": 250037},
    "e5-large": {
        **LARGE, "intermediate_size": 4096, "vocab_size": 250002, "max_position_embeddings": 514,
        "type_vocab_size": 1,
    },
    "bge-small-zh": {
        "hidden_size": 512, "num_hidden_layers": 4, "num_attention_heads": 8, "intermediate_size": 2048,
        "vocab_size": 21128,
    },
    "bert-chinese": {"vocab_size": 21128},
    "modernbert": {},
    "codeberta": {
        "vocab_size": 52000, "num_hidden_layers": 6, "max_position_embeddings": 514, "type_vocab_size": 1,
    },
    "bioclinical": {},
    "finance-bge": {},
    "distilhubert": DISTILHUBERT,
    "wav2vec2": {},
    "xls-r": {
        **LARGE, "intermediate_size": 4096, "do_stable_layer_norm": True, "feat_extract_norm": "layer",
        "conv_bias": True,
    },
    "whisper-tiny": {
        "d_model": 384, "encoder_layers": 4, "encoder_attention_heads": 6, "encoder_ffn_dim": 1536,
        "decoder_layers": 1, "decoder_attention_heads": 6, "decoder_ffn_dim": 8,
    },
    "whisper-small": {
        "d_model": 768, "encoder_layers": 12, "encoder_attention_heads": 12, "encoder_ffn_dim": 3072,
        "decoder_layers": 1, "decoder_attention_heads": 12, "decoder_ffn_dim": 8,
    },
    "ast-audioset": {},
    "distilhubert-gtzan": DISTILHUBERT,
}  # fmt: skip
"""name -> what of the configuration differs from the architecture's defaults in transformers."""


def measure(entry: dict[str, Any]) -> dict[str, int]:
    """{parameters, operations (where the input's size is known), width}; see "about" in catalogue.json."""
    config = AutoConfig.for_model(entry["architecture"], **CONFIGS[entry["name"]])
    with torch.device("meta"):
        network = AutoModel.from_config(config, attn_implementation="eager").eval()
    encoder = network.get_encoder() if config.is_encoder_decoder else network
    counted = sum(one.numel() for name, one in encoder.named_parameters() if "pooler" not in name)
    found = {"parameters": counted, "width": _width(config)}
    inputs = example(entry, config)
    if inputs is not None:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            encoder(**inputs)
        found["operations"] = counter.get_total_flops() // 2  # the counter takes a multiply-add for two
    return found


def example(entry: dict[str, Any], config: Any) -> dict[str, Any] | None:
    """One row's input on the meta device."""
    blank = {"device": "meta"}
    if entry["kind"] == "image":
        side = entry.get("input_size")
        return None if side is None else {"pixel_values": torch.zeros(1, 3, side, side, **blank)}
    if entry["kind"] == "text":
        return {"input_ids": torch.zeros(1, TOKENS, dtype=torch.long, **blank)}
    if config.model_type == "whisper":
        frames = 2 * config.max_source_positions
        return {"input_features": torch.zeros(1, config.num_mel_bins, frames, **blank)}
    if config.model_type == "audio-spectrogram-transformer":
        return {"input_values": torch.zeros(1, config.max_length, config.num_mel_bins, **blank)}
    return {"input_values": torch.zeros(1, SECONDS * RATE, **blank)}


def _width(config: Any) -> int:
    if config.model_type == "mobilenet_v2":
        return 1280
    if config.model_type == "efficientnet":
        return int(config.hidden_dim)
    sizes = getattr(config, "hidden_sizes", None)
    return int(sizes[-1] if sizes else config.hidden_size)


def main() -> None:
    table = json.loads(TABLE.read_text("utf-8"))
    differ = []
    for entry in table["sources"]:
        if entry["name"] not in CONFIGS:
            continue
        found = measure(entry)
        if any(entry.get(key) != value for key, value in found.items()):
            differ.append(f"{entry['name']}: {found}")
        entry.update(found)
        print(f"{entry['name']:24} {found}")
    if "--write" in sys.argv:
        TABLE.write_text(json.dumps(table, ensure_ascii=False, indent=1) + "\n", "utf-8")
    elif differ:
        sys.exit("the table says otherwise of " + "; ".join(differ))


if __name__ == "__main__":
    main()
