"""From cross-fitted answers to what is expected: of each source, of being the best, of a wrong choice."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graftwork.intervals import effective_wilson, grouping, percentile, resampled_sums
from graftwork.records import Metric, Score
from graftwork.rows import IntArray
from graftwork.spectrum import Float64
from graftwork.transferability import Separation

COMPARED = ("evidence", "ridge", "log_loss", "discriminant", "knn")
"""Scores that mean the same for every width and that every source has; the others are only reported."""
ENOUGH = 4
"""Sources from which on a line through their scores says more than it takes from the data."""
WIDEST = 0.3
"""Departures of the metric from the scores' line that are thought possible."""
LEVEL = 0.95


@dataclass(frozen=True)
class Rung:
    """Answers at one size of the sample: source -> (size,) codes answered for its first `size` rows."""

    size: int
    answers: Mapping[int, IntArray]


@dataclass(frozen=True)
class Course:
    """What was asked: growing samples of ever fewer sources, the first rung of them all.

    truth, groups (n,) and asked (n,) are in the sample's order; rows not asked cannot be answered.
    total: rows that a probe would learn from in the end.
    """

    truth: IntArray
    groups: IntArray
    asked: NDArray[np.bool_]
    classes: int
    total: int
    rungs: Sequence[Rung]

    def last(self, source: int) -> int:
        return max(r for r, rung in enumerate(self.rungs) if source in rung.answers)


@dataclass(frozen=True)
class Estimate:
    """What is expected of one source: see records.Candidate."""

    expected: Score
    probability_best: float
    regret: float


def fused(found: Sequence[Sequence[Separation]]) -> Float64:
    """(sources,) the mean of COMPARED, each in deviations over the sources: larger is better."""
    if not found:
        return np.zeros(0)
    table = np.array([[s.value for s in scores if s.name in COMPARED] for scores in found])
    spread = table.std(axis=0)
    apart = np.divide(table - table.mean(axis=0), spread, out=np.zeros_like(table), where=spread > 1e-12)
    return np.asarray(apart.mean(axis=1))


def estimates(course: Course, scores: Float64, metric: Metric, seed: int) -> list[Estimate]:
    """One Estimate a source; scores (sources,) are `fused`.

    Each source's cross-fitted metric is shrunk towards what its scores say, as far as its own rows
    leave it open (Fay and Herriot 1979): a few rows answer right or wrong by luck, while evidence,
    margins and neighbours use how clearly. All is done for each bootstrap sample of the rows.
    """
    value, influence = _measured(course, metric)
    sums = resampled_sums(influence.reshape(len(influence), -1), course.groups, seed)
    drawn = np.concatenate([value[None], value + sums.reshape(-1, *value.shape)])
    level, carried = _carried(course, drawn)
    rng = np.random.default_rng(seed)
    level = _shrunk(level, scores, 0.5 / int(course.asked[: course.rungs[0].size].sum()) ** 2, rng)
    best = level[1:].max(axis=1, keepdims=True)
    leads = level[1:] >= best - 1e-7  # what only the order's tie-break parts
    probability = (leads / leads.sum(axis=1, keepdims=True)).mean(axis=0)
    regret = (best - level[1:]).mean(axis=0)
    step = _growth(course, metric)
    found = []
    for s in range(level.shape[1]):
        own = influence[:, s, course.last(s)]
        expected = _expected(course, metric, s, float(level[0, s]), float(carried[s]), own, step)
        found.append(Estimate(expected, float(probability[s]), float(regret[s])))
    return found


def difference(course: Course, metric: Metric, seed: int) -> tuple[float, float, float]:
    """Source 0's metric less source 1's in the only rung: (difference, low, high), paired over rows."""
    value, influence = _measured(course, metric)
    drawn = resampled_sums((influence[:, 0, 0] - influence[:, 1, 0])[:, None], course.groups, seed)[:, 0]
    apart = float(value[0, 0] - value[1, 0])
    groups = len(np.unique(course.groups[course.asked]))
    return apart, *percentile(apart + drawn, groups, LEVEL)


def influence_of(metric: Metric, truth: IntArray, answers: IntArray, classes: int) -> tuple[float, Float64]:
    """The metric, and (rows,) each row's part of its error: replicates are the metric plus sums of them."""
    right = truth == answers
    if metric == "accuracy":
        value = float(right.mean())
        return value, (right - value) / len(right)
    actual = np.bincount(truth, minlength=classes).astype(np.float64)
    predicted = np.bincount(answers, minlength=classes).astype(np.float64)
    hits = np.bincount(truth[right], minlength=classes)
    present = actual > 0
    count = present.sum()
    if metric == "balanced_accuracy":
        recall = hits / np.maximum(actual, 1.0)
        return float(recall[present].mean()), (right - recall[truth]) / actual[truth] / count
    below = np.maximum(actual + predicted, 1.0)
    f1 = np.where(present, 2 * hits / below, 0.0)
    inside = (2 * right - f1[truth]) / below[truth]
    outside = np.where(present[answers], f1[answers] / below[answers], 0.0)
    return float(f1[present].mean()), (inside - outside) / count


