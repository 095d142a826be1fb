"""Which rows are looked at: one order of all rows of which every beginning is a fair sample."""

import numpy as np
from numpy.typing import NDArray

from graftwork.folds import turns
from graftwork.rows import IntArray

EACH = 2
"""Rows of every class that come before all others, so that the smallest sample can leave one out."""


def nested(codes: IntArray, groups: IntArray, seed: int) -> IntArray:
    """(rows,) positions in an order of which every beginning is stratified.

    Within a class, rows of new groups come before second rows of groups already there: a sample holds
    as many independent rows as it can. Larger samples contain the smaller ones.
    """
    drawn = np.random.default_rng(seed).permutation(len(codes))
    pairs = np.column_stack([codes, groups])[drawn]
    turn = turns(np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1))
    drawn = drawn[np.lexsort((turn, codes[drawn]))]
    place = turns(codes[drawn])
    share = (place + 0.5) / np.bincount(codes)[codes[drawn]]
    return np.asarray(drawn[np.argsort(np.where(place < EACH, place - EACH, share), kind="stable")])


def answerable(codes: IntArray, groups: IntArray) -> NDArray[np.bool_]:
    """Rows whose class has another group: a head that never saw a class cannot be asked for it."""
    pairs = np.unique(np.column_stack([codes, groups]), axis=0)
    return np.asarray((np.bincount(pairs[:, 0]) > 1)[codes])
