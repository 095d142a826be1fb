"""What a backbone is: rows -> features, plus a fingerprint. It never sees a label."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from graftwork.records import Features, Notify, silent
from graftwork.rows import IntArray, Kind, Rows
from graftwork.sources import Source

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn


@dataclass(frozen=True)
class BackboneState:
    """All that is needed to build a backbone again.

    `family` is the name under which the Family is registered, `config` is plain JSON, `arrays` is what
    was learnt (empty for an unchanged source), `source` where the shared weights come from (None for a
    backbone that needs no source).
    """

    family: str
    config: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    source: Source | None = None


@dataclass(frozen=True)
class Options:
    """How a source is asked to be opened; None leaves it to the source. Each family says what it knows.

    pooling: how a network's last layer becomes one vector a row. resize: crop or fit (pictures).
    runtime: openvino, torch or cuda; None for the fastest that agrees with float32 torch.
    """

    pooling: str | None = None
    resize: str | None = None
    runtime: str | None = None


class Family(Protocol):
    """What is registered under "backbones": a module (or object) that builds the backbones of one family.

    A family that no source opens (descriptors, thumbnails) has `restore` alone.
    """

    def open_source(
        self, source: Source, sample: Rows | None, options: Options, notify: Notify
    ) -> "Backbone":
        """See `open_backbone`; raises RequestError for an option that the family does not know."""
        ...

    def restore(self, state: BackboneState) -> "Backbone": ...


class Backbone(Protocol):
    """Shared layers, ready to run."""

    @property
    def kind(self) -> Kind: ...

    @property
    def fingerprint(self) -> str:
        """Hex digest that changes whenever the numbers could."""
        ...

    @property
    def width(self) -> int:
        """Features a row, flattened."""
        ...

    def features(self, rows: Rows, notify: Notify = silent) -> Features:
        """Features of each row, float32, in the order given.

        Rows that cannot be read or decoded are named in `Features.unreadable` and hold NaN.
        """
        ...

    def state(self) -> BackboneState: ...


@runtime_checkable
class Remarking(Protocol):
    """A backbone that can say how rows suit it, such as what share of their words it knows."""

    def remarks(self, rows: Rows) -> tuple[str, ...]:
        """Sentences for the user, about all of `rows`; labels play no part."""
        ...


Keep = Callable[["Backbone"], "Backbone"]


class View(Protocol):
    """One way to distort rows, always the same for the same content."""

    @property
    def key(self) -> Mapping[str, Any]:
        """Plain JSON of all that shapes the distortion."""
        ...

    def __call__(self, inputs: tuple[NDArray[Any], ...], digest: bytes) -> tuple[NDArray[Any], ...]:
        """One row's network inputs (rows first), distorted; every draw follows from its content's digest."""
        ...


@dataclass(frozen=True)
class Cut:
    """network: takes `examples`' batches -> features. learnable: the names of what may learn in it.

    block: the first that may learn, by its full name; None for the whole network. prefix: what a name
    in `network` has before the name that the backbone itself gives the same tensor.
    """

    block: str | None
    network: "nn.Module"
    examples: "Examples"
    learnable: frozenset[str]
    prefix: str = ""


class Examples(Protocol):
    """The network inputs of some rows, prepared once and kept for as many passes as a training makes."""

    @property
    def lengths(self) -> IntArray | None:
        """(rows,) steps of each row's input where rows differ in length, such as tokens; else None."""
        ...

    def batch(self, index: IntArray, generator: "Generator | None" = None) -> "tuple[Tensor, ...]":
        """What the network takes for the rows at `index`, rows first.

        Pictures are float NHWC in 0..255; texts are token numbers and their mask, padded to the longest;
        sounds are samples (rows, longest) or spectra, perhaps with the steps of each that hold sound.
        generator: given in training alone; whatever distorts rows by chance draws from it.
        """
        ...


@runtime_checkable
class Tunable(Backbone, Protocol):
    """A backbone whose network may learn."""

    @property
    def frame(self) -> str:
        """How its pictures are framed: "whole", "ink" on a ground, or "sound", a recording's spectrogram."""
        ...

    def network(self) -> "nn.Module":
        """A torch module of the caller's own in eval mode, float32: `Examples.batch` -> (rows, width)."""
        ...

    def blocks(self) -> tuple[str, ...]:
        """Names of its blocks in the order in which they run; none where it cannot be parted."""
        ...

    def examples(self, rows: Rows, notify: Notify = silent) -> Examples:
        """Raises Unreadable, naming the first row that cannot be read."""
        ...

    def cut(
        self,
        block: str | None,
        rows: Rows,
        views: "Sequence[View | None]",
        keep: "Keep",
        notify: Notify = silent,
    ) -> "Cut":
        """The network parted before `block`, and what enters it for these rows; None: the whole.

        views: how the rows are distorted, None for not at all, which comes first. keep: makes a
        backbone remember. Raises RequestError, listing the blocks, where the network has no such block
        or cannot be parted there.
        """
        ...

    def tuned(
        self, learnt: Mapping[str, NDArray[np.float32]], sample: Rows | None, settle: bool = True
    ) -> "Backbone":
        """The same backbone with these tensors (see learnt.py) instead of the source's; earlier ones go.

        sample: rows on which this machine's path is settled anew, as the numbers are others. settle: False
        for a look at some hundred rows at most, where comparing paths would cost more than it saves.
        """
        ...


@runtime_checkable
class Layered(Backbone, Protocol):
    """A backbone that can give what several of its layers say of a row, in one run."""

    def blocks(self) -> tuple[str, ...]:
        """See `Tunable.blocks`."""
        ...

    def layered(self, blocks: Sequence[str], sample: Rows | None, notify: Notify = silent) -> "Backbone":
        """The variation whose features are what comes out of each of these blocks, pooled, then its own.

        sample: rows on which this machine's path is settled. `parts` of the result tells them apart.
        Raises RequestError, listing the blocks, for one that it does not have.
        """
        ...

    @property
    def parts(self) -> tuple[tuple[str, int], ...]:
        """(name, width) of each layer's features in the order of their columns; one where there is one."""
        ...


@runtime_checkable
class Remembering(Protocol):
    """A backbone that keeps the features of another."""

    @property
    def backbone(self) -> Backbone: ...

    def beside(self, other: Backbone) -> Backbone:
        """`other`, its features kept in the same place."""
        ...


def plain(backbone: Backbone) -> Backbone:
    """The backbone itself, without what remembers its features."""
    return plain(backbone.backbone) if isinstance(backbone, Remembering) else backbone


def beside(backbone: Backbone, other: Backbone) -> Backbone:
    """`other`, its features remembered where `backbone`'s are, if they are."""
    return backbone.beside(other) if isinstance(backbone, Remembering) else other


def labelled_matrix(backbone: Backbone, rows: Rows, notify: Notify = silent) -> NDArray[np.float32]:
    """The feature matrix (rows, width) of rows that must all be readable.

    Raises Unreadable, naming the first row that is not; RequestError where the same is wrong with all.
    """
    from graftwork.errors import RequestError, Unreadable

    features = backbone.features(rows, notify)
    reasons = set(features.unreadable.values())
    if len(features.unreadable) == len(rows) > 1 == len(reasons):
        raise RequestError(
            f"each of the {len(rows)} rows {reasons.pop()}: that is the source's fault rather than theirs; "
            "try another with --source"
        )
    for i, reason in features.unreadable.items():
        raise Unreadable(f"{rows.names[i]} {reason}; remove or replace it, then run again")
    return features.matrix
