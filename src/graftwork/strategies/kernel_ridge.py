"""Hand-made features under kernel ridge regression, every setting chosen by cross-validation.

Kernel ridge needs one factorisation for all its held-out answers: with G = (K + strength / w)^-1 and
a = G Y, leaving out the rows h gives the errors G_hh^-1 a_h. It is level with a support vector
machine on the same kernel, and its answers vary smoothly with every setting.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, lapack

from graftwork.backbones.base import Backbone, labelled_matrix
from graftwork.folds import Fold
from graftwork.kernel_head import Float64, KernelHead, gaussian, scaled
from graftwork.model import Model
from graftwork.records import Notify, Progress
from graftwork.rows import IntArray
from graftwork.strategies.base import Task
from graftwork.strategies.classical import Judged, best, inner_folds, judge, tuning_rows

_FEW = 1_000
"""Rows on which the mixture is chosen: it shows early, and time grows with the cube of the rows."""
_KEPT = 2_500
"""Rows whose similarity the model looks at; with more rows all still shape the coefficients."""
_HEAT = 0.1
"""The usual temperature, for tasks on which none can be measured."""


@dataclass(frozen=True)
class Recipe:
    """What is tried on one kind of features.

    model: how the settings of a model name it. blocks: which columns hold what. mixtures: by name, the
    share of each block in the distance between two rows; the search starts from the one named "all".
    narrownesses: of the kernel, 1 for the typical distance. strengths: of the ridge.
    """

    model: str
    blocks: Mapping[str, slice]
    mixtures: Mapping[str, Mapping[str, float]]
    narrownesses: tuple[float, ...] = (0.5, 1.0, 2.0)
    strengths: tuple[float, ...] = (0.03, 0.1, 0.3)


def fit_features(task: Task, basis: Backbone, recipe: Recipe, notify: Notify) -> Model:
    """A tuned kernel machine over the features that `basis` gives; raises Unreadable."""
    features = labelled_matrix(basis, task.rows, notify)
    rows = tuning_rows(task.codes, _KEPT, task.seed)
    kept = features[rows]
    search = _Search(task, features, recipe, {n: _typical(kept[:, b]) for n, b in recipe.blocks.items()})
    chosen = search.best(rows, notify)
    columns = search.columns(chosen.settings)
    landmarks = scaled(kept, columns)
    coefficients = solve(task, features, columns, landmarks, rows, chosen.settings["strength"])
    arrays: dict[str, NDArray[Any]] = {
        "columns": columns,
        "landmarks": landmarks,
        "coefficients": np.ascontiguousarray(coefficients),
    }
    head = KernelHead(task.labels, {"temperature": chosen.temperature}, arrays)
    settings = {"model": recipe.model, "kept_rows": len(rows)} | chosen.record(task.metric)
    return Model(basis, head, settings=settings)


def _typical(block: NDArray[np.float32]) -> float:
    """Mean squared distance between two rows: twice the total variance."""
    return max(2 * float(block.var(axis=0, dtype=np.float64).sum()), 1e-12)


@dataclass(frozen=True)
class _Search:
    """typical: of each block, the squared distance to be expected between two rows."""

    task: Task
    features: NDArray[np.float32]
    recipe: Recipe
    typical: Mapping[str, float]

    def columns(self, settings: Mapping[str, Any]) -> NDArray[np.float32]:
        """Scale of each feature: the mixture's share of each block, narrowed, per typical distance."""
        columns = np.zeros(self.features.shape[1], dtype=np.float32)
        for name, share in self.recipe.mixtures[settings["features"]].items():
            scale = settings["narrowness"] * share / self.typical[name]
            columns[self.recipe.blocks[name]] = np.sqrt(scale)
        return columns

    def best(self, rows: IntArray, notify: Notify) -> Judged:
        """The mixture on a thousand rows; on all that are kept the width, then the strength."""
        few = rows[tuning_rows(self.task.codes[rows], _FEW, self.task.seed)]
        chosen = Judged({"features": "all", "narrowness": 1.0, "strength": 0.1}, _HEAT)
        for name, values, among in (
            ("features", list(self.recipe.mixtures), few),
            ("narrowness", self.recipe.narrownesses, rows),
            ("strength", self.recipe.strengths, rows),
        ):
            splits = inner_folds(self.task, among)
            if splits:
                tried = []
                for value in values:
                    tried.append(self._judged({**chosen.settings, name: value}, among, splits))
                    notify(Progress("classical", len(tried), len(values), unit="trials"))
                chosen = best(tried)
        return chosen

    def _judged(self, settings: Mapping[str, Any], rows: IntArray, splits: Sequence[Fold]) -> Judged:
        placed = scaled(self.features[rows], self.columns(settings))
        return judge(self.task, settings, held_out(self.task, placed, rows, settings["strength"], splits))


def _targets(task: Task, rows: IntArray | slice) -> Float64:
    """One column a class, 1 where it is the row's label, less 1 / classes: no knowledge gives zeros."""
    classes = len(task.labels)
    return np.asarray(np.eye(classes)[task.codes[rows]] - 1 / classes)


def held_out(
    task: Task, placed: NDArray[np.float32], rows: IntArray, strength: float, splits: Sequence[Fold]
) -> Float64:
    """Answers (all rows, classes): each fold's by the model without it; NaN where never held out.

    placed: (rows, width) the scaled features of the rows at `rows`; splits hold positions among them.
    """
    ridged = gaussian(placed, placed)
    ridged[np.diag_indices(len(rows))] += strength / task.weights[rows]
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


def solve(
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
