"""Every score of one source's features, and its null: the same shuffled labels serve every source."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graftwork.rows import IntArray
from graftwork.spectrum import Float64
from graftwork.transferability.linear import linear_scores
from graftwork.transferability.neighbours import knn, nearest
from graftwork.transferability.source_labels import leep, nce

NAMES = ("evidence", "h_score", "ridge", "log_loss", "discriminant", "knn", "nce", "leep")
TIE = 1e-9
"""Relative difference below which two values of a score are the same but for rounding."""


@dataclass(frozen=True)
class Separation:
    """One score of features for labels, and its null under shuffled labels. Larger is better.

    name: "evidence" (log evidence of a Gaussian linear model, nats a row, mean over classes),
    "h_score" (regularised), "ridge" (leave-one-out R2), "log_loss" (leave-one-out log-likelihood a row
    of the ridge head at its own temperature), "discriminant" (the same of the Gaussian discriminant),
    "knn" (log-likelihood a row by its nearest neighbours), "nce" and "leep" (log-likelihood a row by
    the source's own labels). null: the same score of every shuffling, (permutations,).
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
        apart = self.value - float(self.null.mean())
        return apart / deviation if deviation > TIE * abs(self.value) else 0.0

    @property
    def p(self) -> float:
        """Share of shufflings at least as good, the true labelling counted as one; NaN without a null.

        Never zero (Phipson and Smyth 2010). Ties count as at least as good.
        """
        if not len(self.null):
            return float("nan")
        least = self.value - TIE * abs(self.value)
        return (1 + int((self.null >= least).sum())) / (1 + len(self.null))


def shufflings(codes: IntArray, groups: IntArray, permutations: int, seed: int) -> list[IntArray]:
    """Labels dealt to other rows, `permutations` times; give the same ones to every source.

    groups (N,): rows of one group are dealt together, so that clumps stay clumps. Deterministic
    under `seed`.
    """
    rng = np.random.default_rng(seed)
    return [_dealt(codes, groups, rng) for _ in range(permutations)]


def separations(
    features: NDArray[np.float32],
    codes: IntArray,
    groups: IntArray,
    labellings: Sequence[IntArray],
    *,
    source_probabilities: NDArray[np.float32] | None = None,
) -> tuple[Separation, ...]:
    """Every score of (N, D) features for the labels of N rows, each labelled; in the order of NAMES.

    groups (N,): rows of one group leave together. labellings: what `shufflings` gave; may be empty.
    source_probabilities (N, Z): what the source's own classifier says (see backbones.classifier);
    without, there is no nce and no leep. Raises RequestError where features are not finite.
    """
    # classes without a row in this sample are not asked for
    present, place = np.unique(np.array([codes, *labellings]), return_inverse=True)
    many, classes = place.reshape(-1, len(codes)), len(present)
    groups = np.unique(groups, return_inverse=True)[1]
    table = dict(linear_scores(features, many, groups, classes))
    table["knn"] = knn(nearest(features, groups), many, classes)
    if source_probabilities is not None:
        table["nce"] = nce(source_probabilities, many, classes)
        table["leep"] = leep(source_probabilities, many, classes)
    return tuple(Separation(name, float(table[name][0]), table[name][1:]) for name in NAMES if name in table)


def _dealt(codes: IntArray, groups: IntArray, rng: np.random.Generator) -> IntArray:
    order = np.argsort(groups, kind="stable")
    names, inverse = np.unique(groups, return_inverse=True)
    dealt = np.argsort(rng.permutation(len(names))[inverse], kind="stable")
    answer = np.empty_like(codes)
    answer[order] = codes[dealt]
    return answer
