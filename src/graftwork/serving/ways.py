"""How each backbone's inputs become features here: what reads them, and what runs the network."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.backbones.base import Backbone
from graftwork.backbones.engine import Arrays, Batch, Runner
from graftwork.backbones.reader import Whole
from graftwork.backbones.served import Prepared, ReadApart, ReadHere, Reading
from graftwork.rows import IntArray, Rows, Texts

MOST_WHOLE = 64
"""Texts that a backbone without a network of the engine's is asked at once."""
_RUNTIMES = {"onnx": "onnxruntime", "compact": "torch"}


@dataclass(frozen=True)
class Way:
    """reading: of contents, in another process; None for texts, which `prepared` makes inputs of here.

    runner: None where what was read are features already. together, joined: see `Served`.
    """

    reading: Reading | None
    prepared: Callable[[Sequence[str]], Sequence[Prepared]] | None
    runner: Runner | None
    together: Callable[[Arrays], int]
    joined: Callable[[NDArray[np.float32], NDArray[np.float64]], NDArray[Any]]
    runtime: str
    precision: str


def way_of(backbone: Backbone) -> Way:
    """The fastest safe way; loads the network."""
    state = backbone.state()
    runtime = str(state.config.get("runtime", _RUNTIMES.get(state.family, "numpy")))
    said = runtime, str(state.config.get("precision", "f32"))
    if isinstance(backbone, ReadApart):
        return Way(backbone.reading(), None, backbone.runner(), backbone.together, backbone.joined, *said)
    if isinstance(backbone, ReadHere):
        return Way(None, backbone.prepared, backbone.runner(), backbone.together, backbone.joined, *said)
    if backbone.kind == "text":
        return Way(None, _untouched, _Features(backbone), lambda _: MOST_WHOLE, _first, *said)
    return Way(Whole(backbone.kind, state), None, None, lambda _: 1, _first, *said)


def _first(features: NDArray[np.float32], lengths: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.asarray(features[0])


def _untouched(texts: Sequence[str]) -> Sequence[Prepared]:
    return [Prepared.single(np.array([text], dtype=object)) for text in texts]


@dataclass(frozen=True)
class _Features:
    """Texts through a backbone's own `features`. A text that it refuses has features that are NaN."""

    backbone: Backbone
    slots: int = 1

    def run(self, batches: Iterable[Batch], sink: Callable[[IntArray, NDArray[np.float32]], None]) -> None:
        for positions, (texts,) in batches:
            names = [str(i) for i in itertools.islice(itertools.count(1), len(texts))]
            sink(positions, self.backbone.features(Rows(names, {"text": Texts(texts.tolist())})).matrix)
