"""Scores of a model's answers on rows it never saw, each with an interval.

Everything is closed form and vectorised (variances from each row's influence on the score, summed
within groups), but the calibration error, whose interval comes from a parametric bootstrap.
"""

import numpy as np
from numpy.typing import NDArray

from graftwork.errors import RequestError
from graftwork.intervals import (
    Floats,
    Interval,
    effective_wilson,
    grouping,
    percentile,
    quantile,
    share_interval,
    variance_of_sum,
)
from graftwork.records import Assessment, CalibrationBin, ClassScores, Metric, Score
from graftwork.rows import IntArray

UNBALANCED = 3.0
"""The largest class against the mean of the others, from which accuracy flatters a constant answer."""
BINS = 10


def declare_metric(codes: IntArray) -> Metric:
    """The one metric that a verdict will be about, from the training labels alone.

    codes: (rows,) label codes; negative ones (unlabelled) are ignored. "balanced_accuracy" where the
    largest class has at least three times as many rows as the other classes have on average (two
    classes: 75 to 25); else "accuracy".
    """
    counts = np.bincount(codes[codes >= 0])
    counts = counts[counts > 0]
    if len(counts) < 2:
        return "accuracy"
    others = (counts.sum() - counts.max()) / (len(counts) - 1)
    return "balanced_accuracy" if counts.max() >= UNBALANCED * others else "accuracy"


def measure(metric: Metric, truth: IntArray, probabilities: Floats) -> float:
    """One metric of answers (rows, classes) on rows whose labels are `truth` (rows,)."""
    check(truth, probabilities)
    return float(from_counts(metric, *_counts(truth, probabilities.argmax(1), probabilities.shape[1])))


def _counts(truth: IntArray, answers: IntArray, classes: int) -> tuple[Floats, Floats, Floats]:
    """Rows by class (classes,): of the truth, of the answers, of both at once."""
    actual = np.bincount(truth, minlength=classes).astype(np.float64)
    predicted = np.bincount(answers, minlength=classes).astype(np.float64)
    return actual, predicted, np.bincount(truth[truth == answers], minlength=classes).astype(np.float64)


def from_counts(metric: Metric, actual: Floats, predicted: Floats, hits: Floats) -> Floats:
    """The metric from rows by class of the truth, the answers and both: (..., classes) -> (...).

    Means over classes are over the classes that occur in the truth.
    """
    if metric == "accuracy":
        return np.asarray(hits.sum(-1) / actual.sum(-1))
    below = actual if metric == "balanced_accuracy" else (actual + predicted) / 2
    present = actual > 0
    by_class = np.divide(hits, below, out=np.zeros_like(hits), where=present)
    return np.asarray(by_class.sum(-1) / present.sum(-1))


