"""Learning curves: the score by number of labels a class, and the labels that the transfer saved."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from graftwork.evaluation import measure
from graftwork.folds import turns
from graftwork.intervals import Floats
from graftwork.records import CurvePoint, LearningCurve, Metric, Notify, Progress, silent
from graftwork.rows import IntArray

FitPredict = Callable[[IntArray, int], Floats]
"""(positions of the training rows to learn from, seed) -> probabilities (held rows, classes)."""


def learning_curve(
    learners: Mapping[str, FitPredict],
    codes: IntArray,
    groups: IntArray | None,
    held_truth: IntArray,
    metric: Metric,
    *,
    transfer: str,
    full: Mapping[str, float],
    seconds: float | None = 20.0,
    seed: int = 0,
    notify: Notify = silent,
) -> LearningCurve:
    """Scores with 1, 2, 4, 8, ... labels a class, up to all.

    learners: name -> FitPredict; `transfer` names the one that transfers, the others are baselines.
    codes, groups: (rows,) of the training rows. held_truth: (held,) codes of rows no learner sees.
    full: name -> score already known with all training rows; it closes that learner's curve, and a
    name without a learner (a baseline too slow to fit again and again) still counts as a baseline.

    A draw takes m random rows a class (all where there are fewer), one of each group first; the
    draws of all learners are the same and those of growing m are nested. Small sizes get more draws.
    After `seconds` no further fit begins: then there are fewer draws, or the largest sizes are
    missing. None means no bound.

    labels_saved: rows of all training data minus rows at the smallest size from which on the
    transfer's mean is at least the best baseline's score with all rows; None where there is no
    baseline or it is not reached with fewer rows.
    """
    sheet = _Sheet(codes, groups, held_truth, metric, seed)
    started = time.monotonic()
    plan = list(_plan(codes, learners))
    for done, (draw, size, name) in enumerate(plan):
        if seconds is not None and time.monotonic() - started > seconds:
            break
        sheet.measure(learners[name], name, size, draw)
        notify(Progress("learning curve", done + 1, len(plan), "fits"))
    curves = {name: sheet.points(name, full.get(name)) for name in learners}
    saved, sentence = _saved(curves[transfer], transfer, full, len(codes))
    return LearningCurve(metric, curves, saved, f"{sentence} {_slope(curves[transfer])}".strip())


@dataclass(frozen=True)
class _Sheet:
    """The scores measured so far: (learner, size) -> score of each draw."""

    codes: IntArray
    groups: IntArray | None
    truth: IntArray
    metric: Metric
    seed: int
    scores: dict[tuple[str, int], list[float]] = field(default_factory=dict)

    def measure(self, learner: FitPredict, name: str, size: int, draw: int) -> None:
        seed = int(np.random.SeedSequence([self.seed, draw]).generate_state(1)[0])
        chosen = draw_rows(self.codes, self.groups, size, seed)
        score = measure(self.metric, self.truth, learner(chosen, seed))
        self.scores.setdefault((name, size), []).append(score)

    def points(self, name: str, full: float | None) -> tuple[CurvePoint, ...]:
        counts = np.bincount(self.codes)
        found = []
        for size in sorted(size for learner, size in self.scores if learner == name):
            scores = np.array(self.scores[name, size])
            error = float(scores.std(ddof=1) / np.sqrt(len(scores))) if len(scores) > 1 else 0.0
            rows = int(np.minimum(counts, size).sum())
            found.append(CurvePoint(size, rows, float(scores.mean()), error, len(scores)))
        if full is not None:
            found.append(CurvePoint(int(counts.max()), len(self.codes), full, 0.0, 1))
        return tuple(found)


def draw_rows(codes: IntArray, groups: IntArray | None, per_class: int, seed: int) -> IntArray:
    """Positions of `per_class` random rows of each class (all where there are fewer), ascending.

    A second row of a group comes only after every group of the class has given one: duplicates are
    no further labels. For one seed, smaller draws are parts of larger ones.
    """
    order = np.random.default_rng(seed).permutation(len(codes))
    chosen = []
    for code in np.unique(codes):
        members = order[codes[order] == code]
        if groups is not None:
            members = members[np.argsort(turns(groups[members]), kind="stable")]
        chosen.append(members[:per_class])
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def _sizes(codes: IntArray) -> list[int]:
    """1, 2, 4, ... below the largest class."""
    largest = int(np.bincount(codes).max())
    return [1 << power for power in range(largest.bit_length()) if 1 << power < largest]


def _plan(codes: IntArray, learners: Mapping[str, FitPredict]) -> Iterator[tuple[int, int, str]]:
    """(draw, size, learner): a first draw of every size, then more draws, most for small sizes."""
    sizes = _sizes(codes)
    for draw in range(10):
        for size in sizes:
            if draw < np.clip(64 // size, 3, 10):
                for name in learners:
                    yield draw, size, name


def _saved(
    points: tuple[CurvePoint, ...], transfer: str, full: Mapping[str, float], rows: int
) -> tuple[int | None, str]:
    baselines = {name: score for name, score in full.items() if name != transfer}
    if not baselines or not points:
        return None, ""
    best = max(baselines, key=lambda name: baselines[name])
    reached = None
    for point in reversed(points):
        if point.mean < baselines[best]:
            break
        reached = point
    if reached is None or reached.rows >= rows:
        return None, f"With fewer labels the transfer does not reach {best} with all {rows:,} rows."
    saved = rows - reached.rows
    return saved, (
        f"With {_labels(reached.per_class)} a class ({reached.rows:,} rows) the transfer scores as much as "
        f"{best} with all {rows:,} rows: {saved:,} labels saved."
    )


def _slope(points: tuple[CurvePoint, ...]) -> str:
    """What the last step up the curve brought, as a hint of what more labels would buy."""
    if len(points) < 2:
        return ""
    before, last = points[-2:]
    gain = 100 * (last.mean - before.mean)
    return (
        f"Going from {before.rows:,} to {last.rows:,} labelled rows changed its score by {gain:+.1f} points."
    )


def _labels(count: int) -> str:
    return "1 label" if count == 1 else f"{count:,} labels"
