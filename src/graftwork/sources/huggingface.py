"""Models in Hugging Face form: a folder of config.json, safetensors, and what prepares their input."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graftwork.errors import ArtefactError, RequestError
from graftwork.rows import Kind
from graftwork.sources.source import COMPACT, Origin, Source, file_digest, read_json

FILES = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "modules.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
)
"""What is wanted of such a model beside its weights."""
_INDEX = "model.safetensors.index.json"
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "model.pth", "tf_model.h5")
_FAMILIES: Mapping[Kind, str] = {"image": "images", "text": "texts", "audio": "audio"}


def recognises(path: Path) -> bool:
    if not (path / "config.json").is_file():
        return False
    # a folder whose only weights are ONNX files is of that family
    onnx = any(path.glob("*.onnx")) or any((path / "onnx").glob("*.onnx"))
    return not onnx or any((path / name).is_file() for name in ("model.safetensors", _INDEX))


def read(
    path: Path,
    *,
    name: str,
    origin: Origin = "local",
    revision: str | None = None,
    licence: str | None = None,
) -> Source:
    """The source in the folder, checked as far as is possible without loading it; see `sources.find`."""
    config = read_json(path / "config.json")
    weights = _weights(path)
    kind = _kind(path, config)
    family = "compact" if config.get("model_type") == COMPACT else _FAMILIES[kind]
    names = [*(file for file in FILES if (path / file).is_file()), *weights]
    files = {file: file_digest(path / file) for file in names}
    shards = tuple(file for file in weights if file.endswith(".safetensors"))
    return Source(name, kind, family, path, files, shards, origin, revision, licence or stated_licence(path))


def _weights(folder: Path) -> list[str]:
    if (folder / _INDEX).is_file():
        shards = sorted(set(read_json(folder / _INDEX).get("weight_map", {}).values()))
        names = [_INDEX, *(str(shard) for shard in shards)]
    elif (folder / "model.safetensors").is_file():
        names = ["model.safetensors"]
    else:
        names = []
    if len(names) < (2 if _INDEX in names else 1):
        pickled = [file for file in _PICKLED if (folder / file).exists()]
        if pickled:
            raise ArtefactError(
                f"{folder} has its weights only as {pickled[0]}, a format that can run code when it is read; "
                "expected model.safetensors: convert them where you trust the file (save_pretrained does)"
            )
        raise ArtefactError(f"{folder} has no weights; expected model.safetensors beside config.json")
    for name in names:
        if name.endswith(".safetensors"):
            _check_weights(folder / name)
    return names


def _check_weights(path: Path) -> None:
    """Compare the file's size with what its header promises, so that a broken download is found early."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            size = os.fstat(file.fileno()).st_size
            header = json.loads(file.read(length)) if 2 <= length <= min(size, 100_000_000) else None
    except (OSError, ValueError) as error:
        raise ArtefactError(f"{path} cannot be read as safetensors ({error}); fetch it again") from error
    if not isinstance(header, dict):
        raise ArtefactError(f"{path} is damaged: its header is not that of safetensors; fetch it again")
    ends = [part["data_offsets"][1] for name, part in header.items() if name != "__metadata__"]
    expected = 8 + length + max(ends, default=0)
    if size != expected:
        raise ArtefactError(
            f"{path} is truncated or damaged: {size:,} bytes, its header says {expected:,}; fetch it again"
        )


def _kind(folder: Path, config: Mapping[str, Any]) -> Kind:
    """What the model takes, from the files that lie beside config.json."""
    if config.get("model_type") == COMPACT:
        return "image"
    if "model_type" not in config:
        raise ArtefactError(f"{folder / 'config.json'} names no model_type; expected a transformers model")
    prepared = _prepared(folder)
    if _is_for_recordings(folder, config, prepared):
        return "audio"
    pictures = _is_for_pictures(prepared)
    texts = (folder / "tokenizer.json").is_file()
    if pictures != texts:
        return "image" if pictures else "text"
    model_type = config["model_type"]
    if pictures:
        raise RequestError(
            f"{folder} ({model_type}) takes pictures and texts together; expected an encoder of one of them"
        )
    if "vocab_size" in config:
        raise ArtefactError(f"{folder} ({model_type}) lacks tokenizer.json; save its fast tokenizer there")
    raise ArtefactError(
        f"{folder} ({model_type}) has neither tokenizer.json nor a preprocessor_config.json for pictures "
        "or recordings; expected an encoder of one of them"
    )


def _prepared(folder: Path) -> dict[str, Any]:
    """What prepares the input of pictures or recordings; {} where no file says."""
    if (folder / "preprocessor_config.json").is_file():
        return read_json(folder / "preprocessor_config.json")
    if (folder / "processor_config.json").is_file():  # where transformers 5 puts it beside a tokenizer
        found = read_json(folder / "processor_config.json").get("feature_extractor")
        return dict(found) if isinstance(found, dict) else {}
    return {}


def _is_for_recordings(folder: Path, config: Mapping[str, Any], prepared: Mapping[str, Any]) -> bool:
    kind = config["model_type"]
    if "sampling_rate" in prepared and "text_config" in config:
        raise RequestError(
            f"{folder} ({kind}) takes recordings and texts together; expected an encoder of one of them"
        )
    if "sampling_rate" not in prepared and config.keys() & {"conv_stride", "num_mel_bins"}:
        raise ArtefactError(
            f"{folder} ({kind}) lacks preprocessor_config.json, which says how recordings are prepared; "
            "fetch it too (save_pretrained of its feature extractor writes it)"
        )
    return "sampling_rate" in prepared


def _is_for_pictures(processor: Mapping[str, Any]) -> bool:
    return bool({"image_mean", "image_processor_type", "size", "crop_size"} & processor.keys())


def stated_licence(folder: Path) -> str | None:
    """The licence that the model card's front matter states."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    lines: Sequence[str] = card.read_text("utf-8", "replace")[:20_000].splitlines()
    if not lines or lines[0].strip() != "---":
        return None
    for line in lines[1:]:
        if line.strip() == "---":
            return None
        key, _, value = line.partition(":")
        if key == "license" and value.strip():
            return value.strip().strip("'\"")
    return None
