"""One factorisation of centred features, and what follows from it without fitting anything twice.

Ridge over a path of strengths with exact answers for left-out rows or groups, a shrinkage
discriminant built from the same numbers, the log evidence of a linear model, a regularised H-score,
and the null of each score under shuffled labels.

Notation: x~ = sqrt(w) (x - mean) are the weighted centred rows, x~ = U diag(values) directions'.
`U` gets one more column, sqrt(w / sum w): the intercept, which no strength shrinks. With it
H = U diag(shrink) U' is the whole hat matrix (the 1/N of the mean included).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graftwork.errors import RequestError
from graftwork.rows import IntArray

Float64 = NDArray[np.float64]
CUT = 1e-6
"""Directions whose singular value is below this part of the largest are rounding, and are dropped."""
BLOCK = 2048
"""Rows read at once: bounds the memory whatever the number of rows."""


@dataclass(frozen=True)
class Spectrum:
    """The factorisation. `features` (N, D) stays where it is (it may be a memory map).

    weights (N,); mean (D,) weighted; values (k,) singular values, falling; directions (D, k)
    orthonormal; spread: sum of w |x - mean|^2, the squared values that were cut included.
    """

    features: NDArray[np.float32]
    weights: Float64
    mean: Float64
    values: Float64
    directions: Float64
    spread: float

    @property
    def rank(self) -> int:
        return len(self.values)

    @property
    def total(self) -> float:
        """Sum of the weights: the number of rows where they are one."""
        return float(self.weights.sum())

    def centred(self, index: IntArray | slice) -> Float64:
        """Rows sqrt(w) (x - mean), (n, D)."""
        rows = self.features[index].astype(np.float64)
        rows -= self.mean
        rows *= np.sqrt(self.weights[index])[:, None]
        return rows

    def basis(self, index: IntArray | slice) -> Float64:
        """Rows of U, (n, k + 1); the last column is the intercept's."""
        intercept = np.sqrt(self.weights[index] / self.total)
        return np.column_stack([self.centred(index) @ (self.directions / self.values), intercept])

    def loadings(self, targets: Float64) -> Float64:
        """U' diag(sqrt(w)) targets: (N, m) -> (k + 1, m)."""
        sums = np.zeros((len(self.mean), targets.shape[1]))
        weighted = np.sqrt(self.weights)[:, None] * targets
        for rows in blocks(len(targets)):
            sums += self.centred(rows).T @ weighted[rows]
        intercept = (np.sqrt(self.weights / self.total) @ weighted)[None]
        return np.vstack([(self.directions / self.values).T @ sums, intercept])

    def shrink(self, strength: float) -> Float64:
        """s^2 / (s^2 + strength) of each direction, 1 for the intercept: (k + 1,)."""
        squares = self.values**2
        return np.append(squares / (squares + strength), 1.0)

    def strengths(self, ratios: Sequence[float]) -> Float64:
        """Penalties in units of the mean squared length of a centred row: scale does not matter."""
        return np.asarray(ratios) * max(self.spread / self.total, np.finfo(np.float64).tiny)

    def linear(self, loadings: Float64, strength: float) -> tuple[Float64, Float64]:
        """Ridge (weights (D, m), bias (m,)): targets ~ x weights + bias."""
        shrunk = self.shrink(strength)[:-1, None] * loadings[:-1]
        weights = (self.directions / self.values) @ shrunk
        return weights, loadings[-1] / np.sqrt(self.total) - self.mean @ weights


def factorise(features: NDArray[np.float32], weights: Float64 | None = None, cut: float = CUT) -> Spectrum:
    """Factorise (N, D) features through the smaller Gram matrix, accumulated in float64.

    weights: (N,) positive, one by default. Raises RequestError where a feature is not finite.
    """
    given = np.ones(len(features)) if weights is None else np.asarray(weights, dtype=np.float64)
    assert given.shape == (len(features),) and (given > 0).all()
    mean, size = _mean(features, given)
    if not np.isfinite(size):
        raise RequestError(
            "some features are not finite (NaN or infinite); expected numbers; "
            "was the backbone run in too low a precision? Try: graft cache verify"
        )
    tall = features.shape[0] >= features.shape[1]
    bare = Spectrum(features, given, mean, np.zeros(0), np.zeros((features.shape[1], 0)), 0.0)
    gram = _feature_gram(bare) if tall else _row_gram(bare)
    squares, vectors = np.linalg.eigh(gram)
    values = np.sqrt(np.maximum(squares[::-1], 0.0))
    # what varies only below the resolution of float32 is a constant feature
    floor = max(cut * values[0], 1e-8 * np.sqrt(size))
    rank = int((values > floor).sum())
    directions = vectors[:, ::-1][:, :rank]
    if not tall:
        directions = _across_rows(bare, directions / values[:rank])
    return Spectrum(
        features, given, mean, values[:rank], np.ascontiguousarray(directions), float(np.trace(gram))
    )


