"""What an inspection found, as one frozen record."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from graftwork.rows import IntArray, Kind


@dataclass(frozen=True)
class Leak:
    """Rows of one part whose content is also in another; `examples` are pairs of row names."""

    part: str
    seen_in: str
    rows: int
    examples: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Repeats:
    """`within`: rows that repeat an earlier row of their own part; `leaks`: across parts."""

    within: int
    leaks: tuple[Leak, ...]


@dataclass(frozen=True)
class Recordings:
    """What can be said of recordings alone. Lengths in seconds; rates: samples a second -> recordings.

    silent: names of those without a sound in them; long: how many exceed two minutes.
    """

    shortest: float
    median: float
    longest: float
    rates: Mapping[int, int]
    silent: tuple[str, ...]
    long: int


@dataclass(frozen=True)
class Inspection:
    """What was found. `counts`: part -> label -> rows; `unreadable`: row name -> reason.

    imbalance: rows of the largest training class over the mean of the others. near: rows alike but
    not equal; oversized: sizes of sets of near-duplicates too large to be believed, which are not
    kept together. conflicts: equal or nearly equal contents under different labels, as (name, label)
    sets. absent: (part, label) without a row. elongated: share of pictures whose one side is more
    than half as long again as the other (None but for pictures). recordings: None but for recordings.
    clashes: labels that differ only by case or space. groups: (rows,) ids of duplicates, exact or near,
    for `prepare`.
    """

    name: str
    kind: Kind
    rows: int
    split_origin: str
    counts: Mapping[str, Mapping[str, int]]
    unlabelled: int
    unreadable: Mapping[str, str]
    imbalance: float
    exact: Repeats
    near: Repeats
    oversized: tuple[int, ...]
    conflicts: tuple[tuple[tuple[str, str], ...], ...]
    absent: tuple[tuple[str, str], ...]
    elongated: float | None
    recordings: Recordings | None
    clashes: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    unreadable_rows: tuple[int, ...] = field(repr=False)
    groups: IntArray = field(repr=False, compare=False)

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(next(iter(self.counts.values())))

    def to_json(self) -> dict[str, Any]:
        """Plain values for one JSON object; row positions and group ids are left out."""
        shown = asdict(replace(self, groups=np.empty(0, np.int64)))
        del shown["unreadable_rows"], shown["groups"]
        classes = list(self.labels)
        return {**shown, "classes": classes, "conflicts": shown["conflicts"][:100]}
