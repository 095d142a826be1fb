"""Which answer to keep: the declared metric on rows that no candidate learnt from, ties to the cheaper.

The best of ten scores on a few hundred rows is partly luck. A dearer candidate must therefore lead by
more than one standard error of the paired difference (after the one-standard-error rule of Breiman et
al. 1984), or on a hundred rows and more by half a point with log-losses that do not speak against it, or
be no worse and clearly surer of the truth: log-losses tell candidates apart long before accuracies do.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graftwork.evaluation import from_counts, measure
from graftwork.heads import temperature
from graftwork.records import Metric
from graftwork.rows import IntArray

TIE = 0.005
"""A lead of the metric up to which models are equal, whatever their log-losses but for a clear difference."""
ENOUGH = 100
"""Rows from which half a point says anything; of fewer a single row is more than that."""
SCORE_ERRORS = 1.0
LOSS_ERRORS = 2.0
_DRAWS = 200
_LEAST = 1e-9


@dataclass(frozen=True)
class Truth:
    """What is known of the rows that are asked: labels, groups and the declared metric."""

    codes: IntArray
    groups: IntArray
    metric: Metric
    classes: int


@dataclass(frozen=True)
class Answer:
    """A candidate's probabilities (rows asked, classes), NaN where it was not asked.

    rank: what the model costs to keep and to ask, small for cheap.
    """

    rank: int
    probabilities: NDArray[np.float64]

    @property
    def given(self) -> NDArray[np.bool_]:
        return np.asarray(np.isfinite(self.probabilities).all(axis=1))


@dataclass(frozen=True)
class Lead:
    """By how much one answer leads another on rows that both gave, with standard errors.

    score: of the metric. loss: of the log-loss, positive where the first is surer of the truth. rows: those
    that both gave.
    """

    score: float
    score_error: float
    loss: float
    loss_error: float
    rows: int

    @property
    def clear(self) -> bool:
        """More than what luck gives: by the metric, or by the metric and the log-loss together."""
        surer = self.loss > LOSS_ERRORS * self.loss_error + _LEAST
        ahead = self.score > SCORE_ERRORS * self.score_error + _LEAST
        further = self.rows >= ENOUGH and self.score > TIE + _LEAST and self.loss > 0
        return ahead or (self.score >= 0 and surer) or further


def scored(truth: Truth, answer: Answer) -> tuple[float, float]:
    """(metric, log-loss at its best temperature) on the rows that it was asked."""
    rows = answer.given
    losses = _losses(truth, answer, rows)
    return measure(truth.metric, truth.codes[rows], answer.probabilities[rows]), float(losses.mean())


def lead(truth: Truth, one: Answer, other: Answer) -> Lead:
    """`one` against `other` on the rows that both gave; rows of one group err together."""
    rows = one.given & other.given
    score = [measure(truth.metric, truth.codes[rows], a.probabilities[rows]) for a in (one, other)]
    gain = _losses(truth, other, rows) - _losses(truth, one, rows)
    _, places = np.unique(truth.groups[rows], return_inverse=True)
    if truth.metric == "accuracy":
        won = _right(truth, one, rows).astype(np.float64) - _right(truth, other, rows)
        error = _error_of_mean(won, places)
    else:
        error = _drawn_error(truth, one, other, rows, places)
    return Lead(score[0] - score[1], error, float(gain.mean()), _error_of_mean(gain, places), len(places))


def choose(truth: Truth, answers: Sequence[Answer]) -> int:
    """The answer to keep; the first is the probe's, which is never left for one that scores lower.

    Of those that score at least as well as the probe the best is taken, then the cheapest that it does
    not clearly lead. Equally cheap ones count as dearer the later they come.
    """
    probe = answers[0]
    leads = [lead(truth, one, probe) for one in answers]
    able = [i for i, found in enumerate(leads) if found.score >= -_LEAST]
    best = max(able, key=lambda i: (round(leads[i].score, 9), leads[i].loss, -i))
    for i in sorted(able, key=lambda i: (answers[i].rank, i)):
        if i == best or not lead(truth, answers[best], answers[i]).clear:
            return i
    return best


def _losses(truth: Truth, answer: Answer, rows: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Each row's log-loss; one temperature for all, so that calibration alone decides nothing."""
    codes = truth.codes[rows]
    logits = np.log(np.maximum(answer.probabilities[rows], 1e-12))
    heat, _ = temperature(logits, codes, np.ones(len(codes)))
    scores = logits / heat
    scores -= scores.max(axis=1, keepdims=True)
    return np.asarray(np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(len(codes)), codes])


def _right(truth: Truth, answer: Answer, rows: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.asarray(answer.probabilities[rows].argmax(1) == truth.codes[rows])


def _error_of_mean(values: NDArray[np.float64], places: IntArray) -> float:
    """Standard error of the mean of values (rows,) whose groups are `places`."""
    sums = np.bincount(places, values - values.mean())
    return float(np.sqrt((sums**2).sum() * len(sums) / max(len(sums) - 1, 1)) / len(values))


def _drawn_error(
    truth: Truth, one: Answer, other: Answer, rows: NDArray[np.bool_], places: IntArray
) -> float:
    """Standard error of the difference in a metric that is no mean over rows, by a paired bootstrap."""
    groups = int(places.max()) + 1
    drawn = np.random.default_rng(0).multinomial(groups, np.full(groups, 1 / groups), _DRAWS)
    weights = drawn[:, places].astype(np.float64)
    known = np.eye(truth.classes)[truth.codes[rows]]
    scores = []
    for answer in (one, other):
        said = np.eye(truth.classes)[answer.probabilities[rows].argmax(1)]
        scores.append(from_counts(truth.metric, weights @ known, weights @ said, weights @ (known * said)))
    return float((scores[0] - scores[1]).std())
