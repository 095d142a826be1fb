"""How well features tell labels apart, without fitting a head: scores, each against shuffled labels.

`separations(features, codes, groups, labellings)` is what ranking asks. All scores come from one
factorisation; larger is better. A score says little by itself where width exceeds rows; its null does:
z is how many null deviations it stands above shuffled labels, p the share of shufflings at least as good.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graftwork.heads import temperature
from graftwork.rows import IntArray
from graftwork.spectrum import (
    Float64,
    Held,
    Spectrum,
    blocks,
    class_loadings,
    class_weights,
    factorise,
    held_groups,
    indicators,
    left_out,
)

SHARPEST = 1e6
"""Cap of the noise precision, in units of 1 / variance of the labels: perfect fits stay finite."""
ASKED = 5_000
"""Rows asked for leave-one-out scores; the factorisation and the other scores see every row."""


@dataclass(frozen=True)
class Separation:
    """One score of features for labels, and its null under shuffled labels. Larger is better.

    name: "evidence" (log evidence of a Gaussian linear model, nats a row, mean over classes),
    "h_score" (regularised), "ridge" (leave-one-out R2), "discriminant" (leave-one-out log-likelihood
    a row at its own temperature). null: the same score of every shuffling, (permutations,).
    """

    name: str
    value: float
    null: Float64

    @property
    def z(self) -> float:
        """Null deviations above the null's mean; NaN without a null."""
        if not len(self.null):
            return float("nan")
        deviation = float(self.null.std(ddof=1)) if len(self.null) > 1 else 0.0
        return (self.value - float(self.null.mean())) / deviation if deviation > 0 else 0.0

    @property
    def p(self) -> float:
        """Share of shufflings at least as good, the true labelling counted as one; NaN without a null.

        p is never zero (Phipson and Smyth 2010).
        """
        if not len(self.null):
            return float("nan")
        return (1 + int((self.null >= self.value).sum())) / (1 + len(self.null))


def shufflings(codes: IntArray, groups: IntArray, permutations: int, seed: int) -> list[IntArray]:
    """Labels dealt to other rows, `permutations` times; give the same ones to every source.

    groups (N,): rows of one group are dealt together. Deterministic under `seed`.
    """
    rng = np.random.default_rng(seed)
    return [shuffled(codes, groups, rng) for _ in range(permutations)]


def separations(
    features: NDArray[np.float32],
    codes: IntArray,
    groups: IntArray,
    labellings: Sequence[IntArray],
    *,
    source_probabilities: NDArray[np.float32] | None = None,
) -> tuple[Separation, ...]:
    """Every score of (N, D) features for labels coded 0..C-1, none missing.

    groups (N,): rows of one group leave together. labellings: what `shufflings` gave; may be empty.
    source_probabilities (N, Z): what the source's own classifier says (see backbones.classifier).
    Raises RequestError where features are not finite.
    """
    spectrum, classes = factorise(features), int(codes.max()) + 1
    asked = _some_groups(groups, np.random.default_rng(0))
    held = list(held_groups(spectrum, groups, asked, classes))
    shrinkage = ledoit_wolf(spectrum)
    table = np.array(
        [
            _scores(spectrum, labelling, classes, loadings, held, shrinkage)
            for labelling, loadings in _loaded(spectrum, [codes, *labellings], classes)
        ]
    )
    return tuple(Separation(name, float(table[0, i]), table[1:, i]) for i, name in enumerate(NAMES))


NAMES = ("evidence", "h_score", "ridge", "discriminant")


def _scores(
    spectrum: Spectrum,
    codes: IntArray,
    classes: int,
    loadings: Float64,
    held: list[Held],
    shrinkage: float,
) -> tuple[float, float, float, float]:
    """The scores in the order of NAMES; the strength of the last two is the evidence's own choice."""
    counts = class_weights(spectrum, codes, classes)
    evidences, strengths = log_evidence(spectrum, loadings, counts)
    strength = np.exp(np.log(strengths).mean(keepdims=True))
    answers = left_out(spectrum, codes, classes, strength, held, loadings)
    truth = codes[answers.rows]
    target = indicators(truth, classes)
    residual = ((target - answers.ridge[0]) ** 2).sum()
    spread = ((target - counts / counts.sum()) ** 2).sum()
    _, loss = temperature(answers.discriminant[0], truth, np.ones(len(truth)))
    return (
        float(evidences.mean() / spectrum.total),
        h_score(spectrum, loadings, counts, shrinkage),
        float(1.0 - residual / spread),
        -loss,
    )


