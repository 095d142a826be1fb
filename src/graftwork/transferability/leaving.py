"""Exact answers of ridge and of the Gaussian discriminant without a row's group, for many labellings."""

import numpy as np
from numpy.typing import NDArray

from graftwork.rows import IntArray
from graftwork.spectrum import Float64, blocks, gaussian_map

Floats = NDArray[np.floating]
FLATTEST = 0.05
"""The lowest sharpness tried, in units of that which gives logits of unit size. Not zero, so that
labellings that the answers contradict differ in loss: a null of ties says nothing."""
STEPS = 15


class Leaving:
    """The rows' coordinates and groups; `answers` leaves each group out in turn.

    basis (N, k + 1): rows of U, the intercept last; groups (N,): 0..G-1; counts (C,) rows a class.
    """

    def __init__(self, basis: Floats, groups: IntArray, counts: Float64) -> None:
        self.basis, self.groups, self.counts = basis, groups, counts
        order = np.argsort(groups, kind="stable")
        sizes = np.bincount(groups)
        starts = np.cumsum(sizes) - sizes
        # groups of equal size together: (groups, size) row numbers. Rows alone need none of it, and
        # without a group of all rows nothing would be left to learn from
        self.clumps = [
            order[starts[sizes == size][:, None] + np.arange(size)]
            for size in np.unique(sizes)
            if 1 < size < len(groups)
        ]

    def answers(
        self, codes: IntArray, marks: Floats, loadings: Floats, shrink: Float64
    ) -> tuple[Floats, Floats]:
        """(ridge, discriminant logits), both (L, C, N), of heads fitted without the row's group.

        codes (L, N), marks (L, C, N) their indicators, loadings (L, C, k + 1) = marks U; shrink (k + 1,).
        """
        shrunk = (loadings * shrink).astype(marks.dtype)
        fitted = (shrunk.reshape(-1, len(shrink)) @ self.basis.T).reshape(marks.shape)
        residual = marks - fitted
        rest = 1.0 - (self.basis**2) @ shrink.astype(marks.dtype)
        # Y'(I - H)Y: what ridge leaves unexplained, the penalty counted
        apart = np.diag(self.counts) - shrunk.astype(np.float64) @ np.swapaxes(loadings, 1, 2)
        ridge = marks - residual / rest
        gaussian = _alone(codes, marks, ridge, residual, rest, apart, self.counts)
        for clump in self.clumps:
            most = max(1, 2_000_000 // (clump.shape[1] * max(clump.shape[1], shrunk[..., 0].size)))
            for part in blocks(len(clump), most):
                self._together(clump[part], marks, residual, apart, shrink, ridge, gaussian)
        return ridge, gaussian

    def _together(
        self,
        members: IntArray,
        marks: Floats,
        residual: Floats,
        apart: Float64,
        shrink: Float64,
        ridge: Floats,
        gaussian: Floats,
    ) -> None:
        """Write the answers of whole groups (groups, size) into `ridge` and `gaussian`.

        Without group g, Y'(I - H)Y loses E' (I - H_gg)^-1 E, E the group's residuals.
        """
        rows = self.basis[members].astype(np.float64)
        inside = np.eye(members.shape[1]) - (rows * shrink) @ np.swapaxes(rows, 1, 2)
        # (L, C, groups, size) -> (groups, size, L, C) and back to (L, groups, size, C)
        error = residual[:, :, members].transpose(2, 3, 0, 1).astype(np.float64)
        solved = np.linalg.solve(inside, error.reshape(*members.shape, -1)).reshape(error.shape)
        error, solved = error.transpose(2, 0, 1, 3), solved.transpose(2, 0, 1, 3)
        own = marks[:, :, members].transpose(0, 2, 3, 1).astype(np.float64)
        left = np.maximum(self.counts - own.sum(axis=2), 0.0)
        total = np.array([self.counts.sum() - members.shape[1]])
        remaining = apart[:, None] - np.swapaxes(error, 2, 3) @ solved
        inner = left[..., None] * np.eye(len(self.counts)) - remaining
        weights, offset = gaussian_map(inner, left, total)
        answer = own - solved
        logits = (answer - (left / total)[:, :, None]) @ weights + offset[:, :, None]
        absent = (left == 0.0)[:, :, None]
        lowest = np.where(absent, np.inf, logits).min(axis=3, keepdims=True)
        logits = np.where(absent, lowest, logits)
        ridge[:, :, members] = answer.transpose(0, 3, 1, 2)
        gaussian[:, :, members] = logits.transpose(0, 3, 1, 2)


def _alone(
    codes: IntArray,
    marks: Floats,
    ridge: Floats,
    residual: Floats,
    rest: Floats,
    apart: Float64,
    counts: Float64,
) -> Floats:
    """Discriminant logits without each row, up to what all classes share.

    With S = Y'(I - H)Y, G any symmetric inverse of S on the classes' differences, n the counts and f the
    ridge answer, the logits are N G (f - n/N) - N/2 (G_cc - 2 (G n)_c / N - 1/n_c) + log n_c. Leaving a
    row out takes r r' / (1 - h) from S, r its residual: G gains G r r' G / (1 - h - r'G r).
    """
    total = counts.sum() - 1.0
    whole = np.linalg.inv(apart + np.outer(counts, counts) / counts.sum())
    inverse = (whole - 1.0 / counts.sum()).astype(marks.dtype)  # G n = 0
    left = counts[:, None].astype(marks.dtype) - marks
    turned = inverse @ residual
    own = np.take_along_axis(turned, codes[:, None], axis=1)
    scale = rest[None] - (residual * turned).sum(axis=1)
    turned_share = turned / np.maximum(scale, 1e-7 * rest)[:, None]
    wanted = ridge - left / total
    logits = inverse @ wanted + turned_share * (turned * wanted).sum(axis=1, keepdims=True)
    logits -= 0.5 * (np.diagonal(inverse, axis1=1, axis2=2)[:, :, None] + turned_share * turned)
    logits *= total
    logits -= np.swapaxes(inverse, 1, 2) @ marks + turned_share * own
    safe = np.maximum(left, 1.0)
    logits += 0.5 * total / safe + np.log(safe)
    return np.asarray(logits)


def asked_rows(codes: IntArray, groups: IntArray, classes: int) -> NDArray[np.bool_]:
    """(L, N): whether the row's class has a row in another group, under each labelling (L, N)."""
    many, size = len(codes), int(groups.max()) + 1
    cells = groups * classes + codes
    within = np.stack([np.bincount(row, minlength=size * classes)[row] for row in cells])
    counts = np.stack([np.bincount(row, minlength=classes)[row] for row in codes])
    assert within.shape == (many, len(groups))
    return np.asarray(within < counts)


def tempered(logits: Floats, codes: IntArray, asked: NDArray[np.bool_]) -> Float64:
    """Mean log-loss (L,) of logits (L, C, N) on the rows asked (L, N), each labelling at its own temperature.

    As `heads.temperature`, for many at once; no flatter than FLATTEST. log C where no row is asked.
    """
    scores = logits - logits.max(axis=1, keepdims=True)
    rows = asked.sum(axis=1)
    share = (asked / np.maximum(rows, 1)[:, None]).astype(scores.dtype)
    doubt = 2.0 / (rows + 2.0)
    truth = np.take_along_axis(scores, codes[:, None], axis=1)[:, 0]
    middle, square = scores.mean(axis=1), (scores**2).mean(axis=1)
    target = (1.0 - doubt) * (share * truth).sum(axis=1) + doubt * (share * middle).sum(axis=1)
    unit = 1.0 / np.sqrt(np.maximum((share * square).sum(axis=1, dtype=np.float64), 1e-24))
    # Newton's step from zero: near the answer where the labels are all but unpredictable
    rise = target - (share * middle).sum(axis=1)
    bend = (share * (square - middle**2)).sum(axis=1)
    sharpness = np.clip(rise / np.maximum(bend, 1e-30), FLATTEST * unit, unit)
    for _ in range(STEPS):
        powers = np.exp(sharpness.astype(scores.dtype)[:, None, None] * scores)
        mass = powers.sum(axis=1)
        powers *= scores
        mean = powers.sum(axis=1) / mass
        powers *= scores
        slope = (share * mean).sum(axis=1) - target
        bend = (share * (powers.sum(axis=1) / mass - mean**2)).sum(axis=1)
        # never more than e-fold at once: the curvature vanishes where every row is certain
        step = np.clip(slope / np.maximum(bend, 1e-30), -1.7 * sharpness, 0.63 * sharpness)
        moved = np.maximum(sharpness - step, FLATTEST * unit)
        still = np.abs(moved - sharpness) < 1e-3 * sharpness
        sharpness = moved
        if still.all():
            break
    mass = np.exp(sharpness.astype(scores.dtype)[:, None, None] * scores).sum(axis=1)
    loss = (share * np.log(mass)).sum(axis=1) - sharpness * (share * truth).sum(axis=1)
    return np.asarray(np.where(rows > 0, loss, np.log(logits.shape[1])), dtype=np.float64)
