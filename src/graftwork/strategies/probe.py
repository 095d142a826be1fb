"""Linear probe: the backbone stays as it is, a head is fitted on its features.

Candidates come from one factorisation and are compared by log-loss on rows their heads have not
seen, each after its own temperature: accuracy would take ties for choices, and leave-one-out
accuracy fails under shuffled labels.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from graftwork.backbones.base import Backbone, labelled_matrix
from graftwork.errors import RequestError, UnknownName
from graftwork.heads import CentroidHead, LinearHead, temperature
from graftwork.logistic import Design, design, grouped_folds, linear, logistic, logits
from graftwork.model import Model
from graftwork.records import Notify, Progress
from graftwork.rows import IntArray, Kind
from graftwork.spectrum import (
    Float64,
    Spectrum,
    blocks,
    class_loadings,
    discriminant,
    factorise,
    held_groups,
    indicators,
    left_out,
)
from graftwork.strategies.base import Task

Choice = Literal["auto", "ridge", "logistic", "discriminant", "centroid"]
CLOSED_FORM = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
"""Strengths of ridge and discriminant, in units of a row's mean squared length: noise over signal."""
LOGISTIC = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
"""Strengths of logistic regression, strong to weak, in the same units."""
ASKED, ASKED_LOGITS = 20_000, 500_000
"""Out-of-fold answers of so many rows settle a strength and a temperature; more would cost time only."""
FEW = 10
"""Mean labels a class up to which a centroid is worth trying."""
PRIOR_ROWS = 50.0
"""How many rows the mean spread counts for, against each feature's own."""
MANY_CLASSES = 32
"""Beyond, ridge and discriminant leave out a quarter as many groups at once as there are classes."""
UNTESTED_MARGIN = 5.0
"""Logits by which training rows lead where no row is left to calibrate on; suits one label a class."""
LOOSE, TIGHT = 3e-3, 1e-4
"""Gradient tolerance of the folds' models, which only choose, and of the model that is kept."""


Fit = Callable[[float], LinearHead | CentroidHead]


@dataclass(frozen=True)
class Candidate:
    """A head at one strength: its out-of-fold log-loss at its own temperature, and how to fit it.

    log_loss is None where no row can be asked (one label a class). fit: temperature -> head. logits:
    out-of-fold, (asked, classes), before the temperature.
    """

    head: str
    strength: float | None
    log_loss: float | None
    temperature: float
    fit: Fit
    logits: NDArray[Any] | None = None

    @property
    def order(self) -> float:
        return np.inf if self.log_loss is None else self.log_loss


@dataclass(frozen=True)
class Probe:
    """Strategy "probe". head: one kind of head, or "auto" for the best by out-of-fold log-loss."""

    head: Choice = "auto"
    name: str = "probe"
    transfers: bool = True
    quick: bool = True

    def __post_init__(self) -> None:
        if self.head not in get_args(Choice):
            raise UnknownName("head", self.head, get_args(Choice))

    def basis(self, kind: Kind, source: Backbone | None) -> Backbone:
        """The source itself; raises RequestError where there is none."""
        if source is None:
            raise RequestError(
                f"strategy 'probe' learns on a pretrained model's features; no source was given for {kind} "
                "rows; try: --source NAME (graft sources lists them), or --strategy classical"
            )
        return source

    def fit(self, task: Task, basis: Backbone | None, notify: Notify) -> Model:
        """Fit on all of the task's rows, validation included: selection is by own cross-fitting."""
        backbone = self.basis(task.kind, basis)
        features = labelled_matrix(backbone, task.rows, notify)
        notify(Progress("head", 0, None, "candidates"))
        head, settings = fit_head(features, task, self.head)
        notify(Progress("head", len(settings["candidates"]), len(settings["candidates"]), "candidates"))
        return Model(backbone, head, settings=settings)


def fit_head(
    features: NDArray[np.float32], task: Task, choice: Choice = "auto"
) -> tuple[LinearHead | CentroidHead, dict[str, Any]]:
    """The chosen head on (rows, width) features, and what was chosen, in plain JSON."""
    present, codes = np.unique(task.codes, return_inverse=True)
    known = replace(task, codes=codes, labels=tuple(task.labels[code] for code in present))
    fitting = Fitting(features, known, factorise(features, task.weights))
    candidates = list(fitting.candidates(choice))
    best = min(candidates, key=lambda candidate: candidate.order)
    head = best.fit(best.temperature)
    settings = {
        "head": best.head,
        "strength": best.strength,
        "temperature": best.temperature,
        "log_loss": best.log_loss,
        "rows_out_of_fold": len(fitting.asked),
        "candidates": [{"head": c.head, "strength": c.strength, "log_loss": c.log_loss} for c in candidates],
    }
    return (head if len(present) == len(task.labels) else head.over(task.labels)), settings


