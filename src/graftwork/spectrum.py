"""One factorisation of centred features, and what follows from it without fitting anything twice.

Ridge over a path of strengths with exact answers for left-out rows or groups, a shrinkage
discriminant built from the same numbers, the log evidence of a linear model, a regularised H-score,
and the null of each score under shuffled labels.

Notation: x~ = sqrt(w) (x - mean) are the weighted centred rows, x~ = U diag(values) directions'.
`U` gets one more column, sqrt(w / sum w): the intercept, which no strength shrinks. With it
H = U diag(shrink) U' is the whole hat matrix (the 1/N of the mean included).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

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

    weights (N,); mean (D,) weighted; values (k,) singular values, falling; vectors: orthonormal, the
    directions (D, k), or, where width exceeds rows, U's own columns (N, k); spread: sum of
    w |x - mean|^2, the squared values that were cut included.
    """

    features: NDArray[np.float32]
    weights: Float64
    mean: Float64
    values: Float64
    vectors: Float64
    spread: float

    @property
    def tall(self) -> bool:
        return len(self.features) >= len(self.mean)

    @cached_property
    def directions(self) -> Float64:
        """(D, k), orthonormal."""
        return self.vectors if self.tall else _across_rows(self, self.vectors / self.values)

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
        rotated = self.centred(index) @ self.directions / self.values if self.tall else self.vectors[index]
        return np.column_stack([rotated, intercept])

    def shrink(self, strength: float) -> Float64:
        """s^2 / (s^2 + strength) of each direction, 1 for the intercept: (k + 1,)."""
        squares = self.values**2
        return np.append(squares / (squares + strength), 1.0)

    def strengths(self, ratios: Sequence[float]) -> Float64:
        """Penalties in units of the mean squared length of a centred row: scale does not matter."""
        return np.asarray(ratios) * max(self.spread / self.total, np.finfo(np.float64).tiny)

    def linear(self, loadings: Float64, strength: float) -> tuple[Float64, Float64]:
        """Ridge (weights (D, m), bias (m,)): targets ~ x weights + bias."""
        factors = self.shrink(strength)[:-1] / self.values
        weights = self.directions @ (factors[:, None] * loadings[:-1])
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
    bare = Spectrum(features, given, mean, np.zeros(0), np.zeros((min(features.shape), 0)), 0.0)
    gram = _feature_gram(bare) if bare.tall else _row_gram(bare)
    squares, vectors = np.linalg.eigh(gram)
    values = np.sqrt(np.maximum(squares[::-1], 0.0))
    # what varies only below the resolution of float32 is a constant feature
    floor = max(cut * values[0], 1e-8 * np.sqrt(size))
    rank = int((values > floor).sum())
    kept = np.ascontiguousarray(vectors[:, ::-1][:, :rank])
    return Spectrum(features, given, mean, values[:rank], kept, float(np.trace(gram)))


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


def class_loadings(spectrum: Spectrum, labellings: IntArray, classes: int) -> Float64:
    """U' diag(sqrt(w)) of the class indicators: labellings (L, N) -> (L, k + 1, classes), in one pass."""
    many = len(labellings)
    sums = np.zeros((len(spectrum.mean), many * classes))
    counts = np.zeros(many * classes)
    for rows in blocks(labellings.shape[1]):
        marks = np.concatenate([indicators(codes[rows], classes) for codes in labellings], axis=1)
        counts += spectrum.weights[rows] @ marks
        marks *= np.sqrt(spectrum.weights[rows])[:, None]
        sums += spectrum.centred(rows).T @ marks
    turned = spectrum.directions.T @ sums / spectrum.values[:, None]
    loadings = np.vstack([turned, counts / np.sqrt(spectrum.total)])
    return np.ascontiguousarray(loadings.reshape(-1, many, classes).transpose(1, 0, 2))


def class_weights(spectrum: Spectrum, codes: IntArray, classes: int) -> Float64:
    """(classes,) weight of each class's rows."""
    return np.bincount(codes, spectrum.weights, classes).astype(np.float64)


@dataclass(frozen=True)
class LeftOut:
    """What heads fitted without a row's group say of the row.

    rows (n,): which rows were asked, rising. ridge and discriminant: (strengths, n, classes) float32;
    discriminant logits are those of Gaussian classes with one covariance, uncalibrated.
    """

    rows: IntArray
    ridge: NDArray[np.float32]
    discriminant: NDArray[np.float32]


Held = tuple[IntArray, Float64]
"""Groups of equal size that leave in turn: row numbers (groups, size), and their rows of U."""