def blocks(rows: int, size: int = BLOCK) -> Iterator[slice]:
    """Consecutive slices that cover `rows` rows."""
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def _mean(features: NDArray[np.float32], weights: Float64) -> tuple[Float64, float]:
    """Weighted mean (D,) and the sum of w |x|^2."""
    total, size = np.zeros(features.shape[1]), 0.0
    for rows in blocks(len(features)):
        block = features[rows].astype(np.float64)
        total += weights[rows] @ block
        size += float(weights[rows] @ np.einsum("ij,ij->i", block, block))
    return total / weights.sum(), size


def _feature_gram(spectrum: Spectrum) -> Float64:
    gram = np.zeros((len(spectrum.mean), len(spectrum.mean)))
    for rows in blocks(len(spectrum.features)):
        block = spectrum.centred(rows)
        gram += block.T @ block
    return gram


def _column_blocks(spectrum: Spectrum) -> Iterator[tuple[slice, Float64]]:
    root = np.sqrt(spectrum.weights)[:, None]
    for columns in blocks(len(spectrum.mean)):
        yield columns, root * (spectrum.features[:, columns].astype(np.float64) - spectrum.mean[columns])


def _row_gram(spectrum: Spectrum) -> Float64:
    gram = np.zeros((len(spectrum.features), len(spectrum.features)))
    for _, block in _column_blocks(spectrum):
        gram += block @ block.T
    return gram


def _across_rows(spectrum: Spectrum, left: Float64) -> Float64:
    """X~' left, (D, k), a block of columns at a time."""
    return np.concatenate([block.T @ left for _, block in _column_blocks(spectrum)])


def indicators(codes: IntArray, classes: int) -> Float64:
    """(N, classes), one where the row carries the class."""
    return np.asarray(codes[:, None] == np.arange(classes), dtype=np.float64)


def class_weights(spectrum: Spectrum, codes: IntArray, classes: int) -> Float64:
    """(classes,) weight of each class's rows."""
    return np.bincount(codes, spectrum.weights, classes).astype(np.float64)


@dataclass(frozen=True)
class LeftOut:
    """What heads fitted without a row's group say of the row.

    rows (n,): which rows were asked. ridge and discriminant: (strengths, n, classes) float32;
    discriminant logits are those of Gaussian classes with one covariance, uncalibrated.
    """

    rows: IntArray
    ridge: NDArray[np.float32]
    discriminant: NDArray[np.float32]


def left_out(
    spectrum: Spectrum,
    codes: IntArray,
    classes: int,
    strengths: Float64,
    groups: IntArray,
    rows: IntArray | None = None,
) -> LeftOut:
    """Exact leave-one-group-out answers of ridge and of the discriminant, for every strength.

    Closed form: the residuals without group g are (I - H_gg)^-1 e_g. The strength and the row
    weights stay as they are when a group leaves. `rows` asks for some rows only; groups then count
    as they are cut by `rows`, so hand over whole groups.
    """
    asked = np.arange(len(codes)) if rows is None else rows
    order = np.argsort(asked, kind="stable")
    loadings = spectrum.loadings(indicators(codes, classes))
    shape = (len(strengths), len(asked), classes)
    ridge, discriminant = np.empty(shape, np.float32), np.empty(shape, np.float32)
    place = np.empty(len(codes), dtype=np.int64)
    place[asked[order]] = order
    for members in _batches(asked, groups, classes, spectrum.rank):
        basis = spectrum.basis(members.ravel()).reshape(*members.shape, -1)
        root = np.sqrt(spectrum.weights[members])[..., None]
        held = root * indicators(codes[members.ravel()], classes).reshape(*members.shape, classes)
        where = place[members]
        for p, strength in enumerate(strengths):
            answers, inner = _leave(basis, held, spectrum.shrink(strength), loadings)
            values = answers / root
            ridge[p, where] = values
            counts, total = _remaining(spectrum, codes, classes, held, root)
            discriminant[p, where] = _gaussian(values, inner, counts, total)
    return LeftOut(asked, ridge, discriminant)


