"""What a backbone offers so that a server may keep feeding its network, one row after another."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from graftwork.backbones.base import Backbone
    from graftwork.backbones.engine import Arrays, Runner


@dataclass(frozen=True)
class Prepared:
    """The network's inputs of one row. windows: one, or several of a long recording, each (1, ...).

    lengths: (windows,) how much each counts.
    """

    windows: Sequence[tuple[NDArray[Any], ...]]
    lengths: NDArray[np.float64]

    @classmethod
    def single(cls, *arrays: NDArray[Any]) -> "Prepared":
        """Of a row that is one window."""
        return cls([arrays], np.ones(1))


class Reading(Protocol):
    """Turns one content into inputs. It can be pickled, and needs neither torch nor the network."""

    def __call__(self, content: bytes) -> Prepared:
        """Raises Unreadable."""
        ...


@dataclass(frozen=True, eq=False)
class Added:
    """What one of the backbones that share a network brings to its rows. key: alike where the numbers are.

    numbers: (1, count) float32; None for a network that takes nothing but rows.
    """

    key: str = ""
    numbers: NDArray[np.float32] | None = None

    @property
    def nbytes(self) -> int:
        return 0 if self.numbers is None else self.numbers.nbytes


NOTHING = Added()


def beside(inputs: "Arrays", added: Sequence[Added]) -> "Arrays":
    """The inputs of some rows with what belongs to each: (*inputs, whose (rows,) int64, (keys, count))."""
    distinct = {one.key: one.numbers for one in added if one.numbers is not None}
    if not distinct:
        return inputs
    places = {key: i for i, key in enumerate(distinct)}
    numbers = [one for one in distinct.values() if one is not None]
    whose = np.array([places[one.key] for one in added], dtype=np.int64)
    return *inputs, whose, numbers[0] if len(numbers) == 1 else np.concatenate(numbers)


@runtime_checkable
class Kept(Protocol):
    """A backbone whose network this process keeps for whoever asks for it next."""

    def release(self) -> None:
        """Keep it no longer; whoever still has the network keeps it."""
        ...


@runtime_checkable
class Served(Protocol):
    """A backbone whose rows may be prepared in one place and run in another."""

    def runner(self) -> "Runner":
        """The network, behind a queue of the caller's own: nobody else waits for a run to end."""
        ...

    def together(self, inputs: "Arrays") -> int:
        """How many rows of such inputs go through the network best at once; they are joined end to end."""
        ...

    def joined(self, features: NDArray[np.float32], lengths: NDArray[np.float64]) -> NDArray[Any]:
        """(windows, width) features of one row's windows -> (width,)."""
        ...


@runtime_checkable
class Sharing(Served, Protocol):
    """A backbone whose network may run rows of others too, each with what its own backbone adds."""

    @property
    def shared(self) -> str:
        """Hex digest of all but what is added; the fingerprint where nothing is."""
        ...

    @property
    def added(self) -> Added: ...


def network_of(backbone: "Backbone") -> str:
    """What names the network that runs its rows: the same for all that share it."""
    return backbone.shared if isinstance(backbone, Sharing) else backbone.fingerprint


def added_of(backbone: "Backbone") -> Added:
    return backbone.added if isinstance(backbone, Sharing) else NOTHING


@runtime_checkable
class ReadApart(Served, Protocol):
    """Pictures or recordings, which another process may read."""

    def reading(self) -> Reading: ...


@runtime_checkable
class ReadHere(Served, Protocol):
    """Texts."""

    def prepared(self, texts: Sequence[str]) -> Sequence[Prepared]: ...
