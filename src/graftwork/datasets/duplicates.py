"""Rows that are the same, or nearly: what must stay on one side of every split."""

import unicodedata
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.rows import IntArray

Pairs = NDArray[np.int64]
"""(pairs, 2) positions of rows that belong together."""

_MIN_CORRELATION = 0.99
# 28 x 28 digits correlate at 0.99 without being copies: a small picture holds little to compare
_MIN_CORRELATION_SMALL = 0.999
_NEAREST, _NEAREST_IN_CROWD = 10, 64
_MAX_COLOUR_DISTANCE = 0.06
_MIN_CONTRAST = 0.02
_FREQUENCIES = 5

_MIN_SOUND_CORRELATION = 0.997
_MAX_OCTAVES_APART = 0.03
_MIN_MOVEMENT = 20.0
_TIMES, _PITCHES = 5, 6

_MIN_JACCARD = 0.9
_LONG = 50
_SHINGLE = 5
_BANDS, _ROWS_A_BAND = 8, 5
_BATCH = 1 << 20


def alike(keys: Sequence[Hashable]) -> Pairs:
    """Each row paired with the first row of an equal key; None equals nothing."""
    first: dict[Hashable, int] = {}
    pairs = [(first.setdefault(key, i), i) for i, key in enumerate(keys) if key is not None]
    return _as_pairs([(a, b) for a, b in pairs if a != b])


def components(rows: int, *pairs: Pairs) -> IntArray:
    """(rows,) the id of each row's connected component, numbered by first appearance."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = np.concatenate([_as_pairs([]), *pairs])
    graph = coo_array((np.ones(len(edges), dtype=bool), (edges[:, 0], edges[:, 1])), shape=(rows, rows))
    found = np.asarray(connected_components(graph, directed=False)[1])
    _, first, ids = np.unique(found, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[ids].astype(np.int64)


def near_pictures(greys: NDArray[np.uint8], colours: NDArray[np.uint8], small: NDArray[np.bool_]) -> Pairs:
    """Pairs of pictures that are copies of one another but for size, compression or brightness.

    greys: (rows, side, side), colours: (rows, m) mean colours of a coarse grid, small: (rows,) whether
    the picture itself is no larger than a thumbnail. The low frequencies of the grey picture, scaled
    to unit length (a perceptual hash that is not cut to bits), propose pairs through a k-d tree; as
    they are an orthonormal projection, no pair is lost (crowds aside, see _within). A correlation of at
    least 0.99 (0.999 for small ones) of the whole thumbnails and close colours confirm a pair.
    Pictures with hardly any contrast have nothing to compare and are never paired.
    """
    contrast = np.concatenate([np.empty(0), *(_grey_units(chunk)[1] for chunk in _chunks(greys))])
    kept = np.flatnonzero(contrast > _MIN_CONTRAST)
    if len(kept) < 2:
        return _as_pairs([])
    basis = _cosines(greys.shape[1], _FREQUENCIES)
    low = np.concatenate([_low_frequencies(_grey_units(greys[chunk])[0], basis) for chunk in _chunks(kept)])
    large = np.flatnonzero(~small[kept])
    proposed = [large[_within(low[large], _MIN_CORRELATION)]]
    if len(large) < len(kept):
        proposed.append(_within(low, _MIN_CORRELATION_SMALL))
    unique = np.unique(kept[np.concatenate(proposed)], axis=0)
    found = [_confirmed(chunk, greys, colours, small) for chunk in _chunks(unique)]
    return np.concatenate([_as_pairs([]), *found])


def near_recordings(courses: NDArray[np.float32], octaves: NDArray[np.float32]) -> Pairs:
    """Pairs of recordings that are copies of one another but for loudness, sample rate or file format.

    courses: (rows, spans, coefficients) mel cepstra over equal spans of time, in decibels; octaves:
    (rows,) logarithm of the length to base 2. What stands still (a hum, rain, the voice) is taken off:
    how a recording moves must correlate by 0.997, and its length agree within 2%. A slow and low part
    of the movement, an orthonormal projection, proposes pairs through a k-d tree. Recordings that
    hardly move have nothing to compare and are never paired.
    """
    moving = courses - courses.mean(axis=1, keepdims=True)
    size = np.linalg.norm(moving, axis=(1, 2))
    kept = np.flatnonzero(size > _MIN_MOVEMENT)
    units = moving[kept] / size[kept, None, None]
    slow = _cosines(courses.shape[1], _TIMES)[1:] @ units[:, :, :_PITCHES]
    pairs = _within(slow.reshape(len(kept), (_TIMES - 1) * _PITCHES), _MIN_SOUND_CORRELATION)
    a, b = pairs[:, 0], pairs[:, 1]
    near = np.einsum("nij,nij->n", units[a], units[b]) >= _MIN_SOUND_CORRELATION
    near &= np.abs(octaves[kept[a]] - octaves[kept[b]]) <= _MAX_OCTAVES_APART
    return np.asarray(kept[pairs[near]], dtype=np.int64)


def near_texts(texts: Sequence[str]) -> Pairs:
    """Pairs of texts equal but for case, width, space and punctuation, or (from 50 characters on)
    whose sets of five-character shingles overlap by nine tenths (Jaccard).

    MinHash in 8 bands of 5 (Broder 1997) proposes: it finds a pair at 0.9 with probability 0.999.
    """
    plain = [_plain(text) for text in texts]
    equal = alike(plain)
    # one of each set of equals stands for all of them
    stands = np.setdiff1d(np.arange(len(texts)), equal[:, 1])
    long = [int(i) for i in stands if len(plain[i]) >= _LONG]
    if len(long) < 2:
        return equal
    bands = np.concatenate([_band_keys([plain[i] for i in batch]) for batch in _batches(long, plain)])
    proposed = {pair for column in bands.T for pair in _neighbours(column)}
    shingles: dict[int, NDArray[np.uint64]] = {}

    def of(i: int) -> NDArray[np.uint64]:
        if i not in shingles:
            shingles[i] = np.unique(_shingles(plain[i]))
        return shingles[i]

    similar = [(long[a], long[b]) for a, b in sorted(proposed) if _jaccard(of(long[a]), of(long[b]))]
    return np.concatenate([equal, _as_pairs(similar)])


def _as_pairs(pairs: Sequence[tuple[int, int]]) -> Pairs:
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _chunks(array: NDArray[np.generic], size: int = 4096) -> Iterator[Any]:
    for start in range(0, len(array), size):
        yield array[start : start + size]


# Pictures


def _grey_units(greys: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(pictures centred and scaled to unit length, their contrast: standard deviation in [0, 1])."""
    flat = greys.reshape(len(greys), -1).astype(np.float32) / np.float32(255)
    flat -= flat.mean(1, keepdims=True)
    norm = np.linalg.norm(flat, axis=1)
    units = flat / np.maximum(norm, np.float32(1e-6))[:, None]
    return units.reshape(greys.shape), norm / np.float32(np.sqrt(flat.shape[1]))