def assess(
    truth: IntArray,
    probabilities: Floats,
    labels: tuple[str, ...],
    *,
    groups: IntArray | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Assessment:
    """All that is said of one model's answers on rows it never saw.

    truth: (rows,) codes into `labels`. probabilities: (rows, classes), rows summing to 1. groups:
    (rows,) ids; rows of one id count as one observation in every interval. seed: of the bootstrap.

    Scores: accuracy, balanced_accuracy, macro_f1, log_loss (nats), calibration_error and, where two
    classes occur, auroc (one against the rest, mean over classes). Means over classes are over those
    that occur in `truth`. A class without rows has recall 0 over 0 rows with the interval 0 to 1, and
    so has the precision of a class that is never answered.

    Raises RequestError for probabilities that are not finite or not distributions, for codes outside
    `labels`, and for no rows.
    """
    check(truth, probabilities, labels)
    together = grouping(groups)
    scores = _class_means(truth, probabilities, together, level)
    scores["log_loss"] = _log_loss(truth, probabilities, together, level)
    bins = calibration_bins(truth, probabilities)
    scores["calibration_error"] = _calibration(truth, probabilities, together, level, seed)
    if len(np.unique(truth)) > 1:
        scores["auroc"] = _auroc(truth, probabilities, together, level)
    answers = probabilities.argmax(1)
    size = len(labels)
    confusion = np.bincount(truth * size + answers, minlength=size * size).reshape(size, size)
    return Assessment(
        scores=scores,
        classes=_by_class(truth, answers, labels, together, level),
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
        calibration=bins,
    )


def check(truth: IntArray, probabilities: Floats, labels: tuple[str, ...] | None = None) -> None:
    """Raise RequestError unless every row has a label and a distribution over the classes."""
    rows = len(truth)
    if not rows:
        raise RequestError("there are no labelled rows to score; give a test part, or fewer unlabelled rows")
    classes = probabilities.shape[-1] if labels is None else len(labels)
    if probabilities.shape != (rows, classes):
        raise RequestError(
            f"probabilities of shape {probabilities.shape} for {rows} rows; expected ({rows}, {classes}): "
            "one column a label"
        )
    if not np.isfinite(probabilities).all():
        bad = int((~np.isfinite(probabilities)).any(1).sum())
        raise RequestError(
            f"{bad} of {rows} rows have no finite probabilities; leave unreadable rows out before scoring"
        )
    if probabilities.min() < 0 or abs(probabilities.sum(1) - 1).max() > 1e-3:
        raise RequestError(
            "probabilities must be at least 0 and sum to 1 a row; apply softmax to logits first"
        )
    if truth.min() < 0 or truth.max() >= classes:
        raise RequestError(
            f"label codes from {truth.min()} to {truth.max()} for {classes} labels; "
            "leave unlabelled rows and unknown labels out before scoring"
        )


def calibration_bins(truth: IntArray, probabilities: Floats) -> tuple[CalibrationBin, ...]:
    """Ten bins of equal mass by the answer's probability; equal probabilities share a bin."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == truth
    index = _bin_of(confidence)
    return tuple(
        CalibrationBin(float(confidence[index == b].mean()), float(right[index == b].mean()), int(n))
        for b, n in enumerate(np.bincount(index))
    )


def _bin_of(confidence: Floats) -> IntArray:
    """(rows,) the bin of each row, numbered without gaps in the order of confidence."""
    # inverted_cdf: edges are confidences that occur, so that equal ones never part
    edges = np.quantile(confidence, np.arange(1, BINS) / BINS, method="inverted_cdf")
    return np.unique(np.searchsorted(edges, confidence), return_inverse=True)[1].astype(np.int64)


def _class_means(
    truth: IntArray, probabilities: Floats, groups: IntArray | None, level: float
) -> dict[str, Score]:
    """Accuracy, balanced accuracy and macro-F1."""
    rows = len(truth)
    answers = probabilities.argmax(1)
    right = answers == truth
    actual, predicted, hits = _counts(truth, answers, probabilities.shape[1])
    present = actual > 0
    count = present.sum()
    inverse = np.divide(1.0, actual, out=np.zeros_like(actual), where=present)
    recall = hits * inverse
    balanced = float(recall.sum() / count)
    f1 = np.where(present, 2 * hits / np.maximum(actual + predicted, 1), 0.0)
    macro = float(f1.sum() / count)
    # d F1 = (2 d hits - F1 (d actual + d predicted)) / (actual + predicted)
    below = np.maximum(actual + predicted, 1)
    influence_f1 = (2 * right - f1[truth]) / below[truth] - f1[answers] / below[answers]
    # a mean of class shares is as sure as this many rows would be in equally large classes
    alike = float(count**2 / inverse.sum())
    intervals = {
        "accuracy": (float(right.mean()), share_interval(right, groups, level)),
        "balanced_accuracy": (
            balanced,
            effective_wilson(
                balanced, (right - recall[truth]) * inverse[truth] / count, groups, alike, level
            ),
        ),
        "macro_f1": (macro, effective_wilson(macro, influence_f1 / count, groups, rows, level)),
    }
    return {name: Score(name, value, *ends, rows, level) for name, (value, ends) in intervals.items()}


def _log_loss(truth: IntArray, probabilities: Floats, groups: IntArray | None, level: float) -> Score:
    rows = len(truth)
    # clipped as everywhere: one answer of exactly 0 must not make the mean infinite
    smallest = np.finfo(np.float64).eps
    loss = -np.log(np.maximum(probabilities[np.arange(rows), truth], smallest))
    value, most = float(loss.mean()), -float(np.log(smallest))
    variance, degrees = variance_of_sum((loss - value) / rows, groups)
    degrees = min(degrees, rows - 1)
    if degrees <= 0 or value <= 0:
        return Score("log_loss", value, 0.0, most, rows, level)
    relative = quantile(level, degrees) * float(np.sqrt(variance)) / value
    # losses are skewed: the upper end is taken on the logarithmic scale, where it lies further off
    high = min(most, value * float(np.exp(min(relative, 700.0))))
    return Score("log_loss", value, max(0.0, value - relative * value), max(value, high), rows, level)


def _auroc(truth: IntArray, probabilities: Floats, groups: IntArray | None, level: float) -> Score:
    """One against the rest, mean over the classes of the truth; variance from DeLong's components."""
    from scipy.stats import rankdata

    rows, present = len(truth), np.unique(truth)
    areas, contributions, sure = [], np.zeros(rows), 0.0
    for code in present:
        mine = truth == code
        scores = probabilities[:, code]
        positive, negative = int(mine.sum()), int(rows - mine.sum())
        ranks = rankdata(scores)
        # the share of the other side that each row is ranked rightly against
        beats = np.where(mine, 0.0, 1.0)
        beats[mine] = (ranks[mine] - rankdata(scores[mine])) / negative
        beats[~mine] -= (ranks[~mine] - rankdata(scores[~mine])) / positive
        area = float(beats[mine].mean())
        areas.append(area)
        # DeLong's components, each side's variance unbiased: m (m - 1), not m^2
        sides = np.where(mine, _unbiased(positive), _unbiased(negative))
        contributions += (beats - area) / sides / len(present)
        sure += min(positive, negative)
    value = float(np.mean(areas))
    # perfect order shows no variance: as if each row of a smaller side were one trial
    at_most = min(float(rows), sure) if not contributions.any() else np.inf
    degrees = max(1.0, sure / len(present) - 1)
    low, high = effective_wilson(value, contributions, groups, at_most, level, degrees)
    return Score("auroc", value, low, high, rows, level)


def _unbiased(rows: int) -> float:
    return float(np.sqrt(rows * max(rows - 1, 1)))


def _calibration(
    truth: IntArray, probabilities: Floats, groups: IntArray | None, level: float, seed: int
) -> Score:
    """Debiased root-mean-square gap between stated and true confidence (Kumar, Liang and Ma 2019).

    sum over bins of n_b / n ((conf - acc)^2 - acc (1 - acc) / (n_b - 1)), its root where positive; the
    subtracted noise of each bin is scaled by its design effect where rows are grouped. The interval
    comes from a parametric bootstrap: gaps drawn from the normal distribution of the bins' gaps.
    """
    bins = calibration_bins(truth, probabilities)
    mass = np.array([each.rows for each in bins]) / len(truth)
    share = np.array([each.accuracy for each in bins])
    gap = np.array([each.confidence for each in bins]) - share
    alone = share * (1 - share) / np.maximum(mass * len(truth) - 1, 1)
    covariance, design = _gap_covariance(truth, probabilities, gap, groups)
    noise = alone * design
    value = float(np.sqrt(max(0.0, mass @ (gap**2 - noise))))
    # a replicate carries the noise twice, the sample's and its own: both are taken off
    drawn = np.random.default_rng(seed).multivariate_normal(gap, covariance, size=2000, method="eigh")
    squares = (drawn**2 - noise - covariance.diagonal()) @ mass
    observations = len(truth) if groups is None else int(groups.max()) + 1
    low, high = percentile(np.sqrt(np.maximum(0.0, squares)), observations, level)
    low, high = (0.0, 1.0) if observations < 2 else (min(low, value), max(high, value))
    return Score("calibration_error", value, low, high, len(truth), level)


def _gap_covariance(
    truth: IntArray, probabilities: Floats, gap: Floats, groups: IntArray | None
) -> tuple[Floats, Floats]:
    """Covariance of the bins' gaps, and how many times grouping enlarges each one's variance."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == truth
    index = _bin_of(confidence)
    residuals = (confidence - right - gap[index]) / np.bincount(index)[index]
    alone = np.bincount(index, weights=residuals**2)
    if groups is None:
        return np.diag(alone), np.ones(len(gap))
    totals = np.zeros((groups.max() + 1, len(gap)))
    np.add.at(totals, (groups, index), residuals)
    covariance = totals.T @ totals
    design = np.divide(covariance.diagonal(), alone, out=np.ones(len(gap)), where=alone > 0)
    return covariance, design


def _by_class(
    truth: IntArray, answers: NDArray[np.intp], labels: tuple[str, ...], groups: IntArray | None, level: float
) -> tuple[ClassScores, ...]:
    right = truth == answers

    def share(name: str, rows: NDArray[np.bool_]) -> Score:
        hits = right[rows]
        value = float(hits.mean()) if len(hits) else 0.0
        ends: Interval = share_interval(hits, None if groups is None else groups[rows], level)
        return Score(name, value, *ends, len(hits), level)

    found = []
    for code, label in enumerate(labels):
        recall, precision = share("recall", truth == code), share("precision", answers == code)
        total = recall.rows + precision.rows
        hits = int((right & (truth == code)).sum())
        found.append(ClassScores(label, recall.rows, precision, recall, 2 * hits / total if total else 0.0))
    return tuple(found)
