"""A test part drawn from the training rows: stratified, whole groups on one side."""

import numpy as np
from numpy.typing import NDArray

from graftwork.rows import UNLABELLED, IntArray


def draw_test(codes: IntArray, groups: IntArray, share: float, seed: int) -> NDArray[np.bool_]:
    """(rows,) True for the rows of the test part: `share` of each class, as near as groups allow.

    codes: (rows,) label or UNLABELLED; groups: (rows,) ids, of which none is parted. Every class
    keeps at least one row outside. Where all groups are single rows, a class of n rows gives exactly
    round(share * n) of them. Groups without a labelled row are never drawn.
    """
    rng = np.random.default_rng(seed)
    ids = np.unique(groups, return_inverse=True)[1]
    classes = max(int(codes.max(initial=0)) + 1, 1)
    labelled = codes != UNLABELLED
    total = np.bincount(codes[labelled], minlength=classes)
    wanted = np.minimum(np.rint(share * total), np.maximum(total - 1, 0)).astype(np.int64)
    sizes = np.bincount(ids)
    test = np.zeros(len(codes), dtype=bool)
    # large groups first: single rows then fill each class up to what is wanted
    _draw_groups(test, codes, ids, wanted, total, rng.permutation(np.flatnonzero(sizes > 1)), sizes)
    single = labelled & (sizes[ids] == 1)
    for code in range(classes):
        still = wanted[code] - np.count_nonzero(test & (codes == code))
        members = np.flatnonzero(single & (codes == code))
        test[rng.permutation(members)[: max(still, 0)]] = True
    return test


def _draw_groups(
    test: NDArray[np.bool_],
    codes: IntArray,
    ids: IntArray,
    wanted: IntArray,
    total: IntArray,
    shuffled: IntArray,
    sizes: IntArray,
) -> None:
    """Mark the groups, largest first, that bring the classes nearer to what is wanted."""
    order = np.argsort(ids, kind="stable")
    members = np.split(order, np.cumsum(sizes)[:-1])
    missing, left = wanted.astype(np.float64), total.copy()
    for group in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        mine = codes[members[group]]
        inside, count = np.unique(mine[mine != UNLABELLED], return_counts=True)
        before, after = missing[inside], missing[inside] - count
        nearer = np.sum((after**2 - before**2) / total[inside]) < 0
        if nearer and np.all(left[inside] - count >= 1):
            test[members[group]] = True
            missing[inside], left[inside] = after, left[inside] - count
