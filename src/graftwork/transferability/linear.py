"""Scores of linear models, all from one factorisation, for many labellings at once.

Arrays over labellings are (L, C, N): the rows last, so that sums over classes run along memory.
"""

import numpy as np
from numpy.typing import NDArray

from graftwork.rows import IntArray
from graftwork.spectrum import Float64, Spectrum, blocks, factorise
from graftwork.transferability.leaving import Floats, Leaving, asked_rows, tempered

RATIOS = tuple(10.0 ** (half / 2) for half in range(-4, 7))
"""Strengths of the leave-one-out scores, in units of a row's mean squared length."""
SHARPEST = 1e6
"""Cap of the noise precision, in units of 1 / variance of the labels: perfect fits stay finite."""
GRID = 250
"""Ratios of noise to signal at which the evidence is looked at, before the best is refined."""
EXACT = 500_000
"""Up to so many entries are computed in float64: it costs nothing there."""
AT_ONCE = 4_000_000
"""Entries of an (L, C, N) array: bounds the memory whatever the number of labellings and classes."""
NAMES = ("evidence", "h_score", "ridge", "log_loss", "discriminant")


def linear_scores(
    features: NDArray[np.float32], labellings: IntArray, groups: IntArray, classes: int
) -> dict[str, Float64]:
    """name -> (L,) values of the scores in NAMES, for labellings (L, N) with the same class counts.

    The last three leave a row's whole group out, at the strength (of RATIOS) nearest to the evidence's
    own choice; a row whose class has no other group is not asked.
    """
    spectrum = factorise(features)
    basis, shrinkage = coordinates(spectrum), ledoit_wolf(spectrum)
    counts = np.bincount(labellings[0], minlength=classes).astype(np.float64)
    leaving = Leaving(basis, groups, counts)
    table = {name: np.empty(len(labellings)) for name in NAMES}
    for part in blocks(len(labellings), max(1, AT_ONCE // (classes * len(features)))):
        codes = labellings[part]
        marks = np.asarray(codes[:, None] == np.arange(classes)[:, None], dtype=basis.dtype)
        loadings = (marks.reshape(-1, len(features)) @ basis).reshape(len(codes), classes, -1)
        evidences, strengths = log_evidence(spectrum, loadings, counts)
        table["evidence"][part] = evidences.mean(axis=1) / len(features)
        table["h_score"][part] = h_score(spectrum, loadings, counts, shrinkage)
        nearest = _nearest_ratio(spectrum, strengths)
        for place in np.unique(nearest):
            same = np.flatnonzero(nearest == place)
            strength = float(spectrum.strengths((RATIOS[place],))[0])
            found = _left_out(leaving, codes[same], marks[same], loadings[same], spectrum.shrink(strength))
            for name, values in zip(NAMES[2:], found, strict=True):
                table[name][part][same] = values
    return table


def _left_out(
    leaving: Leaving, codes: IntArray, marks: Floats, loadings: Floats, shrink: Float64
) -> tuple[Float64, Float64, Float64]:
    """Leave-one-group-out R2 of ridge, and log-likelihood a row of ridge and of the discriminant."""
    ridge, gaussian = leaving.answers(codes, marks, loadings, shrink)
    asked = asked_rows(codes, leaving.groups, len(leaving.counts))
    share = leaving.counts / leaving.counts.sum()
    kept = asked[:, None]
    residual = np.sum((marks - ridge) ** 2, axis=(1, 2), where=kept, dtype=np.float64)
    spread = np.sum((1.0 - share @ share) * asked, axis=1)
    r2 = np.where(spread > 0.0, 1.0 - residual / np.maximum(spread, 1e-12), 0.0)
    return r2, -tempered(ridge, codes, asked), -tempered(gaussian, codes, asked)


def coordinates(spectrum: Spectrum) -> Floats:
    """U with the intercept's column, (N, k + 1): float64 where it is small, else float32."""
    if not spectrum.tall or len(spectrum.features) * spectrum.rank <= EXACT:
        basis = spectrum.basis(slice(0, len(spectrum.features)))
        return basis if basis.size <= EXACT else basis.astype(np.float32)
    basis = np.empty((len(spectrum.features), spectrum.rank + 1), np.float32)
    turn = (spectrum.directions / spectrum.values).astype(np.float32)
    middle = spectrum.mean.astype(np.float32)
    for index in blocks(len(basis)):
        np.matmul(spectrum.features[index] - middle, turn, out=basis[index, :-1])
    basis[:, -1] = 1.0 / np.sqrt(len(basis))
    return basis


def log_evidence(spectrum: Spectrum, loadings: Floats, squares: Float64) -> tuple[Float64, Float64]:
    """(log evidence, ridge strength) of each target, both (...,), maximised over both variances.

    loadings (..., k + 1): U'y of each target, the intercept's last; squares: sum of y^2, of a shape
    that fits. The model is y = centred features @ N(0, I / a) + N(0, I / b) on the N - 1 dimensions
    that centring leaves:
    minimise 1/2 [sum log(1/b + s^2/a) + (N-1-k) log(1/b) + sum x^2 / (1/b + s^2/a) + b |y_perp|^2].
    With r = b/a the best 1/b is known in closed form, which leaves one dimension; strength = 1/r.
    """
    x2 = loadings[..., :-1].astype(np.float64) ** 2
    centred = np.maximum(squares - loadings[..., -1].astype(np.float64) ** 2, 1e-300)
    rest = np.maximum(centred - x2.sum(axis=-1), 0.0)
    freedom = len(spectrum.features) - 1
    least = centred / freedom / SHARPEST
    s2 = spectrum.values**2

    def loss(log_gains: Float64, misfit: Float64, least: Float64) -> Float64:
        noise = np.maximum(misfit / freedom, least)
        return np.asarray(0.5 * (log_gains + freedom * np.log(2 * np.pi * noise) + misfit / noise))

    if not spectrum.rank:
        return -loss(np.zeros(()), rest, least), np.ones(centred.shape)
    low, high = -np.log(s2[[0, -1]]) + np.log([1e-4, 1e9])
    grid = np.linspace(low, high, GRID)
    gains = 1.0 + np.exp(grid)[:, None] * s2
    values = loss(np.log(gains).sum(axis=1), x2 @ (1.0 / gains).T + rest[..., None], least[..., None])
    ratio = np.exp(_lowest(grid, values))
    gain = 1.0 + ratio[..., None] * s2
    return -loss(np.log(gain).sum(axis=-1), (x2 / gain).sum(axis=-1) + rest, least), 1.0 / ratio


def h_score(spectrum: Spectrum, loadings: Floats, counts: Float64, shrinkage: float) -> Float64:
    """Regularised H-score (Ibrahim, Ponomareva, Mazumder 2021): tr(cov_shrunk^-1 (1 - a) cov(class means)).

    loadings (..., C, k + 1) of the classes' indicators, counts (C,). shrinkage: a, of the covariance
    towards its mean variance times I, as `ledoit_wolf` gives it. Returns (...,).
    """
    rows, width = len(spectrum.features), len(spectrum.mean)
    squares = spectrum.values**2 / rows
    variances = np.maximum((1.0 - shrinkage) * squares + shrinkage * spectrum.spread / rows / width, 1e-300)
    # squared coordinates of each class mean, times its share of the rows
    means = (loadings[..., :-1].astype(np.float64) ** 2) @ (squares / variances) / np.maximum(counts, 1e-12)
    return np.asarray((1.0 - shrinkage) * means.sum(axis=-1))


def ledoit_wolf(spectrum: Spectrum) -> float:
    """Ledoit and Wolf's (2004) shrinkage of the features' covariance towards a multiple of I."""
    rows, width = len(spectrum.features), len(spectrum.mean)
    fourth = 0.0
    for index in blocks(rows):
        block = spectrum.centred(index)
        fourth += float((np.einsum("ij,ij->i", block, block) ** 2).sum())
    size = float((spectrum.values**4).sum()) / rows**2
    noise = (fourth / rows - size) / rows
    apart = size - (spectrum.spread / rows) ** 2 / width
    return float(np.clip(noise / apart, 0.0, 1.0)) if apart > 0 else 1.0


def _lowest(grid: Float64, values: Float64) -> Float64:
    """Where each function (..., grid) is lowest: the parabola through its best point and the neighbours."""
    best = np.clip(values.argmin(axis=-1), 1, len(grid) - 2)[..., None]
    left, middle, right = (np.take_along_axis(values, best + i, -1)[..., 0] for i in (-1, 0, 1))
    bend = left - 2 * middle + right
    shift = 0.5 * (left - right) / np.where(bend > 0, bend, np.inf)
    return np.asarray(grid[best[..., 0]] + (grid[1] - grid[0]) * np.clip(shift, -1.0, 1.0))


def _nearest_ratio(spectrum: Spectrum, strengths: Float64) -> IntArray:
    """(L,) which of RATIOS is nearest to the geometric mean of the classes' strengths (L, C)."""
    unit = float(spectrum.strengths((1.0,))[0])
    wanted = np.log(strengths / unit).mean(axis=1)
    return np.asarray(np.abs(wanted[:, None] - np.log(RATIOS)).argmin(axis=1))