def _batches(asked: IntArray, groups: IntArray, classes: int, rank: int) -> Iterator[IntArray]:
    """Groups of equal size stacked: (groups, size) row numbers, at most about BLOCK rows each."""
    order = asked[np.argsort(groups[asked], kind="stable")]
    _, starts, sizes = np.unique(groups[order], return_index=True, return_counts=True)
    for size in np.unique(sizes):
        same = starts[sizes == size]
        members = order[same[:, None] + np.arange(size)]
        # the (classes, classes) matrix of every group bounds the batch too
        count = max(1, min(BLOCK // int(size), 4_000_000 // classes**2))
        for part in blocks(len(members), count):
            yield members[part]


def _leave(basis: Float64, held: Float64, shrink: Float64, loadings: Float64) -> tuple[Float64, Float64]:
    """Answers without the group, (groups, size, m), and Y' H Y of the rows that remain, (groups, m, m).

    All in rows scaled by sqrt(w). held: the groups' own targets. With S = I - H_gg the answers are
    P = Y - S^-1 (Y - F), and the rest loses Y'F + F'Y - Y'HY - (F - HY)'P.
    """
    fitted = basis @ (shrink[:, None] * loadings)
    flipped = np.swapaxes(basis, -1, -2)
    answers = held - _solve(basis, flipped, shrink, held - fitted)
    own = basis @ (shrink[:, None] * (flipped @ held))
    transposed = np.swapaxes(held, -1, -2)
    cross = transposed @ fitted
    inner = loadings.T @ (shrink[:, None] * loadings) - cross - np.swapaxes(cross, -1, -2)
    return answers, inner + transposed @ own + np.swapaxes(fitted - own, -1, -2) @ answers


def _solve(basis: Float64, flipped: Float64, shrink: Float64, residuals: Float64) -> Float64:
    """(I - U D U')^-1 residuals, in the smaller of group size and rank."""
    size, rank = basis.shape[-2:]
    if size == 1:
        return np.asarray(residuals / (1.0 - (basis**2) @ shrink)[..., None])
    if size <= rank:
        return np.asarray(np.linalg.solve(np.eye(size) - (basis * shrink) @ flipped, residuals))
    scaled = basis * np.sqrt(shrink)
    across = np.swapaxes(scaled, -1, -2)
    return np.asarray(
        residuals + scaled @ np.linalg.solve(np.eye(rank) - across @ scaled, across @ residuals)
    )


def _remaining(
    spectrum: Spectrum, codes: IntArray, classes: int, held: Float64, root: Float64
) -> tuple[Float64, Float64]:
    """Class weights (groups, classes) and total weight (groups, 1) without each group."""
    counts = class_weights(spectrum, codes, classes) - (held * root).sum(-2)
    return np.maximum(counts, 0.0), spectrum.total - (root**2).sum(-2)


def _gaussian(values: Float64, inner: Float64, counts: Float64, total: Float64) -> Float64:
    """Discriminant logits from ridge answers.

    values (..., n, C): ridge answers; inner (..., C, C): Y'HY; counts (..., C); total (..., 1).
    With A = total scatter + strength, B = A^-1 X'Y the ridge weights and Q = Y'X B (centred), the
    within-class inverse gives W = (A - M diag(n) M')^-1 M = B (diag(n) - Q)^-1 by push-through.
    """
    weights, offset = _gaussian_map(inner, counts, total)
    return (values - (counts / total)[..., None, :]) @ weights + offset[..., None, :]


def _gaussian_map(inner: Float64, counts: Float64, total: Float64) -> tuple[Float64, Float64]:
    present = counts > 1e-9
    safe = np.where(present, counts, 1.0)
    spread = inner - counts[..., :, None] * counts[..., None, :] / total[..., None]
    spread = np.where(present[..., :, None] & present[..., None, :], spread, 0.0)
    matrix = safe[..., :, None] * np.eye(counts.shape[-1]) - spread
    weights = np.linalg.inv(matrix)
    means = np.einsum("...cd,...dc->...c", spread, weights) / safe
    prior = np.log(np.where(present, counts, 1.0) / total)
    # a class that left with the group cannot be answered: about e^-50 of the others
    offset = np.where(present, -0.5 * total * means + prior, -50.0 - 0.5 * total)
    return total[..., None] * weights, offset


def discriminant(
    spectrum: Spectrum, codes: IntArray, classes: int, strength: float
) -> tuple[Float64, Float64]:
    """(weights (D, C), bias (C,)) of Gaussian classes sharing the covariance (S_w + strength I) / N.

    S_w is the within-class scatter; priors are the classes' shares of the weight.
    """
    loadings = spectrum.loadings(indicators(codes, classes))
    inner = loadings.T @ (spectrum.shrink(strength)[:, None] * loadings)
    counts = class_weights(spectrum, codes, classes)
    total = np.array([spectrum.total])
    change, offset = _gaussian_map(inner, counts, total)
    weights, bias = spectrum.linear(loadings, strength)
    return weights @ change, (bias - counts / total) @ change + offset
