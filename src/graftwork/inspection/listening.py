"""Hearing every recording once: what cannot be decoded, what is silent, repeated, or of an odd length."""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from graftwork.backbones.base import Backbone
from graftwork.datasets.duplicates import Pairs, alike, near_recordings
from graftwork.errors import Unreadable
from graftwork.inspection.record import Recordings
from graftwork.records import Notify
from graftwork.rows import Dataset, IntArray

LONG = 120.0
"""Seconds; of longer recordings most backbones hear parts only."""
_SILENT = -90.0
"""Decibels below full scale, the loudest point of a recording: below the rounding of 16-bit samples."""


def firsts_of(digests: Sequence[bytes | None]) -> IntArray:
    """Positions of the first row of each content."""
    repeated = set(alike(digests)[:, 1].tolist())
    return np.array([i for i, d in enumerate(digests) if d is not None and i not in repeated], dtype=np.int64)


def listen(
    dataset: Dataset,
    digests: Sequence[bytes | None],
    reasons: dict[int, str],
    remember: Callable[[Backbone], Backbone],
    notify: Notify,
) -> tuple[Pairs, Recordings]:
    """(near pairs, what else was heard); adds to `reasons` what cannot be decoded.

    The features are those that `classical` learns from: with a store, they are computed once.
    """
    from graftwork.backbones.logmel import BLOCKS, CEPSTRA, SPANS, LogMel

    index = np.flatnonzero([digest is not None for digest in digests])
    seen = remember(LogMel()).features(dataset.rows.take(index), notify)
    reasons.update({int(index[i]): reason for i, reason in seen.unreadable.items()})
    heard = np.setdiff1d(np.arange(len(index)), list(seen.unreadable))
    octaves, _, loudest = seen.matrix[:, BLOCKS["whole"]].T
    silent = heard[10 * loudest[heard] <= _SILENT]
    firsts = np.intersect1d(np.flatnonzero(np.isin(index, firsts_of(digests))), heard)
    courses = np.asarray(seen.matrix[firsts, BLOCKS["course"]]).reshape(-1, SPANS, CEPSTRA)
    pairs = index[firsts][near_recordings(courses, octaves[firsts])]
    seconds = 2.0 ** octaves[heard].astype(np.float64)
    names = tuple(dataset.rows.names[index[i]] for i in silent)
    return pairs, _recordings(seconds, _rates(dataset, index[heard]), names)


def _recordings(seconds: np.ndarray, rates: dict[int, int], silent: tuple[str, ...]) -> Recordings:
    if not len(seconds):
        return Recordings(0.0, 0.0, 0.0, {}, (), 0)
    shortest, median, longest = (float(value) for value in np.quantile(seconds, [0, 0.5, 1]))
    return Recordings(shortest, median, longest, rates, silent, int(np.count_nonzero(seconds > LONG)))


def _rates(dataset: Dataset, index: IntArray) -> dict[int, int]:
    from graftwork.sounds import look

    rates: Counter[int] = Counter()
    for i in index:
        try:
            with dataset.rows.column.open(int(i)) as file:
                rates[look(file).rate] += 1
        except Unreadable:
            continue  # it was heard from the store and has gone since; whoever reads it next says so
    return dict(rates.most_common())
