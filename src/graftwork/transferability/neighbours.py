"""Nearest neighbours by cosine, each row's own group left out."""

import numpy as np
from numpy.typing import NDArray

from graftwork.rows import IntArray
from graftwork.spectrum import Float64, blocks

MOST = 15
"""Neighbours asked at most; fewer where classes are small."""


def nearest(features: NDArray[np.float32], groups: IntArray, most: int = MOST) -> IntArray:
    """(N, most) the nearest rows of other groups, by cosine of the centred features; -1 where none is."""
    rows = features - features.mean(axis=0, dtype=np.float64).astype(np.float32)
    length, size = np.linalg.norm(rows, axis=1), np.linalg.norm(features, axis=1)
    pointing = length > 1e-6 * size.max(initial=0.0)  # what is left of a constant row is rounding
    rows /= np.where(pointing, length, 1.0)[:, None]
    most = min(most, len(rows) - 1)
    found = np.empty((len(rows), most), dtype=np.int64)
    for index in blocks(len(rows), 1024):
        cosine = rows[index] @ rows.T
        cosine[(groups[index, None] == groups) | ~(pointing[index, None] & pointing)] = -np.inf
        part = np.argpartition(-cosine, most - 1, axis=1)[:, :most]
        place = np.take_along_axis(cosine, part, 1)
        found[index] = np.where(np.isfinite(place), part, -1)
    return found


def knn(neighbours: IntArray, labellings: IntArray, classes: int) -> Float64:
    """Mean log-likelihood of the rows' labels by their neighbours' votes, one more vote shared by all.

    That vote goes to the classes by their share of the rows, so that nothing is impossible.
    labellings (L, N). Returns (L,), nats a row.
    """
    there = neighbours >= 0
    asked = there.sum(axis=1)
    answer = np.empty(len(labellings))
    for i, codes in enumerate(labellings):
        agree = ((codes[neighbours] == codes[:, None]) & there).sum(axis=1)
        share = np.bincount(codes, minlength=classes)[codes] / len(codes)
        answer[i] = np.log((agree + share) / (asked + 1.0)).mean()
    return answer