def _measured(course: Course, metric: Metric) -> tuple[Float64, Float64]:
    """(sources, rungs) the metric, NaN where not asked; (rows, sources, rungs) influences, 0 there."""
    shape = len(course.rungs[0].answers), len(course.rungs)
    value, influence = np.full(shape, np.nan), np.zeros((len(course.truth), *shape))
    for r, rung in enumerate(course.rungs):
        rows = np.flatnonzero(course.asked[: rung.size])
        for s, answers in rung.answers.items():
            value[s, r], influence[rows, s, r] = influence_of(
                metric, course.truth[rows], answers[rows], course.classes
            )
    return value, influence


def _carried(course: Course, drawn: Float64) -> tuple[Float64, Float64]:
    """(draws, sources) the metric at the last rung; those dropped before gain what the survivors gained.

    Also the part (sources,) that was carried over so. Paired: both ends of the gain are in each draw.
    """
    level = np.full(drawn.shape[:2], np.nan)
    gain = np.zeros(len(drawn))
    carried = np.zeros(drawn.shape[1])
    for r in reversed(range(len(course.rungs))):
        here = sorted(course.rungs[r].answers)
        later = [s for s in here if course.last(s) > r]
        if later:
            gain = (level[:, later] - drawn[:, later, r]).mean(axis=1)
        for s in set(here) - set(later):
            level[:, s] = drawn[:, s, r] + gain
            carried[s] = abs(gain[0])
    return level, carried


def _shrunk(level: Float64, scores: Float64, least: float, rng: np.random.Generator) -> Float64:
    """Levels (draws, sources) drawn to the line of the scores; the first draw is the data.

    least: variance below which the bootstrap is not believed (all rows right shows none).
    What is left open of each source's own departure from the line is added as noise.
    """
    draws, sources = level.shape
    spread = float(scores @ scores)
    if sources < ENOUGH or spread < 1e-12:
        # nothing to shrink to; the scores still break ties
        return level + 1e-9 * scores
    middle = level.mean(axis=1, keepdims=True)
    apart = level - middle
    noise = max(float(apart[1:].var(axis=0).mean()), least)
    slope = np.maximum(apart @ scores / spread, 0.0)
    line = slope[:, None] * scores
    own = _own_share(float(((apart - line)[0] ** 2).sum()), noise, sources - 2)
    settled: Float64 = middle + own * apart + (1.0 - own) * line + 1e-9 * scores
    settled[1:] += np.sqrt(own * (1.0 - own) * noise) * rng.standard_normal((draws - 1, sources))
    return settled


def _own_share(squares: float, noise: float, freedom: int) -> float:
    """How far a source's own figure is believed against the line: the mean of t2 / (t2 + noise).

    Over the posterior of t, the departures' deviation, flat on 0..WIDEST, given their sum of squares.
    """
    departures = np.linspace(0.0, WIDEST, 601) ** 2
    log_density = -0.5 * freedom * np.log(departures + noise) - 0.5 * squares / (departures + noise)
    density = np.exp(log_density - log_density.max())
    return float((density * departures / (departures + noise)).sum() / density.sum())


def _growth(course: Course, metric: Metric) -> float:
    """What one doubling of the rows brought the survivors of the last rung, on the rows they share."""
    if len(course.rungs) < 2:
        return 0.0
    before, after = course.rungs[-2:]
    rows = np.flatnonzero(course.asked[: before.size])

    def on_shared(answers: IntArray) -> float:
        return influence_of(metric, course.truth[rows], answers[rows], course.classes)[0]

    gains = [on_shared(after.answers[s]) - on_shared(before.answers[s]) for s in after.answers]
    return max(0.0, float(np.mean(gains)) / float(np.log2(after.size / before.size)))


def _expected(
    course: Course,
    metric: Metric,
    source: int,
    level: float,
    carried: float,
    influence: Float64,
    step: float,
) -> Score:
    """The metric with all rows: each further doubling is expected to bring half of what the last one did.

    All of them together mend half of the errors at most, and no sample, however right, promises more than
    the mean of Jeffreys' posterior does where all n rows are right, (n + 1/2) / (n + 1).
    low: as if more rows brought nothing; high: as if each brought as much as the last.
    """
    size = course.rungs[course.last(source)].size
    rows = np.flatnonzero(course.asked[:size])
    groups = course.groups[rows]
    alone = grouping(groups) is None
    centre = min(max(level, 0.0), 1.0)
    at_most = float(len(rows) if alone or 0.0 < centre < 1.0 else len(np.unique(groups)))
    low, high = effective_wilson(centre, influence[rows], None if alone else groups, at_most, LEVEL)
    doublings = max(0.0, float(np.log2(course.total / course.rungs[-1].size)))
    margin = 0.5 / (len(rows) + 1)
    value = centre + min(step * (1.0 - 0.5**doublings), (1.0 - centre) / 2)
    value = min(max(value, margin), 1.0 - margin)
    low, high = low - carried / 2, high + carried / 2 + step * doublings
    return Score(metric, value, max(0.0, min(low, value)), min(1.0, max(high, value)), len(rows), LEVEL)
