"""`classical`: the tuned model without pretrained weights, against which every transfer is judged.

Texts: weighted n-grams under a linear support vector machine. Pictures: hand-made descriptors, and
recordings: log-mel statistics, under kernel ridge regression. Every setting is chosen by
cross-validation inside the rows of the task, whole groups held out together; probabilities are
calibrated on the held-out answers.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from graftwork.backbones.base import Backbone
from graftwork.errors import RequestError
from graftwork.folds import Fold, choose_k, folds
from graftwork.heads import temperature
from graftwork.model import Model
from graftwork.records import Metric, Notify
from graftwork.rows import IntArray, Kind
from graftwork.strategies.base import Task

if TYPE_CHECKING:
    from graftwork.strategies.kernel_ridge import Recipe

_MANY_ROWS = 2_000


@dataclass(frozen=True)
class Classical:
    """The baseline of every verdict; itself saved and served like any model."""

    name: str = "classical"
    transfers: bool = False
    quick: bool = True

    def basis(self, kind: Kind, source: Backbone | None) -> Backbone | None:
        """The frozen descriptors or statistics; None for texts, whose weighting is learnt from the rows."""
        if kind == "text":
            return None
        if kind == "audio":
            from graftwork.backbones.logmel import LogMel

            return LogMel()
        from graftwork.backbones.descriptor import Descriptor

        return Descriptor()

    def fit(self, task: Task, basis: Backbone | None, notify: Notify) -> Model:
        """A tuned model of `task`; raises Unreadable where one of its rows cannot be read."""
        if task.kind == "text":
            from graftwork.strategies.classical_texts import fit_texts

            return fit_texts(task, notify)
        from graftwork.strategies.kernel_ridge import fit_features

        backbone = self.basis(task.kind, None) if basis is None else basis
        assert backbone is not None
        return fit_features(task, backbone, _recipe(task.kind), notify)


def _recipe(kind: Kind) -> "Recipe":
    if kind == "audio":
        from graftwork.strategies.classical_audio import AUDIO

        return AUDIO
    from graftwork.strategies.classical_images import IMAGES

    return IMAGES


@dataclass(frozen=True)
class Judged:
    """Settings, and what they were worth on so many held-out rows (0: nothing could be held out).

    value: the task's metric. temperature: the one at which `log_loss` is lowest.
    """

    settings: Mapping[str, Any]
    temperature: float
    value: float = math.nan
    log_loss: float = math.nan
    rows: int = 0

    def record(self, metric: Metric) -> dict[str, Any]:
        """Plain JSON for `Model.settings`."""
        held_out = self.value if self.rows else None
        return {**self.settings, "temperature": self.temperature, f"held_out_{metric}": held_out}


def inner_folds(task: Task, rows: IntArray) -> list[Fold]:
    """Folds of `rows` (positions among them); none where no class has two rows to part."""
    k = choose_k(task.codes[rows]) if len(rows) <= _MANY_ROWS else 3
    try:
        return folds(task.codes[rows], task.groups[rows], k, task.seed)
    except RequestError:
        return []


def tuning_rows(codes: IntArray, most: int, seed: int) -> IntArray:
    """All rows, or `most` of them drawn at random, the first five of each class (as drawn) among them."""
    if len(codes) <= most:
        return np.arange(len(codes), dtype=np.int64)
    order = np.random.default_rng(seed).permutation(len(codes))
    by_class = np.argsort(codes[order], kind="stable")
    sizes = np.bincount(codes)
    rank = np.empty(len(codes), dtype=np.int64)
    rank[by_class] = np.arange(len(codes)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.sort(order[np.argsort(rank >= 5, kind="stable")][:most]).astype(np.int64)


def judge(task: Task, settings: Mapping[str, Any], logits: NDArray[np.float64]) -> Judged:
    """What held-out answers (rows, classes) are worth; rows that were never held out hold NaN."""
    held = ~np.isnan(logits[:, 0])
    codes = task.codes[held]
    heat, log_loss = temperature(logits[held], codes, task.weights[held])
    value = _measure(task.metric, codes, logits[held].argmax(1))
    return Judged(settings, heat, value, log_loss, len(codes))


def best(judged: Sequence[Judged]) -> Judged:
    """The lowest log-loss among those whose metric is within half a standard error of the highest.

    On a few rows many settings tie or differ by one lucky answer; the log-loss still tells them apart.
    """
    highest = max(one.value for one in judged)
    error = math.sqrt(highest * (1 - highest) / judged[0].rows)
    return min((one for one in judged if one.value >= highest - error / 2), key=lambda one: one.log_loss)


def _measure(metric: Metric, codes: IntArray, answers: IntArray) -> float:
    if metric == "accuracy":
        return float(np.mean(codes == answers))
    if metric == "balanced_accuracy":
        return float(np.mean([np.mean(answers[codes == code] == code) for code in np.unique(codes)]))
    from sklearn.metrics import f1_score

    return float(f1_score(codes, answers, average="macro", zero_division=0))