def log_evidence(spectrum: Spectrum, loadings: Float64, squares: Float64) -> tuple[Float64, Float64]:
    """(log evidence, ridge strength) of each target, both (m,), maximised over both variances.

    loadings (k + 1, m) as `Spectrum.loadings` gives them; squares (m,): sum of w target^2. The model is
    y = centred features @ N(0, I / a) + N(0, I / b) on the N - 1 dimensions that centring leaves:
    minimise 1/2 [sum log(1/b + s^2/a) + (N-1-k) log(1/b) + sum x^2 / (1/b + s^2/a) + b |y_perp|^2].
    With r = b/a the best 1/b is known in closed form, which leaves one dimension; strength = 1/r.
    """
    x2 = loadings[:-1] ** 2
    centred = np.maximum(squares - loadings[-1] ** 2, 1e-300)
    rest = np.maximum(centred - x2.sum(axis=0), 0.0)
    freedom = len(spectrum.weights) - 1
    least = centred / freedom / SHARPEST

    def loss(log_ratio: Float64) -> Float64:
        gain = 1.0 + np.exp(log_ratio) * spectrum.values[:, None] ** 2
        misfit = (x2 / gain).sum(axis=0) + rest
        noise = np.maximum(misfit / freedom, least)
        return np.asarray(0.5 * (np.log(gain).sum(axis=0) + freedom * np.log(noise) + misfit / noise))

    if not spectrum.rank:
        flat = np.zeros(len(centred))
        return -loss(flat) - 0.5 * freedom * np.log(2 * np.pi), np.ones(len(centred))
    low, high = -2 * np.log(spectrum.values[[0, -1]]) + np.log([1e-4, 1e4])
    best = _lowest(loss, np.linspace(low, high, 60), len(centred))
    return -loss(best) - 0.5 * freedom * np.log(2 * np.pi), np.exp(-best)


def h_score(spectrum: Spectrum, loadings: Float64, counts: Float64, shrinkage: float) -> float:
    """Regularised H-score (Ibrahim, Ponomareva, Mazumder 2021): tr(cov_shrunk^-1 (1 - a) cov(class means)).

    shrinkage: a, of the covariance towards its mean variance times I, as `ledoit_wolf` gives it.
    """
    rows, width = spectrum.total, len(spectrum.mean)
    kept = (1.0 - shrinkage) * spectrum.values**2 / rows
    variances = np.maximum(kept + shrinkage * spectrum.spread / rows / width, 1e-300)
    # squared coordinates of each class mean, times its share of the rows
    means = spectrum.values[:, None] ** 2 * loadings[:-1] ** 2 / np.maximum(counts, 1e-12) / rows
    return float((1.0 - shrinkage) * (means / variances[:, None]).sum())


def ledoit_wolf(spectrum: Spectrum) -> float:
    """Ledoit and Wolf's (2004) shrinkage of the features' covariance towards a multiple of I."""
    rows, width = spectrum.total, len(spectrum.mean)
    fourth = 0.0
    for index in blocks(len(spectrum.weights)):
        block = spectrum.centred(index)
        fourth += float((np.einsum("ij,ij->i", block, block) ** 2).sum())
    size = float((spectrum.values**4).sum()) / rows**2
    noise = (fourth / rows - size) / rows
    apart = size - (spectrum.spread / rows) ** 2 / width
    return float(np.clip(noise / apart, 0.0, 1.0)) if apart > 0 else 1.0


def shuffled(codes: IntArray, groups: IntArray, rng: np.random.Generator) -> IntArray:
    """Labels dealt to other rows, those of one group staying neighbours, so that clumps stay clumps."""
    order = np.argsort(groups, kind="stable")
    names, inverse = np.unique(groups, return_inverse=True)
    dealt = np.argsort(rng.permutation(len(names))[inverse], kind="stable")
    answer = np.empty_like(codes)
    answer[order] = codes[dealt]
    return answer


def _some_groups(groups: IntArray, rng: np.random.Generator) -> IntArray:
    """Rows of whole groups, by chance, about ASKED of them."""
    if len(groups) <= ASKED:
        return np.arange(len(groups))
    names, inverse, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = rng.permutation(len(names))
    enough = int(np.searchsorted(np.cumsum(sizes[order]), ASKED)) + 1
    return np.flatnonzero(np.isin(inverse, order[:enough]))


def _loaded(
    spectrum: Spectrum, labellings: list[IntArray], classes: int
) -> Iterator[tuple[IntArray, Float64]]:
    """Each labelling with its loadings; many labellings share one pass over the rows."""
    for part in blocks(len(labellings), max(1, 1000 // classes)):
        many = np.array(labellings[part])
        yield from zip(many, class_loadings(spectrum, many, classes), strict=True)


def _lowest(loss: Callable[[Float64], Float64], grid: Float64, many: int) -> Float64:
    """Where each of `many` functions is lowest: the best grid point, then golden section around it."""
    values = np.array([loss(np.full(many, point)) for point in grid])
    best = np.clip(values.argmin(axis=0), 1, len(grid) - 2)
    low, high = grid[best - 1], grid[best + 1]
    golden = (np.sqrt(5.0) - 1.0) / 2.0
    for _ in range(25):
        left, right = high - golden * (high - low), low + golden * (high - low)
        lower = loss(left) < loss(right)
        low, high = np.where(lower, low, left), np.where(lower, right, high)
    return np.asarray((low + high) / 2)
