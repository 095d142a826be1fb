"""Which of an ONNX network's outputs are features, and how they become one vector a row."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.errors import RequestError
from graftwork.rows import Kind
from graftwork.sources.onnx import Form
from graftwork.sources.onnx_graph import Graph, Node

POOLINGS = ("auto", "mean", "max", "cls", "flatten", "output")
"""auto: the source's own, else the mean (of pictures: the class token where there is one). output: what
the file gives as it is, class scores included."""
_HIDDEN = ("hidden", "token_embeddings")
_FEATURES = ("embed", "pool", "feature")
_SCORES = ("logit", "prob", "score", "class", "pred")
_CLASSES = (1000, 1001, 21841, 21843)
"""Widths of classifiers trained on ImageNet."""
_PASSING = ("Softmax", "LogSoftmax", "Sigmoid", "Identity", "Cast")

Frames = NDArray[np.float32]


@dataclass(frozen=True)
class Output:
    """A tensor of the graph. inner: it lies within the graph, in front of the classifier."""

    name: str
    inner: bool = False


def choose(graph: Graph, found: Mapping[str, NDArray[Any]], kind: Kind, pooling: str) -> Output:
    """The output to take, by the names and shapes of what the network gave for one row.

    A pooled vector first; for texts the hidden states before a pooler's output, as their own encoders
    do; class scores last, and then what goes into the classifier rather than what comes out.
    Raises RequestError where no output is of numbers.
    """
    numbers = {name: array for name, array in found.items() if array.dtype.kind == "f" and array.ndim > 1}
    if not numbers:
        seen = ", ".join(f"{name} {array.dtype} {array.shape}" for name, array in found.items())
        raise RequestError(f"the network gives {seen or 'nothing'}; expected features (N, width) of floats")
    name = min(numbers, key=lambda one: _rank(one, numbers[one], kind))
    if pooling != "output" and _is_scores(name, numbers[name], kind):
        inner = _before_classifier(graph, name)
        if inner is not None:
            return Output(inner, inner=True)
    return Output(name)


def _rank(name: str, array: NDArray[Any], kind: Kind) -> int:
    lower, vector = name.lower(), array.size == array.shape[1] or array.size == array.shape[-1]
    hidden = not vector or any(one in lower for one in _HIDDEN)
    if any(one in lower for one in _SCORES):
        return 4
    if vector and any(one in lower for one in _FEATURES):
        return 2 if kind == "text" and "pool" in lower else 0
    return 1 if hidden else 3


def _is_scores(name: str, array: NDArray[Any], kind: Kind) -> bool:
    if array.ndim != 2 or any(one in name.lower() for one in _FEATURES):
        return False
    return any(one in name.lower() for one in _SCORES) or (kind == "image" and array.shape[1] in _CLASSES)


def _before_classifier(graph: Graph, name: str) -> str | None:
    """The tensor that the last dense layer takes, where the output is such a layer's."""
    made: dict[str, Node] = {output: node for node in graph.nodes for output in node.outputs}
    node = made.get(name)
    while node is not None and node.operator in _PASSING:
        node = made.get(node.inputs[0])
    if node is not None and node.operator == "Add":  # the bias of a MatMul
        products = [made[one] for one in node.inputs if one in made and made[one].operator == "MatMul"]
        node = products[0] if len(products) == 1 else None
    if node is None or node.operator not in ("Gemm", "MatMul") or node.inputs[0] not in made:
        return None
    return node.inputs[0] if node.inputs[1] in graph.constants else None


def frames(array: NDArray[Any], form: Form, keep: NDArray[np.bool_] | None) -> Frames:
    """The network's output for one row -> (steps of time, tokens or places, width)."""
    if form in ("windows", "stream"):
        return np.asarray(array.reshape(len(array), -1), dtype=np.float32)
    one: Frames = np.asarray(array[0], dtype=np.float32)
    if one.ndim < 2 or one.size in one.shape:
        return one.reshape(1, -1)
    if one.ndim == 3 and form != "channels_last":
        one = np.moveaxis(one, 0, -1)
    steps = one.reshape(-1, one.shape[-1])
    return steps[keep] if keep is not None and len(keep) == len(steps) and keep.any() else steps


def settled(pooling: str, stated: str, kind: Kind, found: Frames, form: Form) -> str:
    """The pooling that `auto` means here; raises RequestError for one that the output does not allow."""
    if pooling == "output":
        return stated
    if pooling != "auto":
        # the windows of a recording are pooled even where each is one vector already
        if len(found) == 1 and kind != "audio":
            raise RequestError("the network gives one vector a row already; leave --pooling out")
        if pooling == "flatten" and kind != "image":
            raise RequestError("rows of varying length cannot be flattened; try pooling mean or max")
        return pooling
    # a class token stands before a square of patches
    tokens = kind == "image" and form != "channels_last" and len(found) > 2
    if tokens and isqrt(len(found) - 1) ** 2 == len(found) - 1:
        return "cls"
    return stated


def pooled(steps: Frames, pooling: str, normalise: bool) -> Frames:
    """(steps, width) -> one vector."""
    if pooling == "flatten":
        vector = steps.reshape(-1)
    elif pooling == "cls":
        vector = steps[0]
    else:
        vector = steps.max(0) if pooling == "max" else steps.mean(0, dtype=np.float64).astype(np.float32)
    length = float(np.linalg.norm(vector))
    return vector / np.float32(length) if normalise and length > 0 else vector
