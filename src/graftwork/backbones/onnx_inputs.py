"""What a row becomes before an ONNX network: pictures, token numbers or sound, as the graph wants them.

Every network is given one row at a time, so no row's features depend on its neighbours.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from graftwork.backbones.hearing import MOST_SECONDS, WINDOW_SECONDS, Ear, Waves, ear, heard_by
from graftwork.backbones.images import Images, preprocessing_of
from graftwork.backbones.texts import TextEncoder, limit_of
from graftwork.errors import RequestError, Unreadable
from graftwork.rows import Column
from graftwork.sounds import RATE, windows
from graftwork.sources import Source
from graftwork.sources.onnx import Entry
from graftwork.sources.onnx_graph import Graph, Tensor

SIDE = 224
"""Pixels, where neither the graph nor a file beside it says."""
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
CROP = 224 / 256
"""Share of the short side that is kept where nothing says: resize to 256, crop 224."""


@dataclass(frozen=True)
class Given:
    """The network's inputs of one row, or of one window of it. keep: which of its steps hold something."""

    feeds: Mapping[str, NDArray[Any]]
    keep: NDArray[np.bool_] | None = None


class Inputs(Protocol):
    """Prepares rows; `settings` are plain JSON and hold all that shapes what it gives."""

    def of(self, column: Column, i: int) -> Iterator[Given]:
        """Raises Unreadable."""
        ...

    def example(self) -> Given: ...


@dataclass(frozen=True)
class Pictures:
    """(1, 3, height, width) or (1, height, width, 3) of the graph's own type; bytes are given as they are."""

    source: Source
    tensor: Tensor
    settings: Mapping[str, Any]

    def of(self, column: Column, i: int) -> Iterator[Given]:
        yield self._given(self._frame(column.read(i)))

    def example(self) -> Given:
        framing = self.settings["framing"]
        rng = np.random.default_rng(0)
        return self._given(rng.integers(0, 256, (framing["height"], framing["width"], 3), dtype=np.uint8))

    @cached_property
    def _frame(self) -> Callable[[bytes], NDArray[np.uint8]]:
        return Images(self.source, {"preprocessing": self.settings}).framing.apply

    def _given(self, pixels: NDArray[np.uint8]) -> Given:
        values: NDArray[Any] = pixels
        if self.tensor.dtype != "uint8":
            mean, std = (np.array(self.settings[one], dtype=np.float32) for one in ("mean", "std"))
            values = ((pixels - mean) / std).astype(self.tensor.dtype)
        if self.settings["form"] == "channels_first":
            values = values.transpose(2, 0, 1)
        return Given({self.tensor.name: np.ascontiguousarray(values[None])})


@dataclass(frozen=True)
class Tokens:
    """(1, tokens) of every input that the graph has, as long as the text, or as the graph's fixed axis."""

    source: Source
    graph: Graph
    settings: Mapping[str, Any]

    def of(self, column: Column, i: int) -> Iterator[Given]:
        unreadable: dict[int, str] = {}
        _, tokens = self._encoder.tokenised(column, range(i, i + 1), unreadable)
        if unreadable:
            raise Unreadable(unreadable[i])
        yield self._given(tokens[0])

    def example(self) -> Given:
        (encoding,) = self._encoder.tokenizer.encode_batch(["a small example of a text"])
        return self._given(list(encoding.ids))

    @cached_property
    def _encoder(self) -> TextEncoder:
        return TextEncoder(self.source, {"preprocessing": self.settings})

    @cached_property
    def _filler(self) -> int:
        known = (self._encoder.tokenizer.token_to_id(one) for one in ("[PAD]", "<pad>"))
        return next((one for one in known if one is not None), 0)

    def _given(self, ids: list[int]) -> Given:
        length = self.settings["fixed"] or max(len(ids), 1)  # a text may have no token at all
        keep = np.arange(length) < len(ids)
        numbers = np.full(length, self._filler, np.int64)
        numbers[: len(ids)] = ids
        values = {
            "input_ids": numbers,
            "attention_mask": keep,
            "token_type_ids": np.zeros(length),
            "position_ids": np.arange(length),
        }
        feeds = {
            one.name: values[one.name.removesuffix(":0")][None].astype(one.dtype) for one in self.graph.inputs
        }
        return Given(feeds, keep)


