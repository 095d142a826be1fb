"""Did transfer help? One rule, stated once, whoever wins.

helped: the lower bound of the difference against every baseline is above the margin. Each bound is at
the stated level: all of them must hold at once, so no correction is due.
hurt: the upper bound against some baseline is below minus the margin, at alpha divided by the number
of baselines: one of them suffices, so each gets its share of alpha.
undecided: anything else.
"""

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from graftwork.errors import RequestError
from graftwork.evaluation import check, from_counts
from graftwork.intervals import (
    Floats,
    Interval,
    corrected_t,
    effective_tango,
    grouping,
    percentile,
    resampled_sums,
    tango,
)
from graftwork.records import Comparison, Metric, Verdict
from graftwork.rows import IntArray

MARGIN = 0.005
About = Literal["this model", "the procedure"]
IntervalAt = Callable[[float], Interval]


def judge(
    truth: IntArray,
    ours: Floats,
    baselines: Mapping[str, Floats],
    metric: Metric,
    *,
    groups: IntArray | None = None,
    level: float = 0.95,
    margin: float = MARGIN,
    seed: int = 0,
    caution: str | None = None,
) -> Verdict:
    """The verdict on this model, from answers on the same test rows.

    truth: (rows,) codes; ours and each baseline: probabilities (rows, classes). groups: (rows,) ids;
    rows of one id are one observation. Accuracy: Tango's paired interval. Accuracy of groups and
    balanced accuracy: Tango's on effective rows. Macro-F1: bootstrap over groups, of both models at
    once (`seed`). `caution` is said beside the verdict.

    Raises RequestError where there is no baseline, or answers are not finite.
    """
    _require_baseline(baselines)
    check(truth, ours)
    measured = {}
    for name, theirs in baselines.items():
        check(truth, theirs)
        measured[name] = _paired(truth, ours, theirs, metric, groups, seed)
    return _rule(measured, metric, "this model", level, margin, len(truth), caution)


def judge_folds(
    ours: Floats,
    baselines: Mapping[str, Floats],
    train_rows: float,
    test_rows: float,
    metric: Metric,
    *,
    level: float = 0.95,
    margin: float = MARGIN,
    caution: str | None = None,
) -> Verdict:
    """The verdict on the procedure, from scores on the held-out parts of repeated folds.

    ours and each baseline: (folds,) the metric on the same held-out parts, every choice made anew
    inside each fold. train_rows, test_rows: rows of a fold's two parts (means where they differ).
    Nadeau and Bengio's corrected interval. Raises RequestError where there is no baseline, fewer
    than two folds, or scores of unequal number.
    """
    _require_baseline(baselines)
    scores = np.asarray(ours, dtype=np.float64)
    if len(scores) < 2 or any(len(theirs) != len(scores) for theirs in baselines.values()):
        raise RequestError(
            "a verdict from folds needs the scores of the same two or more folds from every model"
        )
    measured = {
        name: _over_folds(scores - np.asarray(theirs, dtype=np.float64), train_rows, test_rows)
        for name, theirs in baselines.items()
    }
    return _rule(measured, metric, "the procedure", level, margin, round(train_rows + test_rows), caution)


def in_words(verdict: Verdict) -> str:
    """The verdict as one plain sentence, for the report, the command line and the README."""
    decisive = verdict.decisive
    metric = verdict.metric.replace("_", " ").replace("f1", "F1")
    rival = f"the model without it ({decisive.baseline})"
    if len(verdict.comparisons) > 1:
        rival = f"the best model without it ({decisive.baseline})"
    points = f"{100 * abs(decisive.difference):.1f} points"
    interval = f"{100 * verdict.level:g}% interval {100 * decisive.low:+.1f} to {100 * decisive.high:+.1f}"
    where = f"{verdict.rows:,} test rows"
    if verdict.about == "the procedure":
        where = f"repeated folds of {verdict.rows:,} rows"
    amount = f"{points} {'more' if decisive.difference >= 0 else 'less'} {metric} than {rival}"
    sentence = {
        "helped": f"Transfer helped: {amount}, {interval}, on {where}",
        "hurt": f"Transfer hurt: {amount}, {interval}, on {where}; the model without it is the better choice",
        "undecided": f"Undecided: {amount}, {interval}, on {where}; too close to call",
    }[verdict.outcome]
    return sentence if verdict.caution is None else f"{sentence}. Caution: {verdict.caution}"


