"""What crosses the borders of serving."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from graftwork.rows import Kind

Item = bytes | str
"""One input: an encoded picture or recording, or a text."""


@dataclass(frozen=True)
class Replies:
    """One task's answers to all inputs of a request.

    probabilities: (inputs, classes), NaN where unreadable. unreadable: position -> reason.
    """

    labels: Sequence[str]
    probabilities: NDArray[np.float64]
    unknown: NDArray[np.bool_]
    unreadable: Mapping[int, str]


@dataclass(frozen=True)
class Held:
    """One network in memory. bytes: what its weights take. last: seconds since it was last asked.

    fingerprint: of its backbone; of the network alone where backbones share it that add low-rank pairs of
    their own. adapters: how many of those are in memory; their bytes are their tasks'.
    """

    fingerprint: str
    source: str | None
    kind: Kind
    runtime: str
    precision: str
    width: int
    bytes: int
    tasks: int
    adapters: int
    rows: int
    last: float


@dataclass(frozen=True)
class Shelved:
    """An artefact found under ROOT, as its manifest describes it; nothing of it is loaded or verified.

    name: its path under ROOT without the suffix. digest: of the manifest.
    """

    name: str
    folder: Path
    digest: str
    kind: Kind
    labels: tuple[str, ...]
    strategy: str
    source: str | None
    fingerprint: str
    created: str
    bytes: int
