"""Does anything stand out? One p for all scores of all sources together."""

from collections.abc import Sequence

import numpy as np

from graftwork.spectrum import Float64
from graftwork.transferability import Separation

FLOOR = 1e-3
"""Part of a score's whole range below which its spread under shuffled labels is not believed."""


def standing_out(found: Sequence[Sequence[Separation]]) -> float:
    """p of the strongest of all scores of all sources, all against the same shufflings.

    Westfall and Young (1993): the largest of all comparable scores under the true labels, against the
    largest under each shuffling. Exact whatever the scores' laws and however they hang together, as
    every labelling, the true one too, is treated alike. NaN without shufflings.
    """
    table = np.array([[score.value, *score.null] for scores in found for score in scores])
    if table.shape[1] < 2:
        return float("nan")
    strongest = comparable(table).max(axis=0)
    return float(np.mean(strongest >= strongest[0] - 1e-9 * abs(strongest[0])))


def comparable(table: Float64) -> Float64:
    """(scores, labellings) on one scale: how far each lies above the other labellings' median.

    The unit is the upper root-mean-square deviation of the others: null laws are skewed (log evidence
    hardly falls below its floor but rises far above it), and their standard deviation would let the
    most skewed score decide alone.
    """
    labellings = table.shape[1]
    others = np.array([np.delete(table, one, axis=1) for one in range(labellings)])
    middle = np.median(others, axis=2)
    above = np.maximum(others - middle[:, :, None], 0.0)
    spread = np.sqrt(2.0 * (above**2).mean(axis=2))
    least = np.maximum(FLOOR * np.ptp(table, axis=1), np.finfo(np.float64).tiny)
    return np.asarray((table - middle.T) / np.maximum(spread.T, least[:, None]))