def _paired(
    truth: IntArray, ours: Floats, theirs: Floats, metric: Metric, groups: IntArray | None, seed: int
) -> tuple[float, IntervalAt]:
    """The difference on the same rows, and its interval as a function of the level."""
    rows, together = len(truth), grouping(groups)
    right, theirs_right = ours.argmax(1) == truth, theirs.argmax(1) == truth
    signs = right.astype(np.float64) - theirs_right
    if metric == "macro_f1":
        return _resampled(truth, ours, theirs, metric, together, seed)
    if metric == "accuracy" and together is None:
        gains, losses = int((signs > 0).sum()), int((signs < 0).sum())
        return (gains - losses) / rows, lambda level: tango(gains, losses, rows, level)
    # one stratum for accuracy; for balanced accuracy each class is one, and all weigh alike
    strata = truth if metric == "balanced_accuracy" else np.zeros(rows, dtype=np.int64)
    weights, residuals = _stratified(signs, strata, together)
    return float(weights @ signs), lambda level: effective_tango(signs, weights, residuals, together, level)


def _stratified(signs: Floats, strata: IntArray, groups: IntArray | None) -> tuple[Floats, Floats]:
    """Weights that make all strata weigh alike, and each row's part of the error of the weighted mean."""
    counts = np.bincount(strata)
    weights = 1 / counts[strata] / (counts > 0).sum()
    means = np.bincount(strata, weights=signs) / np.maximum(counts, 1)
    observed = counts
    if groups is not None:
        observed = np.bincount(np.unique(np.stack([strata, groups]), axis=1)[0], minlength=len(counts))
    # a mean taken from m observations lies too near them by (m - 1) / m
    near = np.sqrt(observed / np.maximum(observed - 1, 1))
    return weights, weights * (signs - means[strata]) * near[strata]


def _resampled(
    truth: IntArray, ours: Floats, theirs: Floats, metric: Metric, groups: IntArray | None, seed: int
) -> tuple[float, IntervalAt]:
    classes = np.arange(ours.shape[1])
    actual, mine, other = ((each[:, None] == classes) for each in (truth, ours.argmax(1), theirs.argmax(1)))
    columns = np.hstack([actual, mine, actual & mine, other, actual & other]).astype(np.float64)

    def difference(sums: Floats) -> Floats:
        a, p, h, tp, th = np.split(sums, 5, axis=-1)
        return from_counts(metric, a, p, h) - from_counts(metric, a, tp, th)

    replicates = difference(resampled_sums(columns, groups, seed))
    observations = len(truth) if groups is None else int(groups.max()) + 1
    return float(difference(columns.sum(0))), lambda level: percentile(replicates, observations, level)


def _over_folds(differences: Floats, train_rows: float, test_rows: float) -> tuple[float, IntervalAt]:
    """The mean difference and its corrected interval, never narrower than the rows allow.

    A few small folds may agree by luck; the interval therefore holds Tango's for all rows, taken once,
    with every differing row going the same way.
    """
    mean, rows = float(differences.mean()), train_rows + test_rows

    def interval(level: float) -> Interval:
        folds = corrected_t(differences, train_rows, test_rows, level)
        least = tango(max(mean, 0.0) * rows, max(-mean, 0.0) * rows, rows, level)
        return Interval(min(folds.low, least.low), max(folds.high, least.high))

    return mean, interval


def _rule(
    measured: Mapping[str, tuple[float, IntervalAt]],
    metric: Metric,
    about: About,
    level: float,
    margin: float,
    rows: int,
    caution: str | None,
) -> Verdict:
    comparisons = tuple(
        Comparison(name, difference, *interval(level)) for name, (difference, interval) in measured.items()
    )
    shared = 1 - (1 - level) / len(measured)
    worst = min(comparisons, key=lambda each: measured[each.baseline][1](shared).high)
    strongest = min(comparisons, key=lambda each: (each.low, each.difference))
    outcome: Literal["helped", "hurt", "undecided"] = "undecided"
    if measured[worst.baseline][1](shared).high < -margin:
        outcome, strongest = "hurt", worst
    elif strongest.low > margin:
        outcome = "helped"
    return Verdict(outcome, metric, about, comparisons, strongest, level, margin, rows, caution)


def _require_baseline(baselines: Mapping[str, Floats]) -> None:
    if not baselines:
        raise RequestError("a verdict needs at least one model without transfer; try: --baselines all")
