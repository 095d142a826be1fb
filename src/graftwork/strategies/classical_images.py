"""Pictures without pretrained weights: hand-made descriptors under kernel ridge regression.

Kernel ridge needs one factorisation for all its held-out answers: with G = (K + strength / w)^-1 and
a = G Y, leaving out the rows h gives the errors G_hh^-1 a_h. It is level with a support vector
machine on the same kernel, and its answers vary smoothly with every setting.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, lapack

from graftwork.backbones.base import Backbone, labelled_matrix
from graftwork.backbones.descriptor import BLOCKS
from graftwork.folds import Fold
from graftwork.kernel_head import Float64, KernelHead, gaussian, scaled
from graftwork.model import Model
from graftwork.records import Notify, Progress
from graftwork.rows import IntArray
from graftwork.strategies.base import Task
from graftwork.strategies.classical import Judged, best, inner_folds, judge, tuning_rows

_MIXTURES: Mapping[str, Mapping[str, float]] = {
    "gradients": {"gradients": 0.5, "outlines": 0.5},
    "pixels": {"pixels": 1.0},
    "gradients and pixels": {"gradients": 0.4, "outlines": 0.4, "pixels": 0.2},
    "gradients and colours": {"gradients": 0.4, "outlines": 0.4, "colours": 0.2},
    "all": {"gradients": 0.3, "outlines": 0.3, "colours": 0.2, "pixels": 0.2},
}
_NARROWNESSES = (0.5, 1.0, 2.0)
_STRENGTHS = (0.03, 0.1, 0.3)
_FEW = 1_000
"""Rows on which the mixture is chosen: it shows early, and time grows with the cube of the rows."""
_KEPT = 2_500
"""Rows whose similarity the model looks at; with more rows all still shape the coefficients."""
_HEAT = 0.1
"""The usual temperature, for tasks on which none can be measured."""


def fit_images(task: Task, basis: Backbone, notify: Notify) -> Model:
    """A tuned kernel machine over the descriptors that `basis` gives."""
    features = labelled_matrix(basis, task.rows, notify)
    rows = tuning_rows(task.codes, _KEPT, task.seed)
    kept = features[rows]
    typical = {name: _typical(kept[:, block]) for name, block in BLOCKS.items()}
    chosen = _choose(task, features, rows, typical, notify)
    columns = _columns(typical, chosen.settings)
    landmarks = scaled(kept, columns)
    coefficients = _solve(task, features, columns, landmarks, rows, chosen.settings["strength"])
    arrays: dict[str, NDArray[Any]] = {
        "columns": columns,
        "landmarks": landmarks,
        "coefficients": coefficients,
    }
    head = KernelHead(task.labels, {"temperature": chosen.temperature}, arrays)
    settings = {"model": "descriptors + kernel ridge", "kept_rows": len(rows)} | chosen.record(task.metric)
    return Model(basis, head, settings=settings)


def _typical(block: NDArray[np.float32]) -> float:
    """Mean squared distance between two rows: twice the total variance."""
    return max(2 * float(block.var(axis=0, dtype=np.float64).sum()), 1e-12)


def _columns(typical: Mapping[str, float], settings: Mapping[str, Any]) -> NDArray[np.float32]:
    """Scale of each feature: the mixture's share of each block, narrowed, per typical distance."""
    columns = np.zeros(max(block.stop for block in BLOCKS.values()), dtype=np.float32)
    for name, share in _MIXTURES[settings["features"]].items():
        columns[BLOCKS[name]] = np.sqrt(settings["narrowness"] * share / typical[name])
    return columns


def _choose(
    task: Task, features: NDArray[np.float32], rows: IntArray, typical: Mapping[str, float], notify: Notify
) -> Judged:
    """The mixture of descriptors on a thousand rows; on all that are kept the width, then the strength."""
    few = rows[tuning_rows(task.codes[rows], _FEW, task.seed)]
    start = {"features": "all", "narrowness": 1.0, "strength": 0.1}
    chosen = Judged(start, _HEAT)
    for name, values, among in (
        ("features", list(_MIXTURES), few),
        ("narrowness", _NARROWNESSES, rows),
        ("strength", _STRENGTHS, rows),
    ):
        splits = inner_folds(task, among)
        if splits:
            tried = []
            for value in values:
                settings = {**chosen.settings, name: value}
                tried.append(
                    judge(task, settings, _held_out(task, features, among, typical, settings, splits))
                )
                notify(Progress("classical", len(tried), len(values), unit="trials"))
            chosen = best(tried)
    return chosen


def _targets(task: Task, rows: IntArray | slice) -> Float64:
    """One column a class, 1 where it is the row's label, less 1 / classes: no knowledge gives zeros."""
    classes = len(task.labels)
    return np.asarray(np.eye(classes)[task.codes[rows]] - 1 / classes)


def _held_out(
    task: Task,
    features: NDArray[np.float32],
    rows: IntArray,
    typical: Mapping[str, float],
    settings: Mapping[str, Any],
    splits: Sequence[Fold],
) -> Float64:
    """Answers (all rows, classes): each fold's by the model without it; NaN where never held out."""
    placed = scaled(features[rows], _columns(typical, settings))
    ridged = gaussian(placed, placed)
    ridged[np.diag_indices(len(rows))] += settings["strength"] / task.weights[rows]
    factor, info = lapack.dpotrf(ridged, lower=1, overwrite_a=1)
    assert info == 0, "a Gaussian kernel with a ridge is positive definite"
    inverse, _ = lapack.dpotri(factor, lower=1, overwrite_c=1)
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    targets = _targets(task, rows)
    coefficients = inverse @ targets
    answers = np.full((len(task.codes), len(task.labels)), np.nan)
    for _, held in splits:
        block = inverse[np.ix_(held, held)]
        answers[rows[held]] = targets[held] - np.linalg.solve(block, coefficients[held])
    return answers


def _solve(
    task: Task,
    features: NDArray[np.float32],
    columns: NDArray[np.float32],
    landmarks: NDArray[np.float32],
    rows: IntArray,
    strength: float,
) -> Float64:
    """Coefficients (kept rows, classes): exact where every row is kept, else least squares over all rows.

    Over all rows it is the subset-of-regressors solution (K_mn W K_nm + strength K_mm)^-1 K_mn W Y.
    """
    among = gaussian(landmarks, landmarks)
    if len(rows) == len(features):
        among[np.diag_indices(len(rows))] += strength / task.weights
        return np.asarray(cho_solve(cho_factor(among, lower=True), _targets(task, rows)))
    square, right = strength * among, np.zeros((len(rows), len(task.labels)))
    for start in range(0, len(features), 1024):
        part = slice(start, start + 1024)
        similar = gaussian(scaled(features[part], columns), landmarks)
        weighted = similar.T * task.weights[part]
        square += weighted @ similar
        right += weighted @ _targets(task, part)
    square[np.diag_indices(len(rows))] += 1e-9 * np.trace(square) / len(rows)
    return np.asarray(cho_solve(cho_factor(square, lower=True), right))
