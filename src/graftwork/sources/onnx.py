"""ONNX files: one network a file, and beside it what prepares its input.

A bare file of pictures or of a waveform stands alone. Otherwise: preprocessor_config.json (pictures, or
recordings where it has a sampling_rate), tokenizer.json (texts). The pair melspectrogram.onnx and
embedding_model.onnx is Google's speech embedding.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from graftwork.errors import ArtefactError, RequestError
from graftwork.rows import Kind
from graftwork.sources.huggingface import FILES, stated_licence
from graftwork.sources.onnx_graph import Graph, Tensor, read_graph
from graftwork.sources.source import Origin, Source, file_digest, read_json

FRONT, EMBEDDING = "melspectrogram.onnx", "embedding_model.onnx"
"""The two files of the speech embedding: sound -> log-mel frames -> one vector a window of them."""
TOKENS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
_FLOATS = ("float32", "float16", "float64")
_SUBFOLDER = "onnx"
"""Where model hubs keep ONNX files, below what prepares their input."""
_SHORTEST = 400
"""A fixed axis of fewer values is no waveform: 25 ms at 16 kHz."""

Form = Literal["channels_first", "channels_last", "tokens", "samples", "stream", "features", "windows"]


@dataclass(frozen=True)
class Entry:
    """What a network takes. tensor: the input that says so.

    form: pictures by the place of their channels; token numbers; samples, with a first axis of rows or
    without (stream); features, which the feature extractor beside the file makes; windows of mel frames.
    """

    kind: Kind
    form: Form
    tensor: Tensor


def recognises(path: Path) -> bool:
    return path.suffix == ".onnx" if path.is_file() else bool(_models(path))


def read(
    path: Path,
    *,
    name: str,
    origin: Origin = "local",
    revision: str | None = None,
    licence: str | None = None,
) -> Source:
    """The source in a file NAME.onnx, or in a folder with one such file; see `sources.find`.

    Raises ArtefactError where the file is damaged or part of its weights is missing, RequestError where
    it needs operators or inputs that nobody here can give.
    """
    kind: Kind
    if path.is_dir() and all((path / one).is_file() for one in (FRONT, EMBEDDING)):
        folder, models, kind = path, [FRONT, EMBEDDING], "audio"
        weights = [one for model in models for one in (model, *_external(path / model))]
        options = {"model": EMBEDDING, "front": FRONT}
        beside: list[str] = []
    else:
        model = path if path.is_file() else _only(path)
        folder = _folder(model)
        beside = [file for file in FILES if (folder / file).is_file()]
        kind = entry_of(folder, model, read_graph(model)).kind
        relative = model.relative_to(folder)
        weights = [str(relative), *(str(relative.parent / one) for one in _external(model))]
        options = {"model": str(relative)}
    files = {file: file_digest(folder / file) for file in [*beside, *weights]}
    licence = licence or stated_licence(folder)
    return Source(name, kind, "onnx", folder, files, tuple(weights), origin, revision, licence, options)


def entry_of(folder: Path, model: Path, graph: Graph) -> Entry:
    """What the network takes, from its inputs and what lies beside it; raises RequestError."""
    processor = folder / "preprocessor_config.json"
    stated = read_json(processor) if processor.is_file() else {}
    inputs = {one.name.removesuffix(":0"): one for one in graph.inputs}
    if "input_ids" in inputs:
        return _texts(folder, model, inputs)
    given = [one for name, one in inputs.items() if name != "attention_mask"]
    found = _pictures(given[0], stated) or _sounds(given[0], stated) if len(given) == 1 else None
    if found is not None and (found.kind == "audio" or len(inputs) == 1):
        return found
    seen = "; ".join(str(one) for one in graph.inputs) or "none"
    raise RequestError(
        f"{model} takes the inputs {seen}; expected pictures (N, 3, height, width), a waveform (N, samples) "
        "at 16 kHz, or input_ids: put its preprocessor_config.json (pictures, sounds) or tokenizer.json "
        "(texts) beside it"
    )


def _texts(folder: Path, model: Path, inputs: Mapping[str, Tensor]) -> Entry:
    unknown = [name for name in inputs if name not in TOKENS]
    if unknown:
        raise RequestError(
            f"{model} takes the inputs {', '.join(inputs)}; of a text only {', '.join(TOKENS)} can be given: "
            f"export its encoder without {', '.join(unknown[:3])}"
        )
    if not (folder / "tokenizer.json").is_file():
        raise RequestError(f"{model} takes token numbers; put its tokenizer.json beside it, in {folder}")
    return Entry("text", "tokens", inputs["input_ids"])


def _pictures(tensor: Tensor, stated: Mapping[str, Any]) -> Entry | None:
    if len(tensor.shape) != 4 or "sampling_rate" in stated or tensor.dtype not in (*_FLOATS, "uint8"):
        return None
    if tensor.shape[1] == 3:
        return Entry("image", "channels_first", tensor)
    if tensor.shape[3] == 3:
        return Entry("image", "channels_last", tensor)
    # exporters may leave every axis open; transformers' models then put the channels first
    said = tensor.name == "pixel_values" or stated
    return Entry("image", "channels_first", tensor) if said and tensor.shape[1] is None else None


def _sounds(tensor: Tensor, stated: Mapping[str, Any]) -> Entry | None:
    if tensor.dtype not in _FLOATS:
        return None
    if "sampling_rate" in stated:
        return Entry("audio", "features", tensor)
    *before, last = tensor.shape or (0,)  # a tensor of unknown rank is not guessed at
    channels = before[1:]  # (N, samples) and (N, 1, samples) alike
    if len(before) > 2 or any(axis != 1 for axis in channels) or (last is not None and last < _SHORTEST):
        return None
    return Entry("audio", "samples" if before else "stream", tensor)


def _models(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.onnx")) or sorted((folder / _SUBFOLDER).glob("*.onnx"))


def _only(folder: Path) -> Path:
    """The model of a folder: its only one, or the one called model.onnx among several."""
    found = _models(folder)
    named = [one for one in found if one.name == "model.onnx"] or found
    if len(named) > 1:
        names = ", ".join(str(one.relative_to(folder)) for one in named[:5])
        raise RequestError(f"{folder} holds several ONNX files ({names}); name one of them as the source")
    return named[0]


def _folder(model: Path) -> Path:
    """The folder of what prepares the input: the file's own, or the one above the hub's subfolder."""
    own, above = model.parent, model.parent.parent
    prepared = ("tokenizer.json", "preprocessor_config.json")
    lies_above = own.name == _SUBFOLDER and not any((own / one).is_file() for one in prepared)
    return above if lies_above and any((above / one).is_file() for one in prepared) else own


def _external(model: Path) -> tuple[str, ...]:
    """The files beside the model that hold part of its weights; raises ArtefactError where one is missing."""
    names = read_graph(model).external
    for name in names:
        if not (model.parent / name).is_file():
            raise ArtefactError(
                f"{model} keeps weights in {name!r}, which is not beside it; fetch that file into "
                f"{model.parent} as well"
            )
    return names