class Fitting:
    """One task's features, factorised, and the candidates that follow."""

    def __init__(self, features: NDArray[np.float32], task: Task, spectrum: Spectrum) -> None:
        self.features, self.task, self.spectrum = features, task, spectrum
        self.classes = len(task.labels)
        # few rows: ten folds, so that a fold's head learns from nearly all of them
        self.count = 10 if len(features) <= 500 else 5
        self.folds = grouped_folds(task.codes, task.groups, self.count, task.seed)
        enough = min(ASKED, ASKED_LOGITS // self.classes)
        self.used_folds = min(self.count, -(-enough * self.count // len(features)))
        self.asked = np.flatnonzero((self.folds < self.used_folds) & _answerable(task))

    def candidates(self, choice: Choice) -> Iterator[Candidate]:
        """Each family's best candidate; all families for "auto"."""
        if not len(self.asked):
            yield self.untested(choice)
            return
        few = len(self.features) <= FEW * self.classes
        if choice == "centroid" or (choice == "auto" and few):
            yield from self.centroids()
        strongest = LOGISTIC[0]
        if choice in ("auto", "ridge", "discriminant"):
            for candidate in self.closed_form(choice):
                yield candidate
                if candidate.head == "ridge" and candidate.strength is not None:
                    # squared errors shrink more than log-losses do: no need to look at stronger ones
                    strongest = candidate.strength
        if choice in ("auto", "logistic"):
            yield from self.logistic(strongest)

    def untested(self, choice: Choice) -> Candidate:
        """One label a class: nothing to choose or calibrate by, so fixed settings (auto: the centroid).

        The temperature gives the training rows themselves a margin of UNTESTED_MARGIN.
        """
        middle = float(self.spectrum.strengths((1.0,))[0])
        fit: Fit
        if choice in ("auto", "centroid"):
            name, fit = "centroid-cosine", partial(self.centroid_head, "cosine", np.arange(len(self.folds)))
        elif choice == "logistic":
            start = np.zeros((self.spectrum.rank + 1, self.classes))
            name, fit = choice, partial(self.fit_logistic, design(self.spectrum), 0.01 * middle, start)
        else:
            name, fit = choice, partial(self.fit_closed_form, choice, middle)
        logits = fit(1.0).logits(self.features)
        own = logits[np.arange(len(logits)), self.task.codes]
        others = (logits.sum(axis=1) - own) / max(self.classes - 1, 1)
        margin = float((own - others).mean())
        strength = {"centroid-cosine": None, "logistic": 0.01}.get(name, 1.0)
        return Candidate(name, strength, None, margin / UNTESTED_MARGIN if margin > 0 else 1.0, fit)

    def judged(self, head: str, strength: float | None, logits: NDArray[Any], fit: Fit) -> Candidate:
        """A candidate from its out-of-fold logits of the asked rows."""
        heat, loss = temperature(logits, self.task.codes[self.asked], self.task.weights[self.asked])
        return Candidate(head, strength, loss, heat, fit, logits)

    def closed_form(self, choice: Choice) -> Iterator[Candidate]:
        """Ridge and discriminant, by exact answers without each row's group."""
        codes, classes = self.task.codes, self.classes
        strengths = self.spectrum.strengths(CLOSED_FORM)
        groups = self.task.groups
        if classes > MANY_CLASSES:
            # a group's (classes, classes) system costs more than its rows: leave several out at once
            count = -(-4 * len(np.unique(groups)) // classes)
            groups = grouped_folds(codes, groups, max(count, self.count), self.task.seed)
        # whole groups leave, also those of their rows that are not asked
        leaving = np.flatnonzero(np.isin(self.task.groups, self.task.groups[self.asked]))
        held = held_groups(self.spectrum, groups, leaving, classes)
        answers = left_out(self.spectrum, codes, classes, strengths, held)
        asked = np.searchsorted(answers.rows, self.asked)
        for head in ("ridge", "discriminant"):
            if choice in ("auto", head):
                path = (answers.ridge if head == "ridge" else answers.discriminant)[:, asked]
                yield min(
                    (
                        self.judged(
                            head, ratio, path[p], partial(self.fit_closed_form, head, float(strengths[p]))
                        )
                        for p, ratio in enumerate(CLOSED_FORM)
                    ),
                    key=lambda candidate: candidate.order,
                )

    def fit_closed_form(self, head: str, strength: float, heat: float) -> LinearHead:
        codes, classes = self.task.codes, self.classes
        if head == "ridge":
            loadings = class_loadings(self.spectrum, codes[None], classes)[0]
            return LinearHead.of(self.task.labels, *self.spectrum.linear(loadings, strength), heat)
        return LinearHead.of(self.task.labels, *discriminant(self.spectrum, codes, classes, strength), heat)

    def logistic(self, strongest: float) -> Iterator[Candidate]:
        """Logistic regression, each strength starting from a stronger one's folds, until it gets worse."""
        rows, codes = design(self.spectrum), self.task.codes
        held = self.folds[:, None] == np.arange(self.used_folds)
        best, start = None, None
        for ratio in (ratio for ratio in LOGISTIC if ratio <= max(strongest, LOGISTIC[-1])):
            strength = float(self.spectrum.strengths((ratio,))[0])
            start = logistic(rows, codes, self.classes, strength, ~held, start, LOOSE)
            seen = held_logits(rows, start, self.folds, self.asked)
            found = self.judged(
                "logistic", ratio, seen, partial(self.fit_logistic, rows, strength, start.mean(0))
            )
            if best is not None and found.order >= best.order:
                break
            best = found
        assert best is not None
        yield best

    def fit_logistic(self, rows: Design, strength: float, start: Float64, heat: float) -> LinearHead:
        everything = np.ones((len(self.features), 1), dtype=bool)
        found = logistic(rows, self.task.codes, self.classes, strength, everything, start[None], TIGHT)
        return LinearHead.of(self.task.labels, *linear(self.spectrum, found[0]), heat)

    def centroids(self) -> Iterator[Candidate]:
        """Nearest centroid by cosine and by distance, the folds' centroids from the other folds' rows."""
        for metric in ("cosine", "distance"):
            seen = np.empty((len(self.asked), self.classes))
            for fold in range(self.used_folds):
                place = np.flatnonzero(self.folds[self.asked] == fold)
                if len(place):
                    head = self.centroid_head(metric, np.flatnonzero(self.folds != fold), 1.0)
                    seen[place] = head.logits(self.features[self.asked[place]])
            yield self.judged(
                f"centroid-{metric}",
                None,
                seen,
                partial(self.centroid_head, metric, np.arange(len(self.folds))),
            )

    def centroid_head(self, metric: str, rows: IntArray, heat: float) -> CentroidHead:
        """Centroids of `rows`; each feature's spread is shrunk towards the mean spread."""
        codes, weights = self.task.codes[rows], self.task.weights[rows]
        sums = np.zeros((self.classes, self.features.shape[1]))
        squares = np.zeros(self.features.shape[1])
        for part in blocks(len(rows)):
            block = self.features[rows[part]] - self.spectrum.mean
            weighted = weights[part, None] * block
            sums += indicators(codes[part], self.classes).T @ weighted
            squares += (weighted * block).sum(axis=0)
        counts = np.bincount(codes, weights, self.classes)
        means = sums / np.maximum(counts, 1e-12)[:, None]
        within = np.maximum(squares - counts @ means**2, 0.0) / counts.sum()
        share = np.clip((len(rows) - self.classes) / (len(rows) - self.classes + PRIOR_ROWS), 0.0, 1.0)
        variance = share * within + (1.0 - share) * max(within.mean(), 1e-12 * squares.mean(), 1e-30)
        scale = np.sqrt(variance)
        middle = sums.sum(axis=0) / counts.sum()
        return CentroidHead.of(
            self.task.labels, metric, self.spectrum.mean + middle, scale, (means - middle) / scale, heat
        )


def held_logits(rows: Design, parameters: Float64, folds: IntArray, asked: IntArray) -> NDArray[np.float32]:
    """(asked, classes): each asked row's logits by the model that did not learn from it."""
    seen = np.empty((len(folds), parameters.shape[2]), dtype=np.float32)
    for index in blocks(len(folds)):
        held = np.minimum(folds[index], len(parameters) - 1)
        values = logits(rows, parameters, index)
        seen[index] = np.take_along_axis(values, held[:, None, None], axis=1)[:, 0]
    return seen[asked]


def _answerable(task: Task) -> NDArray[np.bool_]:
    """Rows whose class has another group: a head that never saw the class cannot be asked for it."""
    pairs = np.unique(np.column_stack([task.codes, task.groups]), axis=0)
    several = np.bincount(pairs[:, 0], minlength=len(task.labels)) > 1
    return np.asarray(several[task.codes])