def _cosines(side: int, frequencies: int) -> NDArray[np.float32]:
    """The first rows of the orthonormal cosine transform (DCT-II), (frequencies, side)."""
    k, x = np.arange(frequencies)[:, None], np.arange(side)[None]
    rows = np.cos(np.pi * k * (2 * x + 1) / (2 * side)) * np.sqrt(2 / side)
    rows[0] /= np.sqrt(2)
    return np.asarray(rows, dtype=np.float32)


def _low_frequencies(units: NDArray[np.float32], basis: NDArray[np.float32]) -> NDArray[np.float32]:
    # the constant term is zero after centring
    return np.asarray((basis @ units @ basis.T).reshape(len(units), -1)[:, 1:])


def _within(points: NDArray[np.float32], correlation: float) -> Pairs:
    """Pairs of points as near as pictures of that correlation are; of a crowd, each with its nearest.

    All pairs would be too many: ten thousand frames of one film have fifty million.
    """
    from scipy.spatial import KDTree

    if len(points) < 2:
        return _as_pairs([])
    # unit vectors of correlation r lie sqrt(2 - 2 r) apart; a little more for rounding
    radius = 1.001 * np.sqrt(2 * (1 - correlation))
    tree = KDTree(points)
    near = np.asarray(tree.query(points, k=_NEAREST, distance_upper_bound=radius)[1])
    nobody = len(points)  # stands where a point has fewer neighbours
    crowded = np.flatnonzero(near[:, -1] != nobody)
    pairs = [_to_neighbours(np.arange(len(points)), near, nobody)]
    if len(crowded):
        near = np.asarray(tree.query(points[crowded], k=_NEAREST_IN_CROWD, distance_upper_bound=radius)[1])
        pairs.append(_to_neighbours(crowded, near, nobody))
    return np.unique(np.concatenate(pairs), axis=0)


