"""How far an input lies from the training rows, so that a model can answer "unknown".

The distance of a row is one minus its mean cosine similarity to its five nearest rows in a bank of at
most 1,000 training rows (nearest neighbours on normalised features: Sun et al. 2022). Of residual,
Mahalanobis, relative Mahalanobis and neighbour distances, this was the best or level on photos and
the best by far on sentences, and it works from a handful of rows; features are not centred, since
their common direction is itself a sign of the training data.

The threshold is a split-conformal quantile of the training rows' own distances, each measured without
the row's group, so that about `rate` of known rows are refused. With fewer than 1 / rate - 1 groups
no threshold can promise that: then nothing is called unknown.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from graftwork.errors import ArtefactError, FeatureWidth
from graftwork.folds import turns
from graftwork.rows import IntArray
from graftwork.spectrum import blocks

NEIGHBOURS = 5
BANK = 1_000
CALIBRATION = 2_000
CHUNK = 4_096
BLOCK = 64
"""Rows of a bank taken at once: in single precision they still fit a processor's cache."""
DIRECTIONS, SHORTLIST = 64, 16
ALONE = 250_000
"""Multiplications in a product that BLAS shares out among no threads. Where other work has the processors,
those threads wait for each other longer than the product takes; a shortlist may be rounded as it likes."""
ONE_BY_ONE = 8
"""Rows up to which a shortlist for each costs less than comparing all of them with the whole bank."""


