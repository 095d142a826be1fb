"""Intervals for measured numbers: shares, weighted shares, paired differences, folds, resampled sums.

All of them honour groups: rows of one group (duplicates, photos of one object) are one observation.
A share's interval is Wilson's; where rows hang together or are weighted it is Wilson's on the
effective number of rows, the number of independent rows that would have the same variance. Unlike a
bootstrap it stays sensible at 0 and 1.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from graftwork.rows import IntArray

Floats = NDArray[np.float64]


class Interval(NamedTuple):
    """Two ends, low <= high."""

    low: float
    high: float


def quantile(level: float, degrees: float = np.inf) -> float:
    """Two-sided quantile: Student's t with `degrees` of freedom, the normal's where infinite."""
    from scipy.special import ndtri, stdtrit

    tail = (1 + level) / 2
    return float(ndtri(tail) if np.isinf(degrees) else stdtrit(degrees, tail))


def wilson(share: float, rows: float, level: float, degrees: float = np.inf) -> Interval:
    """Wilson's (1927) score interval for a share of `rows` rows (effective rows may be fractional)."""
    if rows <= 0 or degrees <= 0:
        return Interval(0.0, 1.0)
    z2 = quantile(level, degrees) ** 2
    middle = (share + z2 / (2 * rows)) / (1 + z2 / rows)
    half = np.sqrt(z2 * (share * (1 - share) / rows + z2 / (4 * rows**2))) / (1 + z2 / rows)
    # rounding may leave an end a hair inside the share at 0 and 1
    return Interval(min(share, max(0.0, float(middle - half))), max(share, min(1.0, float(middle + half))))


def effective_wilson(
    share: float,
    contributions: Floats,
    groups: IntArray | None,
    at_most: float,
    level: float,
    degrees: float = np.inf,
) -> Interval:
    """Wilson's interval on effective rows for an estimate in [0, 1].

    contributions: (rows,) each row's part of the estimate's error (its influence divided by the
    number of rows); their sum over groups gives the variance. at_most: rows where nothing varies,
    and the largest number believed. degrees: what the variance rests on, where that is less than groups.
    """
    variance, known = variance_of_sum(contributions, groups)
    rows = min(at_most, share * (1 - share) / variance) if variance > 0 else at_most
    return wilson(share, rows, level, min(known, degrees))


def share_interval(right: NDArray[np.bool_], groups: IntArray | None, level: float) -> Interval:
    """Interval for the share of True among rows (rows,), grouped or not; (0, 1) for no rows."""
    rows = len(right)
    if not rows:
        return Interval(0.0, 1.0)
    share = float(right.mean())
    together = grouping(groups)
    if together is None:
        return wilson(share, rows, level)
    # where all rows agree nothing is seen of how much they hang together: count groups then
    at_most = rows if 0 < share < 1 else together.max() + 1
    return effective_wilson(share, (right - share) / rows, together, float(at_most), level)


def grouping(groups: IntArray | None) -> IntArray | None:
    """Groups as 0..G-1, or None where every row is a group of its own."""
    if groups is None or not len(groups):
        return None
    names, codes = np.unique(groups, return_inverse=True)
    return None if len(names) == len(groups) else codes.astype(np.int64)


def variance_of_sum(contributions: Floats, groups: IntArray | None) -> tuple[float, float]:
    """Variance of a sum of independent group totals, and its degrees of freedom.

    (G / (G - 1)) sum_g (sum of the group's contributions)^2, for contributions that sum to about 0.
    Degrees are infinite where rows are not grouped: the proportion formulas are for known variance.
    """
    together = grouping(groups)
    totals = contributions if together is None else np.bincount(together, weights=contributions)
    count = len(totals)
    if count < 2:
        return 0.0, np.inf if together is None else 0.0
    return float(count / (count - 1) * np.square(totals).sum()), np.inf if together is None else count - 1