def held_groups(
    spectrum: Spectrum, groups: IntArray, rows: IntArray | None = None, classes: int = 2
) -> Iterator[Held]:
    """The groups among `rows` (all by default), for `left_out`; rows of a group not asked for stay in.

    A list of it serves many labellings; read as it comes it holds one block of rows at a time.
    """
    asked = np.arange(len(groups)) if rows is None else rows
    order = asked[np.argsort(groups[asked], kind="stable")]
    _, starts, sizes = np.unique(groups[order], return_index=True, return_counts=True)
    for size in np.unique(sizes):
        same = starts[sizes == size]
        members = order[same[:, None] + np.arange(size)]
        # the (classes, classes) matrix of every group bounds the block too
        count = max(1, min(BLOCK // int(size), 4_000_000 // classes**2))
        for part in blocks(len(members), count):
            basis = spectrum.basis(members[part].ravel())
            yield members[part], basis.reshape(*members[part].shape, -1)


def left_out(
    spectrum: Spectrum,
    codes: IntArray,
    classes: int,
    strengths: Float64,
    held: Iterable[Held],
    loadings: Float64 | None = None,
) -> LeftOut:
    """Exact leave-one-group-out answers of ridge and of the discriminant, for every strength.

    Closed form: the residuals without group g are (I - H_gg)^-1 e_g. Strengths and row weights stay
    as they are when a group leaves. loadings: of the classes' indicators, where they are known.
    """
    known = class_loadings(spectrum, codes[None], classes)[0] if loadings is None else loadings
    counts, rows = class_weights(spectrum, codes, classes), []
    said = []
    for members, basis in held:
        root = np.sqrt(spectrum.weights[members])[..., None]
        own = root * indicators(codes[members.ravel()], classes).reshape(*members.shape, classes)
        left = np.maximum(counts - (own * root).sum(1), 0.0), spectrum.total - (root**2).sum(1)
        values = np.empty((2, len(strengths), members.size, classes), np.float32)
        for p, strength in enumerate(strengths):
            answers, inner = _leave(basis, own, spectrum.shrink(strength), known)
            values[0, p] = (answers / root).reshape(members.size, classes)
            values[1, p] = _gaussian(answers / root, inner, *left).reshape(members.size, classes)
        said.append(values)
        rows.append(members.ravel())
    numbers = np.concatenate(rows)
    order = np.argsort(numbers)
    ridge, gaussian = np.concatenate(said, axis=2)[:, :, order]
    return LeftOut(numbers[order], ridge, gaussian)


def _leave(basis: Float64, held: Float64, shrink: Float64, loadings: Float64) -> tuple[Float64, Float64]:
    """Answers without the group, (groups, size, m), and Y' H Y of the rows that remain, (groups, m, m).

    All in rows scaled by sqrt(w). held: the groups' own targets. With S = I - H_gg the answers are
    P = Y - S^-1 (Y - F), and the rest loses Y'F + F'Y - Y'HY - (F - HY)'P.
    """
    groups, size, width = basis.shape
    fitted = (basis.reshape(-1, width) @ (shrink[:, None] * loadings)).reshape(groups, size, -1)
    if size == 1:
        leverage = ((basis.reshape(-1, width) ** 2) @ shrink)[:, None, None]
        answers = held - (held - fitted) / (1.0 - leverage)
        own = leverage * held
    else:
        own = basis @ (shrink[:, None] * (np.swapaxes(basis, 1, 2) @ held))
        answers = held - _solve(basis, shrink, held - fitted)
    cross = np.swapaxes(held, 1, 2) @ fitted
    inner = loadings.T @ (shrink[:, None] * loadings) - cross - np.swapaxes(cross, 1, 2)
    inner += np.swapaxes(held, 1, 2) @ own + np.swapaxes(fitted - own, 1, 2) @ answers
    return answers, inner


def _solve(basis: Float64, shrink: Float64, residuals: Float64) -> Float64:
    """(I - U D U')^-1 residuals, in the smaller of group size and rank."""
    size, rank = basis.shape[1:]
    scaled = basis * np.sqrt(shrink)
    across = np.swapaxes(scaled, 1, 2)
    if size <= rank:
        return np.asarray(np.linalg.solve(np.eye(size) - scaled @ across, residuals))
    return np.asarray(
        residuals + scaled @ np.linalg.solve(np.eye(rank) - across @ scaled, across @ residuals)
    )


def _gaussian(values: Float64, inner: Float64, counts: Float64, total: Float64) -> Float64:
    """Discriminant logits from ridge answers.

    values (..., n, C): ridge answers; inner (..., C, C): Y'HY; counts (..., C); total (..., 1).
    With A = total scatter + strength, B = A^-1 X'Y the ridge weights and Q = Y'X B (centred), the
    within-class inverse gives W = (A - M diag(n) M')^-1 M = B (diag(n) - Q)^-1 by push-through.
    """
    weights, offset = gaussian_map(inner, counts, total)
    return (values - (counts / total)[..., None, :]) @ weights + offset[..., None, :]


def gaussian_map(inner: Float64, counts: Float64, total: Float64) -> tuple[Float64, Float64]:
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
    loadings = class_loadings(spectrum, codes[None], classes)[0]
    inner = loadings.T @ (spectrum.shrink(strength)[:, None] * loadings)
    counts = class_weights(spectrum, codes, classes)
    total = np.array([spectrum.total])
    change, offset = gaussian_map(inner, counts, total)
    weights, bias = spectrum.linear(loadings, strength)
    return weights @ change, (bias - counts / total) @ change + offset
