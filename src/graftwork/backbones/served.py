"""What a backbone offers so that a server may keep feeding its network, one row after another."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
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
class ReadApart(Served, Protocol):
    """Pictures or recordings, which another process may read."""

    def reading(self) -> Reading: ...


@runtime_checkable
class ReadHere(Served, Protocol):
    """Texts."""

    def prepared(self, texts: Sequence[str]) -> Sequence[Prepared]: ...