def tango(gains: float, losses: float, rows: float, level: float, degrees: float = np.inf) -> Interval:
    """Tango's (1998) score interval for the difference of two paired shares.

    gains: rows that only the first answers rightly; losses: rows that only the second does. The ends
    are where (gains - losses - rows d)^2 = z^2 rows (2 q + d (1 - d)), q being the most likely share
    of losses when the difference is d.
    """
    from scipy.optimize import brentq

    if degrees <= 0:
        return Interval(-1.0, 1.0)
    difference, z2 = gains - losses, quantile(level, degrees) ** 2

    def excess(d: float) -> float:
        linear = (2 * rows - gains + losses) * d - gains - losses
        root = np.sqrt(max(0.0, linear**2 + 8 * rows * losses * d * (1 - d)))
        variance = 2 * (root - linear) / (4 * rows) + d * (1 - d)
        return float((difference - rows * d) ** 2 - z2 * rows * variance)

    # a hair off the observed difference: where no row differs, or all do, that is a root of its own
    middle, hair = difference / rows, 1e-9
    low = -1.0 if middle < hair - 1 else brentq(excess, -1.0, middle - hair, xtol=1e-12)
    high = 1.0 if middle > 1 - hair else brentq(excess, middle + hair, 1.0, xtol=1e-12)
    return Interval(min(float(low), middle), max(float(high), middle))


def effective_tango(
    signs: Floats, weights: Floats, residuals: Floats, groups: IntArray | None, level: float
) -> Interval:
    """Tango's interval on effective rows for a weighted mean of paired differences.

    signs: (rows,) 1 where only the first is right, -1 where only the second is, else 0. weights:
    (rows,) summing to 1. residuals: (rows,) each row's part of the error of the weighted mean. At few
    differing groups, where a bootstrap's interval is far too narrow, this one stays honest.
    """
    gains, losses = float(weights[signs > 0].sum()), float(weights[signs < 0].sum())
    variance, degrees = variance_of_sum(residuals, groups)
    independent = float(len(signs) if groups is None else len(np.unique(groups)))
    spread = gains + losses - (gains - losses) ** 2
    rows = min(independent, spread / variance) if variance > 0 else independent
    return tango(gains * rows, losses * rows, rows, level, degrees)


def corrected_t(differences: Floats, train_rows: float, test_rows: float, level: float) -> Interval:
    """Nadeau and Bengio's (2003) interval for the mean of a score's difference over J folds.

    variance of the mean = (1/J + test_rows / train_rows) S^2, S^2 the folds' sample variance, with
    Student's t of J - 1 degrees: folds share training rows, so S^2 / J would be far too small.
    """
    folds = len(differences)
    mean = float(differences.mean())
    if folds < 2:
        return Interval(-1.0, 1.0)
    spread = np.sqrt((1 / folds + test_rows / train_rows) * differences.var(ddof=1))
    half = float(quantile(level, folds - 1) * spread)
    return Interval(max(-1.0, mean - half), min(1.0, mean + half))


def resampled_sums(columns: Floats, groups: IntArray | None, seed: int) -> Floats:
    """Column sums over bootstrap samples of whole groups: (rows, k) -> (draws, k).

    Rows (or groups) with the same columns are drawn together, as one multinomial count. 1,000 draws,
    fewer beyond 10,000 different ones (never below 200).
    """
    together = grouping(groups)
    if together is not None:
        totals = np.zeros((together.max() + 1, columns.shape[1]))
        np.add.at(totals, together, columns)
        columns = totals
    _, first, counts = np.unique(columns, axis=0, return_index=True, return_counts=True)
    # in order of appearance: swapping two models' columns must not change what is drawn
    order = np.argsort(first)
    patterns, counts = columns[first[order]], counts[order]
    draws = int(np.clip(10_000_000 // len(patterns), 200, 1000))
    rng, shares = np.random.default_rng(seed), counts / len(columns)
    return np.stack([rng.multinomial(len(columns), shares) @ patterns for _ in range(draws)])


def percentile(replicates: Floats, observations: int, level: float) -> Interval:
    """Hesterberg's (2015) expanded percentile interval of bootstrap replicates (draws,).

    The plain percentiles are too narrow for few observations (rows, or groups); the tail is
    Phi(-t sqrt(G / (G - 1))) with Student's t of G - 1 degrees.
    """
    from scipy.special import ndtr

    if observations < 2:
        return Interval(-1.0, 1.0)
    stretch = np.sqrt(observations / (observations - 1))
    tail = float(ndtr(-quantile(level, observations - 1) * stretch))
    low, high = np.quantile(replicates, [tail, 1 - tail])
    return Interval(float(low), float(high))
