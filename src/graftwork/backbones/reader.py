"""A process of its own that reads contents which nobody vouches for, under limits: what `serving` asks.

Contents come over a socket, which is its standard input, and inputs of a network go back as JSON and plain
arrays: whoever takes this process over through a decoder can send numbers, and nothing that is executed.
"""

import ctypes
import json
import os
import pickle
import resource
import signal
import sys
from dataclasses import dataclass
from functools import cached_property
from multiprocessing.connection import Connection
from pathlib import Path

from graftwork.backbones import images, preparation, restore
from graftwork.backbones.base import Backbone, BackboneState
from graftwork.backbones.served import Prepared, Reading
from graftwork.errors import GraftworkError, Unreadable
from graftwork.rows import Contents, Kind, Rows

READY = b"ready"
WARM = (images, preparation)  # imported before the first content comes


@dataclass(frozen=True)
class Whole:
    """Of a backbone without a network apart from its reading: what is prepared are the features."""

    kind: Kind
    state: BackboneState

    def __call__(self, content: bytes) -> Prepared:
        features = self._backbone.features(Rows(["it"], {self.kind: Contents(self.kind, [content])}))
        for reason in features.unreadable.values():
            raise Unreadable(reason)
        return Prepared.single(features.matrix)

    @cached_property
    def _backbone(self) -> Backbone:
        return restore(self.state)


def main(most_bytes: int) -> None:
    """Answer until the other end closes. most_bytes: beyond what a reading takes before any content."""
    _die_with_parent()
    connection = Connection(os.dup(0))
    quiet = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):  # decoders written in C complain there
        os.dup2(quiet, standard)
    connection.send_bytes(READY)
    readings: dict[int, Reading] = {}
    while True:
        try:
            number, pickled, stale = pickle.loads(connection.recv_bytes())
            content = connection.recv_bytes()
        except (EOFError, ConnectionError):
            return
        for one in stale:
            readings.pop(one, None)
        if pickled is not None:
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            readings[number] = pickle.loads(pickled)
            _limit(most_bytes)
        _answer(connection, readings[number], content)


def _answer(connection: Connection, reading: Reading, content: bytes) -> None:
    try:
        prepared = reading(content)
        arrays = [array for window in prepared.windows for array in window] + [prepared.lengths]
        shapes = [[array.dtype.str, array.shape] for array in arrays]
        told = {"windows": len(prepared.windows), "arrays": shapes}
    except Unreadable as error:
        told, arrays = {"unreadable": str(error)}, []
    except MemoryError:
        told, arrays = {"unreadable": "does not fit into memory"}, []
    except GraftworkError as error:
        told, arrays = {"failed": str(error)}, []
    except Exception as error:  # decoders raise anything, and the next content is another's
        told, arrays = {"unreadable": f"broke its decoder ({type(error).__name__}: {error})"[:300]}, []
    connection.send_bytes(json.dumps(told).encode())
    for array in arrays:
        connection.send_bytes(array.tobytes())


def _limit(most_bytes: int) -> None:
    """At most so much more address space than is taken now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + most_bytes
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))


def _die_with_parent() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends this process


if __name__ == "__main__":
    main(int(sys.argv[1]))