@dataclass(frozen=True)
class Sounds:
    """Windows of a recording, one after another, as an ear hears them."""

    graph: Graph
    tensor: Tensor
    settings: Mapping[str, Any]

    def of(self, column: Column, i: int) -> Iterator[Given]:
        with column.open(i) as file:
            heard = windows(file, self._ear.rate, self._ear.seconds, self._ear.most)
        for samples in heard:
            yield self._given(*self._ear.hear(samples))

    def example(self) -> Given:
        return self._given(*self._ear.hear(np.zeros(1, np.float32)))

    @cached_property
    def _ear(self) -> Ear:
        return ear(self.settings["heard"])

    def _given(self, values: NDArray[np.float32], *sound: NDArray[np.int64]) -> Given:
        rank = len(self.tensor.shape)
        if self.settings["form"] in ("samples", "stream"):
            values = values.reshape((1,) * (rank - 1) + (-1,))
        feeds: dict[str, NDArray[Any]] = {self.tensor.name: values.astype(self.tensor.dtype)}
        for one in self.graph.inputs:
            if one.name != self.tensor.name:  # attention_mask: all of the window is sound
                feeds[one.name] = np.ones(values.shape[:2], one.dtype)
        if self.settings["heard"]["ear"] != "logmel":
            return Given(feeds)
        # Whisper hears half a minute, of which so many steps of two frames hold sound
        return Given(feeds, np.arange(values.shape[-1] // 2) < sound[0])


def settings_of(source: Source, graph: Graph, entry: Entry, *, fit: bool) -> tuple[dict[str, Any], list[str]]:
    """How the source's rows are prepared, as plain JSON, and sentences on what was taken for granted."""
    if entry.form == "tokens":
        fixed = entry.tensor.shape[1] if len(entry.tensor.shape) == 2 else None
        tokens = limit_of(source) if fixed is None else min(limit_of(source), fixed)
        return {"form": entry.form, "tokens": tokens, "fixed": fixed}, []
    if entry.kind == "image":
        preprocessing, notes = _pictures(source, entry, fit)
        return {"form": entry.form, **preprocessing}, notes
    if entry.form in ("samples", "stream"):
        note = f"{source.name} is taken to hear mono at 16 kHz, in -1 to 1; nothing beside the file says"
        return {"form": entry.form, "heard": _waves(entry.tensor)}, [note]
    return _extracted(source, entry.tensor), []


def inputs_of(source: Source, graph: Graph, entry: Entry, settings: Mapping[str, Any]) -> Inputs:
    if entry.kind == "text":
        return Tokens(source, graph, settings)
    if entry.kind == "image":
        return Pictures(source, entry.tensor, settings)
    return Sounds(graph, entry.tensor, settings)


def _pictures(source: Source, entry: Entry, fit: bool) -> tuple[dict[str, Any], list[str]]:
    axes = entry.tensor.shape[2:] if entry.form == "channels_first" else entry.tensor.shape[1:3]
    if "preprocessor_config.json" in source.files:
        found = preprocessing_of(source, fit=fit)
        size = (found["framing"]["height"], found["framing"]["width"])
        if any(axis not in (None, side) for axis, side in zip(axes, size, strict=True)):
            raise RequestError(
                f"source {source.name!r} takes pictures of {axes[0]} x {axes[1]}, its "
                f"preprocessor_config.json makes {size[0]} x {size[1]}; put its own beside it"
            )
        return found, []
    height, width = (axis or SIDE for axis in axes)
    mean, std = ([255 * one for one in part] for part in IMAGENET)
    square = height == width
    framing = {
        "height": height,
        "width": width,
        "resize": round(height / CROP) if square and not fit else [height, width],
        "resample": 2,
        "fit": fit,
        "fill": [round(one) for one in mean],
    }
    scale = "bytes as they are" if entry.tensor.dtype == "uint8" else "ImageNet's mean and deviation"
    note = (
        f"{source.name} says nothing of its preprocessing: pictures of {height} x {width} and {scale} are "
        "taken for granted; a preprocessor_config.json beside the file would say"
    )
    return {"framing": framing, "mean": mean, "std": std}, [note]


def _waves(tensor: Tensor, rate: int = RATE, normalise: bool = False) -> dict[str, Any]:
    """Windows of the graph's fixed length, or of ten seconds."""
    length = tensor.shape[-1] if tensor.shape else None
    seconds = WINDOW_SECONDS if length is None else length / rate
    # less than a second is filled up: networks of open length need some frames
    least = rate if length is None else length
    return {"ear": "waves", **asdict(Waves(rate, seconds, _most(seconds), normalise, least, 1))}


def _most(seconds: float) -> int:
    return max(1, round(MOST_SECONDS / seconds))


def _extracted(source: Source, tensor: Tensor) -> dict[str, Any]:
    """As the feature extractor beside the file prepares recordings, by the architecture in config.json."""
    if source.json("config.json").get("model_type"):
        heard = heard_by(source)
        return {"form": "samples" if heard["ear"] == "waves" else "features", "heard": heard}
    if len(tensor.shape) > 2:
        raise RequestError(
            f"source {source.name!r} takes {tensor}, which its feature extractor makes; put its config.json, "
            "which names the architecture, beside it"
        )
    stated = source.json("preprocessor_config.json")
    normalise = bool(stated.get("do_normalize", True))
    return {"form": "samples", "heard": _waves(tensor, int(stated["sampling_rate"]), normalise)}
