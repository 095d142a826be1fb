"""Splitting rows into folds: stratified, whole groups together, the same for the same seed."""

import numpy as np

from graftwork.errors import RequestError, TooFewRows
from graftwork.rows import IntArray

Fold = tuple[IntArray, IntArray]
"""Positions of the training rows and of the held-out rows, each ascending."""


def choose_k(codes: IntArray) -> int:
    """How many folds suit these labels: 5, fewer (at least 2) where a class has fewer rows.

    Classes of a single row do not count: no fold can hold theirs out.
    """
    counts = np.bincount(codes)
    return int(np.clip(counts[counts > 1].min(initial=5), 2, 5))


def folds(codes: IntArray, groups: IntArray | None, k: int, seed: int) -> list[Fold]:
    """k (or, where there are too few rows, fewer) folds of rows with labels `codes` (rows,).

    groups: (rows,) ids or None; rows of one id are never parted. Each class is spread evenly. Every
    training part holds every class: rows that alone carry a class stay in training and are held out
    nowhere, so a class of one row is not assessed. Raises TooFewRows where nothing can be held out.
    """
    if k < 2:
        raise RequestError(f"{k} folds asked for; expected at least 2")
    rows = len(codes)
    together = np.arange(rows) if groups is None else np.unique(groups, return_inverse=True)[1]
    place = _deal(codes, together, k, np.random.default_rng(seed))[together]
    found = []
    for fold in range(k):
        held = place == fold
        lost = np.setdiff1d(codes, codes[~held])
        # a class must not vanish from training: its rows, with their groups, are not held out
        held &= ~np.isin(together, together[np.isin(codes, lost)])
        if held.any():
            found.append((np.flatnonzero(~held).astype(np.int64), np.flatnonzero(held).astype(np.int64)))
    if not found:
        raise TooFewRows(
            f"{rows} rows cannot be split into folds that keep every class in training; "
            "expected at least two rows (of different groups) in some class: add rows, or a test part"
        )
    return found


def repeated(codes: IntArray, groups: IntArray | None, k: int, repeats: int, seed: int) -> list[Fold]:
    """The folds of `repeats` independent shuffles, one after the other."""
    seeds = np.random.SeedSequence(seed).generate_state(repeats)
    return [fold for each in seeds for fold in folds(codes, groups, k, int(each))]


def turns(ids: IntArray) -> IntArray:
    """For each row (rows,), how many rows of the same id come before it."""
    order = np.argsort(ids, kind="stable")
    _, first, sizes = np.unique(ids[order], return_index=True, return_counts=True)
    turn = np.empty(len(ids), dtype=np.int64)
    turn[order] = np.arange(len(ids)) - np.repeat(first, sizes)
    return turn


def _deal(codes: IntArray, together: IntArray, k: int, rng: np.random.Generator) -> IntArray:
    """(groups,) the fold of each group: largest first, each where its classes are scarcest.

    Equally scarce: the smallest fold; equally small: at random.
    """
    classes = int(codes.max()) + 1
    total = np.bincount(codes, minlength=classes)
    sizes = np.bincount(together)
    lead = np.zeros(len(sizes), dtype=np.int64)
    lead[together] = codes
    shuffled = rng.permutation(len(sizes))
    # one class after another, so that a class's rows go round all folds before any gets a second
    order = shuffled[np.lexsort((lead[shuffled], -sizes[shuffled]))]
    members = np.split(np.argsort(together, kind="stable"), np.cumsum(sizes)[:-1])
    load, rows_in, place = np.zeros((k, classes)), np.zeros(k), np.zeros(len(sizes), dtype=np.int64)
    preference = rng.permutation(k)
    for group in order:
        mine = codes[members[group]]
        scarcity = load[:, mine].sum(1)
        fold = int(np.lexsort((preference, rows_in, scarcity))[0])
        np.add.at(load[fold], mine, 1 / total[mine])
        rows_in[fold] += len(mine)
        place[group] = fold
    return place
