"""What a backbone is: rows -> features, plus a fingerprint. It never sees a label."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from graftwork.records import Features, Notify, silent
from graftwork.rows import Kind, Rows
from graftwork.sources import Source


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
