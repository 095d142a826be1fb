"""`layers`: linear heads on what several layers of the source say of a row, weighted into one.

Late layers know what the source was trained for, earlier ones what lies further from it. One run gives
all of them, and the sum of linear heads is a linear head.
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from graftwork.backbones.base import Backbone, Layered, beside, labelled_matrix, plain
from graftwork.errors import RequestError
from graftwork.heads import LinearHead
from graftwork.model import Model
from graftwork.records import Notify, Progress
from graftwork.rows import Kind
from graftwork.spectrum import Float64, factorise
from graftwork.strategies.base import Task
from graftwork.strategies.probe import Candidate, Fitting

LINEAR = ("ridge", "discriminant", "logistic")


@dataclass(frozen=True)
class Layers:
    """blocks: how many blocks before the last are asked, besides the network's own features."""

    blocks: int = 3
    name: str = "layers"
    transfers: bool = True
    quick: bool = True

    def basis(self, kind: Kind, source: Backbone | None) -> Backbone:
        """The source itself; raises RequestError where there is none, or where it has no layers to ask."""
        if source is None:
            raise RequestError(
                f"strategy 'layers' learns on a pretrained model's layers; no source was given for {kind} "
                "rows; try: --source NAME (graft sources lists them)"
            )
        if not isinstance(plain(source), Layered):
            found = source.state().source
            name = "this source" if found is None else f"source {found.name!r}"
            raise RequestError(f"{name} gives one layer's features only; try --strategy probe or mlp")
        return source

    def fit(self, task: Task, basis: Backbone | None, notify: Notify) -> Model:
        """Fit on all of the task's rows, validation included: all choices are by own cross-fitting."""
        source = self.basis(task.kind, basis)
        own = plain(source)
        assert isinstance(own, Layered)
        layered = own.layered(self.asked(own), task.rows, notify)
        assert isinstance(layered, Layered)
        backbone = beside(source, layered)
        features = labelled_matrix(backbone, task.rows, notify)
        notify(Progress("head", 0, None, "layers"))
        head, settings = fit_layers(features, layered.parts, task)
        return Model(backbone, head, settings=settings)

    def asked(self, source: Layered) -> tuple[str, ...]:
        """The blocks whose output is pooled; the last one's is what the network's own features come from."""
        names = source.blocks()
        if self.blocks < 1 or len(names) < 2:
            seen = f"blocks={self.blocks} and {len(names)} blocks in the source"
            raise RequestError(f"{seen} seen; expected one at least, before the last; try --strategy probe")
        return names[:-1][-self.blocks :]


def fit_layers(
    features: NDArray[np.float32], parts: tuple[tuple[str, int], ...], task: Task
) -> tuple[LinearHead, dict[str, Any]]:
    """One linear head on (rows, width) features, the columns of which are `parts`, and how it came about."""
    present, codes = np.unique(task.codes, return_inverse=True)
    known = replace(task, codes=codes, labels=tuple(task.labels[code] for code in present))
    ends = np.cumsum([0, *(width for _, width in parts)])
    found: list[Candidate] = []
    rows = np.empty(0, np.int64)
    for start, end in pairwise(ends):
        columns = np.ascontiguousarray(features[:, start:end])
        fitting = Fitting(columns, known, factorise(columns, task.weights))
        rows = fitting.asked
        choices = [one for one in fitting.candidates("auto" if len(rows) else "ridge") if one.head in LINEAR]
        found.append(min(choices, key=lambda one: one.order))
    weights, loss = np.eye(len(found))[-1], None
    if len(rows):
        logits = np.stack([one.logits / one.temperature for one in found if one.logits is not None])
        weights, loss = stacked(logits, codes[rows], task.weights[rows])
    head = _joined(known.labels, found, weights)
    layers = [
        {"layer": name, "width": width, "head": one.head, "strength": one.strength,
         "log_loss": one.log_loss, "weight": float(weight)}
        for (name, width), one, weight in zip(parts, found, weights, strict=True)
    ]  # fmt: skip
    settings = {"head": "layers", "layers": layers, "log_loss": loss, "rows_out_of_fold": len(rows)}
    return (head if len(present) == len(task.labels) else head.over(task.labels)), settings


def stacked(logits: Float64, codes: NDArray[np.int64], importance: Float64) -> tuple[Float64, float]:
    """(layers,) weights >= 0 by which the sum of (layers, rows, classes) logits has the least log-loss; it.

    Two rows' worth of the loss are shared by all classes, as in `heads.temperature`, and pull towards no
    certainty.
    """
    share = importance / importance.sum()
    doubt = 2.0 / (len(codes) + 2.0)
    target = np.full(logits.shape[1:], doubt / logits.shape[2])
    target[np.arange(len(codes)), codes] += 1.0 - doubt

    def loss(weights: Float64) -> tuple[float, Float64]:
        mixed = np.tensordot(weights, logits, 1)
        mixed -= mixed.max(axis=1, keepdims=True)
        spread = mixed - np.log(np.exp(mixed).sum(axis=1, keepdims=True))
        slope = share[:, None] * (np.exp(spread) - target)
        return -float(share @ (target * spread).sum(1)), np.tensordot(logits, slope, 2)

    start = np.full(len(logits), 1.0 / len(logits))
    search: Any = minimize  # its stubs do not know a function that returns its gradient too
    weights: Float64 = search(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(start)).x
    mixed = np.tensordot(weights, logits, 1)
    mixed -= mixed.max(axis=1, keepdims=True)
    truth = mixed[np.arange(len(codes)), codes] - np.log(np.exp(mixed).sum(1))
    return weights, -float(share @ truth)


def _joined(labels: tuple[str, ...], found: list[Candidate], weights: Float64) -> LinearHead:
    """The heads of all layers, each on its own columns, as one head on all of them."""
    columns, bias = [], np.zeros(len(labels))
    for one, weight in zip(found, weights, strict=True):
        head = one.fit(1.0)
        assert isinstance(head, LinearHead)
        scale = weight / one.temperature
        columns.append(scale * head.arrays["weights"].astype(np.float64))
        bias += scale * head.arrays["bias"]
    return LinearHead.of(labels, np.concatenate(columns), bias)
