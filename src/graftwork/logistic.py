"""Multinomial logistic regression with L2, all folds at once, in the coordinates of one factorisation.

Minimises sum w loss + strength / 2 |weights|^2, the intercept free, by L-BFGS. In the rotated
coordinates the curvature is nearly diagonal (values^2 p(1-p) + strength), which the change of
variables below makes nearly the identity: some twenty steps suffice where plain features take
hundreds. The folds' models are columns of one problem, so each pass over the rows serves them all.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from graftwork.rows import IntArray
from graftwork.spectrum import Float64, Spectrum, blocks

CURVATURE = 0.1
"""A usual p (1 - p); it shapes the steps, never the optimum."""
HELD_IN_MEMORY = 8_000_000
"""Rotated coordinates are kept where they have at most this many entries, else rows are read again."""
EXACT = 500_000
"""Up to so many entries are computed in float64: it costs nothing there."""


@dataclass(frozen=True)
class Design:
    """Rows as the optimiser sees them: logits = rows @ (turn @ parameters).

    rows: (N, k) rotated, or None where `spectrum.features` is read block by block (turn: (D, k)).
    """

    spectrum: Spectrum
    rows: NDArray[np.floating] | None
    turn: NDArray[np.floating] | None
    dtype: type[np.floating]

    def block(self, index: slice) -> NDArray[np.floating]:
        if self.rows is not None:
            return self.rows[index]
        return self.spectrum.features[index] - self.spectrum.mean.astype(np.float32)

    def into(self, parameters: Float64) -> NDArray[np.floating]:
        turned = parameters.astype(self.dtype)
        return turned if self.turn is None else self.turn @ turned

    def back(self, gradient: Float64) -> Float64:
        return gradient if self.turn is None else np.asarray(self.turn.T @ gradient, dtype=np.float64)


def design(spectrum: Spectrum) -> Design:
    """Rotated rows in memory where they are few, else the features themselves and the rotation."""
    size = len(spectrum.features) * spectrum.rank
    dtype: type[np.floating] = np.float64 if size <= EXACT else np.float32
    if size > HELD_IN_MEMORY:
        return Design(spectrum, None, spectrum.directions.astype(dtype), dtype)
    rows = np.empty((len(spectrum.features), spectrum.rank), dtype)
    turn = spectrum.directions.astype(dtype)
    for index in blocks(len(rows)):
        rows[index] = (spectrum.features[index] - spectrum.mean).astype(dtype) @ turn
    return Design(spectrum, rows, None, dtype)


def logistic(
    rows: Design,
    codes: IntArray,
    classes: int,
    strength: float,
    used: NDArray[np.bool_],
    start: Float64 | None = None,
    tolerance: float = 1e-4,
) -> Float64:
    """Parameters (models, k + 1, classes) in rotated coordinates, the intercept last.

    used: (N, models), the rows that each model learns from. start: parameters of a like problem,
    from a neighbouring strength. tolerance: of the gradient, relative to the weight of the rows.
    """
    models = used.shape[1]
    mass = float((rows.spectrum.weights @ used).mean())
    steps = np.append(
        1.0 / np.sqrt(CURVATURE * rows.spectrum.values**2 * mass / rows.spectrum.total + strength),
        1.0 / np.sqrt(CURVATURE * mass),
    )[:, None]
    shape = (len(steps), models * classes)

    def loss(flat: Float64) -> tuple[float, Float64]:
        parameters = steps * flat.reshape(shape)
        value, gradient = _likelihood(rows, codes, classes, parameters, used)
        value += 0.5 * strength * float((parameters[:-1] ** 2).sum())
        gradient[:-1] += strength * parameters[:-1]
        return value, (steps * gradient).ravel()

    first = np.zeros(shape) if start is None else start.transpose(1, 0, 2).reshape(shape) / steps
    options = {"maxiter": 500, "maxcor": 8, "gtol": tolerance * np.sqrt(mass), "ftol": 1e-2 * tolerance**2}
    search: Any = minimize  # its stubs do not know a function that returns its gradient too
    found = search(loss, first.ravel(), jac=True, method="L-BFGS-B", options=options).x
    return np.ascontiguousarray(
        (steps * found.reshape(shape)).reshape(-1, models, classes).transpose(1, 0, 2)
    )


def logits(rows: Design, parameters: Float64, index: slice) -> NDArray[np.floating]:
    """(n, models, classes) of a block of rows; parameters as `logistic` returns them."""
    models, width, classes = parameters.shape
    flat = parameters.transpose(1, 0, 2).reshape(width, -1)
    values = rows.block(index) @ rows.into(flat[:-1]) + flat[-1].astype(rows.dtype)
    return np.asarray(values.reshape(-1, models, classes))


def linear(spectrum: Spectrum, parameters: Float64) -> tuple[Float64, Float64]:
    """Rotated parameters (k + 1, C) -> (weights (D, C), bias (C,)) on the features themselves."""
    weights = spectrum.directions @ parameters[:-1]
    return weights, parameters[-1] - spectrum.mean @ weights


def _likelihood(
    rows: Design, codes: IntArray, classes: int, parameters: Float64, used: NDArray[np.bool_]
) -> tuple[float, Float64]:
    """Weighted negative log-likelihood summed over the models, and its gradient, a block at a time."""
    models = used.shape[1]
    turned = rows.into(parameters[:-1])
    offsets = parameters[-1].astype(rows.dtype)[:, None]
    sums = np.zeros((len(turned), models * classes))
    intercepts, value = np.zeros(models * classes), 0.0
    for index in blocks(len(codes)):
        block = rows.block(index)
        # rows last: sums over a handful of classes are slow along the fast axis
        scores = (turned.T @ block.T + offsets).reshape(models, classes, -1)
        scores -= scores.max(axis=1, keepdims=True)
        place = codes[index], np.arange(scores.shape[2])
        truth = scores[:, *place]
        np.exp(scores, out=scores)
        mass = scores.sum(axis=1)
        weights = (used[index] * rows.spectrum.weights[index, None]).T.astype(rows.dtype)
        value += float(np.sum(weights * (np.log(mass) - truth), dtype=np.float64))
        scores *= (weights / mass)[:, None]
        scores[:, *place] -= weights
        flat = scores.reshape(models * classes, -1)
        sums += (flat @ block).T
        intercepts += flat.sum(axis=1, dtype=np.float64)
    return value, np.vstack([rows.back(sums), intercepts])


def grouped_folds(codes: IntArray, groups: IntArray, count: int, seed: int) -> IntArray:
    """(N,) fold of each row: groups stay whole, every class is dealt evenly over the folds.

    Groups are dealt like cards: ordered by class, larger ones first, else by chance. A class with
    two groups or more lies in two folds or more.
    """
    rng = np.random.default_rng(seed)
    _, first, inverse, sizes = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    order = np.lexsort((rng.permutation(len(sizes)), -sizes, codes[first]))
    dealt = np.empty(len(sizes), dtype=np.int64)
    dealt[order] = np.arange(len(sizes)) % count
    return dealt[inverse]