def _to_neighbours(rows: IntArray, near: IntArray, nobody: int) -> Pairs:
    pairs = np.stack([np.repeat(rows, near.shape[1]), near.ravel()], axis=1)
    return np.sort(pairs[(pairs[:, 1] != nobody) & (pairs[:, 0] != pairs[:, 1])], axis=1)


def _confirmed(
    pairs: Pairs, greys: NDArray[np.uint8], colours: NDArray[np.uint8], small: NDArray[np.bool_]
) -> Pairs:
    a, b = pairs[:, 0], pairs[:, 1]
    correlation = np.einsum("nij,nij->n", _grey_units(greys[a])[0], _grey_units(greys[b])[0])
    difference = (colours[a].astype(np.float32) - colours[b].astype(np.float32)) / np.float32(255)
    distance = np.sqrt((difference**2).mean(1))
    needed = np.where(small[a] | small[b], _MIN_CORRELATION_SMALL, _MIN_CORRELATION)
    return np.asarray(pairs[(correlation >= needed) & (distance <= _MAX_COLOUR_DISTANCE)])


# Texts


class _Plain(dict[int, str | None]):
    """For str.translate: letters, digits and symbols stay; space, punctuation and controls go."""

    def __missing__(self, code: int) -> str | None:
        gone = unicodedata.category(chr(code))[0] in "PZC"
        self[code] = None if gone else chr(code)
        return self[code]


_PLAIN = _Plain()


def _plain(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    # a text of nothing but punctuation is itself
    return folded.translate(_PLAIN) or folded.strip()


def _batches(index: Sequence[int], texts: Sequence[str]) -> Iterator[list[int]]:
    """Positions in order, about a million characters at a time."""
    batch: list[int] = []
    size = 0
    for i in index:
        batch.append(i)
        size += len(texts[i])
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _shingles(text: str) -> NDArray[np.uint64]:
    """A 64-bit hash of every run of five characters."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    length = len(codes) - _SHINGLE + 1
    hashes = np.zeros(length, dtype=np.uint64)
    for offset in range(_SHINGLE):
        hashes = hashes * np.uint64(0x9E3779B97F4A7C15) + codes[offset : offset + length]
    return hashes ^ (hashes >> np.uint64(29))


def _band_keys(texts: Sequence[str]) -> NDArray[np.uint64]:
    """(texts, bands) one hash of each band of the MinHash signature."""
    pieces = [_shingles(text) for text in texts]
    starts = np.cumsum([0, *map(len, pieces)])[:-1]
    shingles = np.concatenate(pieces)
    rng = np.random.default_rng(0)
    keys = np.zeros((len(texts), _BANDS), dtype=np.uint64)
    for band in range(_BANDS):
        for _ in range(_ROWS_A_BAND):
            factor, shift = rng.integers(1, 2**63, 2, dtype=np.uint64)
            mixed = (shingles ^ shift) * (factor | np.uint64(1))
            # the high bits of a product are the well-mixed ones
            lowest = np.minimum.reduceat(mixed >> np.uint64(20), starts)
            keys[:, band] = keys[:, band] * np.uint64(0x100000001B3) + lowest
    return keys


def _neighbours(keys: NDArray[np.uint64]) -> Iterator[tuple[int, int]]:
    """Rows of equal key, each with the first of its bucket and with the one before: linear in rows."""
    buckets: defaultdict[int, list[int]] = defaultdict(list)
    for i, key in enumerate(keys.tolist()):
        buckets[key].append(i)
    for members in buckets.values():
        for before, i in pairwise(members):
            yield members[0], i
            yield before, i


def _jaccard(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> bool:
    both = len(np.intersect1d(a, b, assume_unique=True))
    return both >= _MIN_JACCARD * (len(a) + len(b) - both)