class Bank(Protocol):
    """Rows of half precision: an array, or what gives rows as one does."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> NDArray[np.float16]: ...


@dataclass(frozen=True)
class Familiarity:
    """A bank of normalised training features (rows, width) float16, and the threshold on `distance`."""

    bank: Bank
    neighbours: int
    threshold: float

    @classmethod
    def fit(
        cls,
        features: NDArray[np.float32],
        codes: IntArray,
        groups: IntArray | None = None,
        seed: int = 0,
        rate: float = 0.05,
        unseen: NDArray[np.bool_] | None = None,
    ) -> Self:
        """Learn from training features (rows, width); of a memory map at most 3,000 rows are read.

        codes, groups: (rows,). Each class is represented as evenly as its rows allow. unseen: (rows,) True
        for rows that the backbone has not learnt from, by which alone the threshold is set; None for all:
        rows that a backbone was tuned on lie closer together than new ones ever will.
        """
        together = np.arange(len(codes)) if groups is None else groups
        order = np.random.default_rng(seed).permutation(len(codes))
        even = order[np.argsort(turns(codes[order]), kind="stable")]
        fresh = order if unseen is None else order[unseen[order]]
        kept, tried = np.sort(even[:BANK]), np.sort(fresh[:CALIBRATION])
        bank = _normalised(features[kept])
        # as it will be stored, so that a loaded model measures what the threshold was set on
        similar = _normalised(features[tried]) @ bank.astype(np.float16).astype(np.float32).T
        similar[together[tried][:, None] == together[kept]] = -np.inf
        others = np.isfinite(similar).sum(1)
        neighbours = int(np.clip(others.min(initial=NEIGHBOURS), 1, min(NEIGHBOURS, len(bank))))
        distances = _from_similar(similar, neighbours)
        return cls(bank.astype(np.float16), neighbours, _quantile(distances, together[tried], rate))

    def distance(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """(rows, width) -> (rows,) from 0 (the direction of training rows) to 2; raises FeatureWidth."""
        if features.shape[1] != self.bank.shape[1]:
            raise FeatureWidth(self.bank.shape[1], features.shape[1])
        found = np.empty(len(features))
        for start in range(0, len(features), CHUNK):
            chunk = slice(start, start + CHUNK)
            rows = _normalised(features[chunk])
            similar = np.empty((len(rows), len(self.bank)), np.float32)
            for block in blocks(len(self.bank), BLOCK):
                similar[:, block] = rows @ single(self.bank[block]).T
            found[chunk] = _from_similar(similar, self.neighbours)
        return found

    def unknown(self, features: NDArray[np.float32]) -> NDArray[np.bool_]:
        """(rows, width) -> (rows,) whether each row is further off than nearly all known rows are."""
        return np.asarray(self.distance(features) > self.threshold)

    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """What `from_arrays` needs, to be stored."""
        return {
            "bank": self.bank[:],
            "neighbours": np.array([self.neighbours], dtype=np.int64),
            "threshold": np.array([self.threshold], dtype=np.float64),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """The same again; raises ArtefactError where arrays are missing."""
        missing = {"bank", "neighbours", "threshold"} - set(arrays)
        if missing:
            raise ArtefactError(
                f"the arrays for unknown inputs lack {sorted(missing)}; the artefact is damaged; save again"
            )
        bank, neighbours, threshold = (arrays[name] for name in ("bank", "neighbours", "threshold"))
        shapes = bank.shape, neighbours.shape, threshold.shape
        if bank.dtype != np.float16 or bank.ndim != 2 or shapes[1:] != ((1,), (1,)):
            raise ArtefactError(
                f"the arrays for unknown inputs have shapes {shapes} and {bank.dtype}, expected (rows, "
                "width) float16, (1,) and (1,); the artefact is damaged; save again"
            )
        if not 1 <= neighbours[0] <= len(bank):
            raise ArtefactError(
                f"the arrays for unknown inputs ask for the {neighbours[0]} nearest of {len(bank)} rows; the "
                "artefact is damaged; save again"
            )
        return cls(bank, int(neighbours[0]), float(threshold[0]))


@dataclass(frozen=True)
class Shortlisted:
    """What `whole` says of a few rows at a time, sooner.

    A row is known for certain as soon as some rows of the bank are found to be near enough. They are looked
    for by what is left of the bank along a few random directions (Johnson and Lindenstrauss 1984), `placed`,
    (rows of the bank, directions); a row for which that finds too few is compared with the whole bank.
    """

    whole: Familiarity
    placed: NDArray[np.float32]

    @classmethod
    def of(cls, whole: Familiarity) -> Self:
        directions = _directions(whole.bank.shape[1])
        few = max(1, ALONE // directions.size)
        parts = (single(whole.bank[block]) @ directions for block in blocks(len(whole.bank), few))
        return cls(whole, np.concatenate([*parts]))

    def distance(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        return self.whole.distance(features)

    def unknown(self, features: NDArray[np.float32]) -> NDArray[np.bool_]:
        """See `Familiarity.unknown`."""
        return self.unknown_of(Placed.of(features))

    def unknown_of(self, asked: "Placed") -> NDArray[np.bool_]:
        """The same of rows that were prepared together with others."""
        bank, neighbours, features = self.whole.bank, self.whole.neighbours, asked.features
        small = len(bank) <= 2 * SHORTLIST or neighbours > SHORTLIST
        if len(features) > ONE_BY_ONE or features.shape[1] != bank.shape[1] or small:
            return self.whole.unknown(features)
        guessed = asked.along @ self.placed.T
        near = np.argpartition(guessed, -SHORTLIST, axis=1)[:, -SHORTLIST:]
        similar = np.stack([single(bank[near[i]]) @ row for i, row in enumerate(asked.rows)])
        unknown = _from_similar(similar, neighbours) > self.whole.threshold
        if unknown.any():
            unknown[unknown] = self.whole.unknown(features[unknown])
        return np.asarray(unknown)

    def arrays(self) -> Mapping[str, NDArray[Any]]:
        return self.whole.arrays()


@dataclass(frozen=True)
class Placed:
    """Features (rows, width), the same of length 1, and those along the directions of `Shortlisted`."""

    features: NDArray[np.float32]
    rows: NDArray[np.float32]
    along: NDArray[np.float32]

    @classmethod
    def of(cls, features: NDArray[np.float32]) -> Self:
        rows = _normalised(features)
        directions = _directions(rows.shape[1])
        few = max(1, ALONE // directions.size)
        along = [rows[block] @ directions for block in blocks(len(rows), few)]
        return cls(features, rows, np.concatenate([*along]) if along else rows @ directions)

    def take(self, index: IntArray) -> Self:
        return type(self)(self.features[index], self.rows[index], self.along[index])


@cache
def _directions(width: int) -> NDArray[np.float32]:
    """The same for every bank of a width: (width, directions), orthogonal, of length 1."""
    drawn = np.random.default_rng(0).normal(size=(width, min(width, DIRECTIONS)))
    return np.asarray(np.linalg.qr(drawn)[0], dtype=np.float32)


def single(half: NDArray[np.float16]) -> NDArray[np.float32]:
    """Finite numbers of half precision in single precision, exactly, three times as fast as `astype`."""
    bits = half.view(np.int16).astype(np.int32)
    bits <<= 13
    bits &= _SIGN_EXPONENT_FRACTION
    # the exponents' biases differ by 112; the product is right for subnormal numbers too
    values = bits.view(np.float32)
    values *= np.float32(2.0**112)
    return values


_SIGN_EXPONENT_FRACTION = np.array(0x8FFFE000, np.uint32).astype(np.int32)


def _normalised(features: NDArray[np.float32]) -> NDArray[np.float32]:
    rows = np.asarray(features, dtype=np.float32)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    # a row of zeros has no direction: similar to nothing
    return np.asarray(rows / np.maximum(lengths, np.finfo(np.float32).tiny), dtype=np.float32)


def _from_similar(similar: NDArray[np.float32], neighbours: int) -> NDArray[np.float64]:
    nearest = -np.partition(-similar, neighbours - 1, axis=1)[:, :neighbours]
    return np.asarray(1.0 - nearest.mean(1, dtype=np.float64))


def _quantile(distances: NDArray[np.float64], groups: IntArray, rate: float) -> float:
    """The distance that a new row of a new group exceeds with a probability of at most `rate`.

    The rank ceil((G + 1) (1 - rate)) of G groups, each group's rows sharing its weight.
    """
    _, codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.argsort(distances)
    mass = np.cumsum(1.0 / sizes[codes[order]])
    wanted = np.ceil((len(sizes) + 1) * (1 - rate) - 1e-9)
    if wanted > len(sizes):
        return float("inf")
    return float(distances[order][np.searchsorted(mass, wanted - 1e-6)])
