"""Tiny pretrained models with random weights, saved as a model hub would hand them out."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from graftwork.rows import Contents, Rows, Texts

WORDS = "a the good bad film was not very but fine dull bright it and plot actor scene 好 不".split()


def resnet(folder: Path, seed: int = 0) -> Path:
    """A convolutional network: stretch the short side to 40, crop 32 x 32."""
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=3
    )
    return _image_source(folder, ResNetForImageClassification, config, seed, processor(40, 32))


def vit(folder: Path, seed: int = 0) -> Path:
    """A transformer with a class token, whose pooler has no weights."""
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=32,
        patch_size=8, num_labels=3,
    )  # fmt: skip
    return _image_source(folder, ViTForImageClassification, config, seed, processor([32, 32], None))


def bert(folder: Path, seed: int = 0, normalise: bool = True, tokens: int = 24) -> Path:
    """A text encoder with mean pooling, laid out as sentence-transformers does."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=wordpiece(folder, normalise, tokens), hidden_size=16, num_hidden_layers=2,
        num_attention_heads=2, intermediate_size=32, max_position_embeddings=64,
    )  # fmt: skip
    _save(folder, BertModel, config, seed)
    return folder


def wordpiece(folder: Path, normalise: bool = True, tokens: int = 24) -> int:
    """A text encoder's tokenizer and what says how it is pooled, without weights; how many words it knows."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    write(folder / "sentence_bert_config.json", {"max_seq_length": tokens})
    write(folder / "1_Pooling" / "config.json", {"pooling_mode_mean_tokens": True})
    kinds = ["Transformer", "Pooling", *(["Normalize"] if normalise else [])]
    write(folder / "modules.json", [{"type": f"sentence_transformers.models.{kind}"} for kind in kinds])
    return len(vocabulary)


def processor(resize: int | list[int], crop: int | None, **changes: Any) -> dict[str, Any]:
    """A complete preprocessor_config.json."""
    size = {"shortest_edge": resize} if isinstance(resize, int) else {"height": resize[0], "width": resize[1]}
    return {
        "image_processor_type": "MobileNetV2ImageProcessor",
        "do_resize": True, "size": size, "resample": 2,
        "do_center_crop": crop is not None, "crop_size": {"height": crop or 32, "width": crop or 32},
        "do_rescale": True, "rescale_factor": 1 / 255,
        "do_normalize": True, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4],
        **changes,
    }  # fmt: skip


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), "utf-8")


def pictures(count: int, seed: int = 0, low: int = 24, high: int = 90) -> list[Image.Image]:
    """Smooth random pictures of many sizes and shapes."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        size = tuple(int(side) for side in rng.integers(low, high, 2))
        found.append(coarse.resize((size[0], size[1]), Image.Resampling.BICUBIC))
    return found


def encoded(picture: Image.Image) -> bytes:
    from io import BytesIO

    buffer = BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def image_rows(count: int, seed: int = 0) -> Rows:
    contents = [encoded(picture) for picture in pictures(count, seed)]
    return Rows([f"picture {i}" for i in range(count)], {"image": Contents("image", contents)})


def text_rows(count: int, seed: int = 0) -> Rows:
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(WORDS, rng.integers(1, 30))) for _ in range(count)]
    return Rows([f"text {i}" for i in range(count)], {"text": Texts(texts)})


def _image_source(folder: Path, model: Any, config: Any, seed: int, stated: dict[str, Any]) -> Path:
    _save(folder, model, config, seed)
    write(folder / "preprocessor_config.json", stated)
    return folder


def _save(folder: Path, model: Any, config: Any, seed: int) -> None:
    import torch

    from graftwork.backbones.quiet import quiet

    with quiet():
        torch.manual_seed(seed)
        model(config).save_pretrained(folder)
