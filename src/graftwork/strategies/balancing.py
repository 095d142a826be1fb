"""Which way to make up for classes of unequal size, judged by linear heads on held rows."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.errors import RequestError
from graftwork.evaluation import from_counts
from graftwork.folds import folds
from graftwork.heads import temperature
from graftwork.logistic import Design, design, linear, logistic
from graftwork.records import Metric
from graftwork.rows import IntArray
from graftwork.spectrum import Float64, factorise
from graftwork.strategies.base import Task
from graftwork.strategies.probe import LOOSE
from graftwork.training.balance import balanced, log_shares

UNEQUAL = 1.5
"""Times that the largest class has the smallest one's rows, from which something is worth trying."""
MOST_ROWS = 4_000
"""So many rows tell the methods apart; the heads of more would take longer than seconds."""
STRENGTHS = (1.0, 0.1, 0.01)
"""Of logistic regression, in the probe's units; the order of magnitude is enough to compare methods."""
SURE = 1.64
"""Standard errors that a gain must exceed: one in twenty does by chance."""
FOLDS, DRAWS = 3, 400
Answers = Mapping[str, IntArray]


def chosen(features: NDArray[np.float32], task: Task, held: NDArray[np.bool_]) -> tuple[str, dict[str, Any]]:
    """The method (see `training.balance`) that suits the task, and the record of why, in plain JSON.

    features: (rows, width) of all of the task's rows. Linear heads learn from the rows that are not
    held and answer those that are; where none are held, folds take turns. A method other than "none"
    is taken only where the declared metric gains more than it would by chance.
    "sampling" is not asked: for a linear head it has the same optimum as "weights".
    """
    sizes = np.bincount(task.codes[~held], minlength=len(task.labels))
    present = sizes[sizes > 0]
    ratio = float(present.max() / present.min()) if len(present) else 1.0
    record: dict[str, Any] = {"method": "none", "largest_to_smallest": round(ratio, 2)}
    if ratio < UNEQUAL:
        return "none", {**record, "reason": "the classes are about equally large"}
    truth, answers = _asked(features, task, held)
    if not len(truth):
        return "none", {**record, "reason": "too few rows to hold some out and judge by"}
    record |= {"metric": task.metric, "rows": len(truth), "scores": {}, "errors": {}}
    best, highest = "none", 0.0
    for method, given in answers.items():
        score, gain, error = _compared(task, truth, given, answers["none"])
        record["scores"][method], record["errors"][method] = round(score, 4), round(error, 4)
        if gain > max(SURE * error, highest):
            best, highest = method, gain
    reason = (
        f"gains {100 * highest:.1f} points of {task.metric.replace('_', ' ')} on {len(truth)} rows "
        "that the heads did not learn from"
        if best != "none"
        else "nothing gains more than chance would"
    )
    return best, {**record, "method": best, "reason": reason}


def _asked(
    features: NDArray[np.float32], task: Task, held: NDArray[np.bool_]
) -> tuple[IntArray, dict[str, IntArray]]:
    """True codes of the rows that were asked, and each method's answers."""
    rng = np.random.default_rng(task.seed)
    kept = np.arange(len(task.codes))
    if len(kept) > MOST_ROWS:
        kept = np.sort(rng.choice(kept, MOST_ROWS, replace=False))
    if held[kept].any():
        parts = [(kept[~held[kept]], kept[held[kept]])]
    else:
        try:
            found = folds(task.codes[kept], task.groups[kept], FOLDS, task.seed)
        except RequestError:
            found = []
        parts = [(kept[learnt], kept[asked]) for learnt, asked in found]
    answers: dict[str, list[IntArray]] = {"none": [], "logits": [], "weights": []}
    for learnt, asked in parts:
        for method, given in _answers(features, task, learnt, asked).items():
            answers[method].append(given)
    joined = {method: np.concatenate(given) for method, given in answers.items() if given}
    return (np.concatenate([task.codes[asked] for _, asked in parts]) if parts else kept[:0]), joined


def _answers(
    features: NDArray[np.float32], task: Task, learnt: IntArray, asked: IntArray
) -> dict[str, IntArray]:
    """Each method's answers to the rows at `asked`; the plain heads' log-loss there settles the strength."""
    part, classes = task.part(learnt), len(task.labels)
    spectrum = factorise(features[learnt], part.weights)
    plain = design(spectrum)
    given = balanced("weights", part.codes, classes, part.weights, np.zeros(len(learnt), bool)).weights
    # the same coordinates suit any weights of the same sum
    weighted = replace(plain, spectrum=replace(spectrum, weights=given))
    everything = np.ones((len(learnt), 1), dtype=bool)

    def heads(rows: Design, strength: float) -> Float64:
        found = logistic(rows, part.codes, classes, strength, everything, tolerance=LOOSE)
        weights, bias = linear(spectrum, found[0])
        return np.asarray(features[asked] @ weights + bias)

    path = [float(one) for one in spectrum.strengths(STRENGTHS)]
    logits = [heads(plain, strength) for strength in path]
    losses = [temperature(one, task.codes[asked], task.weights[asked])[1] for one in logits]
    best = int(np.argmin(losses))
    shares = log_shares(np.bincount(part.codes, part.weights, classes).astype(np.float64))
    return {
        "none": logits[best].argmax(1),
        # with a free intercept, learning with offsets is the same as taking them off afterwards
        "logits": (logits[best] - shares).argmax(1),
        "weights": heads(weighted, path[best]).argmax(1),
    }


def _compared(task: Task, truth: IntArray, given: IntArray, plain: IntArray) -> tuple[float, float, float]:
    """The metric of these answers, its gain over the plain ones, and the standard error of that gain."""
    classes, rows = len(task.labels), len(truth)
    counts = np.random.default_rng(task.seed).multinomial(rows, np.full(rows, 1 / rows), DRAWS)
    once = np.ones((1, rows))
    score = _scores(task.metric, truth, given, classes, once)[0]
    gain = score - _scores(task.metric, truth, plain, classes, once)[0]
    drawn = _scores(task.metric, truth, given, classes, counts) - _scores(
        task.metric, truth, plain, classes, counts
    )
    return float(score), float(gain), float(drawn.std(ddof=1))


def _scores(
    metric: Metric, truth: IntArray, given: IntArray, classes: int, counts: NDArray[Any]
) -> NDArray[np.floating]:
    """(draws,) the metric with each row counted as often as `counts` (draws, rows) says."""
    told = np.eye(classes)
    actual, predicted = counts @ told[truth], counts @ told[given]
    return from_counts(metric, actual, predicted, counts @ (told[truth] * (truth == given)[:, None]))
