"""In which order rows are learnt, and which are held out to know when to stop."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from graftwork.errors import RequestError
from graftwork.folds import folds
from graftwork.rows import IntArray

SHARED_POOL = 32
"""Batches whose rows are sorted by length together: enough to waste little, few enough to stay shuffled."""
MEMBERS = 8
"""Rows of one class in a batch of pairs, where there are more classes than a batch could hold so."""


def dealt(
    rows: IntArray,
    codes: IntArray,
    lengths: IntArray | None,
    batch: int,
    sampling: Literal["plain", "balanced", "paired"],
    seed: int,
    epoch: int,
) -> list[IntArray]:
    """The batches of one epoch, each an array of positions; a function of its arguments alone.

    rows: positions that are learnt from. Batches are of as even a size as possible; a batch is larger by
    a row or two rather than that one has a single row. Where rows differ in length, a batch holds rows of
    about one length. balanced: as many draws as there are rows, each class as often as any other. paired:
    as balanced, and a batch holds several rows of each of its classes, whatever their lengths; all rows
    are one batch if it takes them.
    """
    rng = np.random.default_rng([seed, epoch])
    if sampling == "paired":
        return _paired(rows, codes[rows], batch, batches_an_epoch(len(rows), batch, lengths is not None), rng)
    order = rng.permutation(rows) if sampling == "plain" else _balanced(rows, codes[rows], rng)
    if lengths is None:
        return np.array_split(order, _count(len(order), batch))
    found: list[IntArray] = []
    for pool in _pools(order, batch):
        alike = pool[np.argsort(lengths[pool], kind="stable")]
        found += np.array_split(alike, _count(len(alike), batch))
    return [found[i] for i in rng.permutation(len(found))]


def batches_an_epoch(rows: int, batch: int, alike: bool) -> int:
    """How many batches `dealt` makes of so many rows; alike: whether rows differ in length."""
    if not alike:
        return _count(rows, batch)
    return sum(_count(len(pool), batch) for pool in _pools(np.arange(rows), batch))


def _count(rows: int, batch: int) -> int:
    """Batches of as even a size as can be, at most `batch`; one larger rather than one of a single row."""
    count = -(-rows // batch)
    return count if batch == 1 else max(1, min(count, rows // 2))


def _pools(order: IntArray, batch: int) -> list[IntArray]:
    return np.array_split(order, -(-_count(len(order), batch) // SHARED_POOL))


def _balanced(rows: IntArray, codes: IntArray, rng: np.random.Generator) -> IntArray:
    """len(rows) draws: each class's rows go round as often as any other class's."""
    present = np.unique(codes)
    each = np.full(len(present), len(rows) // len(present))
    each[: len(rows) % len(present)] += 1
    parts = []
    for code, wanted in zip(present, each, strict=True):
        members = rows[codes == code]
        rounds = [rng.permutation(members) for _ in range(-(-wanted // len(members)))]
        parts.append(np.concatenate(rounds)[:wanted])
    return np.asarray(rng.permutation(np.concatenate(parts)), dtype=np.int64)


def _paired(
    rows: IntArray, codes: IntArray, batch: int, count: int, rng: np.random.Generator
) -> list[IntArray]:
    """`count` batches, each of as many rows of some classes drawn; a class's rows go round."""
    if len(rows) <= batch:
        return [rows]
    present = np.unique(codes)
    classes = min(len(present), max(2, batch // MEMBERS))
    turns = {int(code): _round(rows[codes == code], rng) for code in present}
    found = []
    for _ in range(count):
        chosen = rng.permutation(present)[:classes]
        drawn = [next(turns[int(code)]) for code in chosen for _ in range(batch // classes)]
        found.append(np.unique(drawn))  # a class of few rows gives each of them once
    return found


def _round(values: IntArray, rng: np.random.Generator) -> Iterator[int]:
    """The values in random order, for ever, each as often as any other."""
    while True:
        yield from rng.permutation(values)


def hold_out(codes: IntArray, groups: IntArray, share: float, seed: int) -> NDArray[np.bool_]:
    """(rows,) True for about `share` of the rows: stratified, groups whole, every class still learnt.

    None are held out where the rows do not allow it.
    """
    try:
        rows = folds(codes, groups, round(1 / share), seed)[0][1]
    except RequestError:
        rows = np.empty(0, np.int64)
    held = np.zeros(len(codes), dtype=bool)
    held[rows] = True
    return held
