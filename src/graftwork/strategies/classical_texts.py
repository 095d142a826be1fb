"""Texts without pretrained weights: n-grams, weighted, under a linear support vector machine."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from graftwork.backbones.tfidf import Tfidf, View, Weighting, counts, read_texts, side_by_side
from graftwork.folds import Fold
from graftwork.heads import LinearHead
from graftwork.model import Model
from graftwork.records import Notify, Progress
from graftwork.rows import IntArray
from graftwork.strategies.base import Task
from graftwork.strategies.classical import Judged, best, inner_folds, judge, tuning_rows

_VIEWS: tuple[tuple[View, ...], ...] = (("words",), ("words", "characters"))
_PENALTIES = (0.3, 1.0, 3.0)
_MOST_SIGNS_IN_RUNS = 4_000_000
"""Characters of training text up to which runs of characters are counted: they take 40 bytes each."""
_MOST_SIGNS = 40_000_000
"""Characters learnt from, which take about a gigabyte; of more text, rows are drawn at random."""
_TUNING_ROWS = 10_000
_TUNING_SIGNS = 4_000_000
"""Settings are chosen on so many rows and characters at most; the model then learns from all."""
_MOST_WEIGHTS = 1 << 24
_MANY_ROWS = 1_000
_HEAT = 0.4
"""The usual temperature, for tasks on which none can be measured."""

Counted = dict[View, sparse.csr_array]


def fit_texts(task: Task, notify: Notify) -> Model:
    """A tuned linear model over the task's own n-grams."""
    texts = read_texts(task.rows)
    signs = sum(map(len, texts))
    learnt = tuning_rows(task.codes, _within(_MOST_SIGNS, texts), task.seed)
    if len(learnt) < len(texts):
        task, texts = _part(task, learnt), [texts[i] for i in learnt]
    counted = {view: counts(texts, view) for view in _VIEWS[0 if signs > _MOST_SIGNS_IN_RUNS else -1]}
    tuned = tuning_rows(task.codes, min(_TUNING_ROWS, _within(_TUNING_SIGNS, texts)), task.seed)
    chosen = _choose(task, counted, tuned, notify)
    everything = np.arange(len(texts))
    weightings = _learn(counted, chosen.settings["views"], everything, len(task.labels))
    matrix = _matrix(counted, weightings, everything)
    weights, intercept = _separate(matrix, task, everything, chosen.settings["penalty"], tolerance=0.01)
    backbone = Tfidf(tuple(weightings), weights.astype(np.float32), intercept.astype(np.float32))
    # the backbone's columns already are one score a class: what is left to the head is the temperature
    head = LinearHead.of(
        task.labels, np.eye(len(task.labels)), np.zeros(len(task.labels)), chosen.temperature
    )
    model = {"model": "tfidf + linear support vector machine", "rows": len(texts), "n_grams": len(weights)}
    return Model(backbone, head, settings=model | chosen.record(task.metric))


def _within(signs: int, texts: Sequence[str]) -> int:
    """How many such texts hold about so many characters; at least a thousand."""
    return max(1_000, int(signs * len(texts) / max(1, sum(map(len, texts)))))


def _part(task: Task, rows: IntArray) -> Task:
    return replace(
        task,
        rows=task.rows.take(rows),
        codes=task.codes[rows],
        groups=task.groups[rows],
        validation=task.validation[rows],
        weights=task.weights[rows],
    )


def _choose(task: Task, counted: Counted, rows: IntArray, notify: Notify) -> Judged:
    """The n-grams that do best on held-out rows, then the penalty; fixed ones where none can be held out."""
    splits = [(rows[train], rows[held]) for train, held in inner_folds(task, rows)]
    if not splits:
        return Judged({"views": list(counted), "penalty": _PENALTIES[1]}, _HEAT)
    views = [list(names) for names in _VIEWS if set(names) <= set(counted)]
    chosen = Judged({"views": views[-1], "penalty": _PENALTIES[1]}, _HEAT)
    trials: tuple[tuple[str, Sequence[Any]], ...] = (("views", views), ("penalty", _PENALTIES))
    for name, values in trials:
        # what is judged already is not tried again
        tried = [chosen] if chosen.rows else []
        for value in values:
            settings = {**chosen.settings, name: value}
            if not (tried and settings == tried[0].settings):
                tried.append(judge(task, settings, _held_out(task, counted, settings, splits)))
            notify(Progress("classical", len(tried), len(values), unit="trials"))
        chosen = best(tried)
    return chosen


def _held_out(
    task: Task, counted: Counted, settings: Mapping[str, Any], splits: Sequence[Fold]
) -> NDArray[np.float64]:
    """Answers (rows, classes): each fold's by the model without it; NaN where never held out."""
    answers = np.full((len(task.codes), len(task.labels)), np.nan)
    for train, held in splits:
        weightings = _learn(counted, settings["views"], train, len(task.labels))
        seen, new = _matrix(counted, weightings, train), _matrix(counted, weightings, held)
        weights, intercept = _separate(seen, task, train, settings["penalty"], tolerance=0.1)
        answers[held] = new @ weights + intercept
    return answers


def _learn(counted: Counted, views: Sequence[View], rows: IntArray, classes: int) -> list[Weighting]:
    most = _MOST_WEIGHTS // (classes * len(views))
    # runs of characters seen once in thousands of rows only cost time and space
    least = {"words": 1, "characters": 1 if len(rows) < _MANY_ROWS else 2}
    return [Weighting.of(counted[view][rows], view, least[view], most) for view in views]


def _matrix(counted: Counted, weightings: Sequence[Weighting], rows: IntArray) -> sparse.csr_array:
    return side_by_side([weighting.weigh(counted[weighting.view][rows]) for weighting in weightings])


def _separate(
    matrix: sparse.csr_array, task: Task, rows: IntArray, penalty: float, tolerance: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One class against the others (squared hinge): weights (n-grams, classes), intercept (classes,)."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    if matrix.shape[1] == 0:  # every text is empty
        return np.zeros((0, len(task.labels))), np.zeros(len(task.labels))
    machine = LinearSVC(C=penalty, tol=tolerance, random_state=task.seed)
    with warnings.catch_warnings():
        # 1,000 passes are enough for the answers; the last digits of the weights are not needed
        warnings.simplefilter("ignore", ConvergenceWarning)
        machine.fit(matrix, task.codes[rows], sample_weight=task.weights[rows])
    # a label without a row here is the answer to nothing: "not this one", as a machine with no such row says
    weights, intercept = np.zeros((matrix.shape[1], len(task.labels))), np.full(len(task.labels), -1.0)
    columns = machine.coef_.T
    if len(machine.classes_) == 2:  # scikit-learn gives one column, for the second class
        columns = np.hstack([-columns, columns])
        intercept[machine.classes_] = np.array([-1, 1]) * machine.intercept_
    else:
        intercept[machine.classes_] = machine.intercept_
    weights[:, machine.classes_] = columns
    return weights, intercept
