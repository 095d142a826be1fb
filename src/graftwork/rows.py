"""Rows, targets and datasets: the data as every other module sees it.

A dataset knows nothing of models. Rows are read lazily: a column holds paths or texts and hands
out one row's content when asked, so memory does not grow with the size of the files.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import BufferedIOBase, BytesIO
from pathlib import Path
from typing import Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from graftwork.errors import RequestError, Unreadable

Kind = Literal["image", "text", "audio"]
PLURAL: Mapping[Kind, str] = {"image": "images", "text": "texts", "audio": "recordings"}
"""What rows of a kind are called in messages."""
Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")
IntArray = NDArray[np.int64]
UNLABELLED = -1
"""The code of a row without a label."""


class Column(Protocol):
    """One named field of all rows."""

    @property
    def kind(self) -> Kind: ...

    def __len__(self) -> int: ...

    def take(self, index: IntArray) -> Self:
        """The rows at `index`, in that order; nothing is read."""
        ...

    def read(self, i: int) -> bytes:
        """Row i's content: an encoded image or sound file, or a text in UTF-8.

        Raises Unreadable, with the reason, where it cannot be read.
        """
        ...

    def open(self, i: int) -> BufferedIOBase:
        """Row i's content as a file that can be read from anywhere in it, for contents larger than memory.

        Raises Unreadable, with the reason, where it cannot be opened.
        """
        ...

    def digest(self, i: int) -> bytes:
        """SHA-256 (32 bytes) of row i's content, never of its path or time; raises Unreadable."""
        ...


@dataclass(frozen=True)
class Texts:
    """Texts held in memory."""

    values: Sequence[str]
    kind: Kind = field(default="text", init=False)

    def __len__(self) -> int:
        return len(self.values)

    def take(self, index: IntArray) -> "Texts":
        return Texts([self.values[i] for i in index])

    def text(self, i: int) -> str:
        return self.values[i]

    def read(self, i: int) -> bytes:
        # surrogatepass: a text read from a broken file may hold lone surrogates; it still has a digest
        return self.values[i].encode("utf-8", "surrogatepass")

    def open(self, i: int) -> BufferedIOBase:
        return BytesIO(self.read(i))

    def digest(self, i: int) -> bytes:
        return hashlib.sha256(self.read(i)).digest()


@dataclass(frozen=True)
class Files:
    """Pictures or recordings on disk, read when asked for."""

    kind: Kind
    paths: Sequence[Path]
    _digests: dict[Path, bytes] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, index: IntArray) -> "Files":
        taken = Files(self.kind, [self.paths[i] for i in index])
        # one memo for all views of a dataset: a file's content is hashed once a run
        object.__setattr__(taken, "_digests", self._digests)
        return taken

    def read(self, i: int) -> bytes:
        with self.open(i) as file:
            try:
                return file.read()
            except OSError as error:
                raise Unreadable(f"cannot be read ({error.strerror or error})") from error

    def open(self, i: int) -> BufferedIOBase:
        try:
            file = self.paths[i].open("rb")
            if not file.seek(0, 2):
                file.close()
                raise Unreadable("is empty (0 bytes)")
            file.seek(0)
        except OSError as error:
            raise Unreadable(f"cannot be opened ({error.strerror or error})") from error
        return file

    def digest(self, i: int) -> bytes:
        known = self._digests.get(self.paths[i])
        if known is None:
            with self.open(i) as file:  # a piece at a time: a recording may be larger than memory
                known = self._digests[self.paths[i]] = hashlib.file_digest(file, "sha256").digest()
        return known


@dataclass(frozen=True)
class Contents:
    """Encoded pictures or recordings held in memory (from a Parquet column, arrays, an upload)."""

    kind: Kind
    contents: Sequence[bytes]

    def __len__(self) -> int:
        return len(self.contents)

    def take(self, index: IntArray) -> "Contents":
        return Contents(self.kind, [self.contents[i] for i in index])

    def read(self, i: int) -> bytes:
        if not self.contents[i]:
            raise Unreadable("is empty (0 bytes)")
        return self.contents[i]

    def open(self, i: int) -> BufferedIOBase:
        return BytesIO(self.read(i))

    def digest(self, i: int) -> bytes:
        return hashlib.sha256(self.read(i)).digest()


@dataclass(frozen=True)
class Rows:
    """Named fields of equal length, and the name by which the user knows each row."""

    names: Sequence[str]
    fields: Mapping[str, Column]

    def __post_init__(self) -> None:
        lengths = {len(column) for column in self.fields.values()}
        assert lengths == {len(self.names)}, f"columns of unequal length: {lengths}"

    def __len__(self) -> int:
        return len(self.names)

    def take(self, index: IntArray) -> "Rows":
        fields = {name: column.take(index) for name, column in self.fields.items()}
        return Rows([self.names[i] for i in index], fields)

    @property
    def column(self) -> Column:
        """The only field; raises RequestError where there are several (several fields come later)."""
        if len(self.fields) != 1:
            raise RequestError(f"these rows have fields {sorted(self.fields)}; expected exactly one")
        return next(iter(self.fields.values()))

    @property
    def kind(self) -> Kind:
        return self.column.kind


@dataclass(frozen=True)
class Target:
    """What is to be predicted: one label a row. `codes` index `labels`; UNLABELLED (-1) means none."""

    codes: IntArray
    labels: tuple[str, ...]

    def take(self, index: IntArray) -> "Target":
        return Target(self.codes[index], self.labels)


@dataclass(frozen=True)
class Split:
    """Which part each row belongs to.

    `origin` says where the split came from: "given" by the user, "made" here, or "none": there is
    no test part, and evaluation uses repeated folds over the training rows.
    """

    parts: NDArray[np.str_]
    origin: Literal["given", "made", "none"]

    def index(self, *parts: Part) -> IntArray:
        return np.flatnonzero(np.isin(self.parts, parts)).astype(np.int64)


@dataclass(frozen=True)
class Dataset:
    """Rows, one typed target, optional user groups, and one split.

    `groups[i]` is an integer id; rows of one id must stay on one side of every split. After
    `datasets.prepare` it joins the user's groups and the near-duplicates found.
    `notes` are sentences that the user should hear (skipped rows, merged labels, ...).
    """

    name: str
    rows: Rows = field(repr=False)
    target: Target = field(repr=False)
    split: Split = field(repr=False)
    groups: IntArray | None = field(default=None, repr=False)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def kind(self) -> Kind:
        return self.rows.kind

    @property
    def labels(self) -> tuple[str, ...]:
        return self.target.labels

    def take(self, index: IntArray) -> "Dataset":
        groups = None if self.groups is None else self.groups[index]
        split = replace(self.split, parts=self.split.parts[index])
        return replace(
            self, rows=self.rows.take(index), target=self.target.take(index), split=split, groups=groups
        )

    def few(self, per_class: int, seed: int) -> "Dataset":
        """Keep `per_class` random labelled training rows a class (all where there are fewer).

        Validation rows are dropped (they are labels too); test rows stay.
        """
        rng = np.random.default_rng(seed)
        train = self.split.index("train")
        kept = [self.split.index("test")]
        for code in range(len(self.labels)):
            members = train[self.target.codes[train] == code]
            kept.append(rng.permutation(members)[:per_class])
        return self.take(np.sort(np.concatenate(kept)))
