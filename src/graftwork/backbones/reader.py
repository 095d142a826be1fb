"""A process of its own that reads contents which nobody vouches for, under limits: what `serving` asks.

It is asked over a socket, its standard input. A network's inputs go back through memory that both ends
share, and what they are as JSON: whoever takes this process over through a decoder can send numbers, and
nothing that is executed.
"""

import ctypes
import json
import mmap
import os
import pickle
import resource
import signal
import struct
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from graftwork.backbones import images, preparation, restore
from graftwork.backbones.base import Backbone, BackboneState
from graftwork.backbones.served import Kept, Prepared, Reading
from graftwork.errors import GraftworkError, Unreadable, WorkError
from graftwork.rows import Contents, Kind, Rows

READY = b"ready"
LEARN, FORGET, READ = b"learn.", b"forget", b"read.."
"""What a message begins with; the reading's number follows, then what is to be learnt or read."""
NUMBER = struct.Struct("<q")
AREA = 64_000_000
"""Bytes of the shared memory; pages that nothing was written to take none."""
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

    def release(self) -> None:
        """Let go of what the process keeps of its network."""
        opened = vars(self).get("_backbone")  # not opened for this alone: it may be what cannot be
        if isinstance(opened, Kept):
            opened.release()

    @cached_property
    def _backbone(self) -> Backbone:
        return restore(self.state)


def main(area: int, most_bytes: int) -> None:
    """Answer until the other end closes.

    area: descriptor of the shared memory. most_bytes: beyond what a reading takes before any content.
    """
    _die_with_parent()
    connection, shared = Connection(os.dup(0)), mmap.mmap(area, AREA)
    quiet = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):  # decoders written in C complain there
        os.dup2(quiet, standard)
    connection.send_bytes(READY)
    readings: dict[int, Reading] = {}
    while True:
        try:
            message = memoryview(connection.recv_bytes())
        except (EOFError, ConnectionError):
            return
        verb, rest = bytes(message[: len(READ)]), message[len(READ) :]
        (number,), content = NUMBER.unpack_from(rest), rest[NUMBER.size :]
        if verb == LEARN:
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            readings[number] = _learnt(content)
            _limit(most_bytes)
            connection.send_bytes(READY)
        elif verb == FORGET:
            forgotten = readings.pop(number)
            if isinstance(forgotten, Whole):
                forgotten.release()
        else:
            told = _read(readings[number], bytes(content), shared)
            connection.send_bytes(json.dumps(told).encode())


def _learnt(pickled: memoryview) -> Reading:
    try:
        reading: Reading = pickle.loads(pickled)
    except Exception as error:  # it is the reading's fault, and each content's reader hears of it
        said = f"a reader cannot be prepared ({type(error).__name__}: {error})"[:300]

        def broken(content: bytes) -> Prepared:
            raise WorkError(said)

        return broken
    with suppress(Exception):  # what is loaded with a first content is no content's memory or time
        reading(b"")
    return reading


def _read(reading: Reading, content: bytes, shared: mmap.mmap) -> dict[str, Any]:
    """What is told of a content; its inputs lie in `shared` then, and their lengths behind them."""
    try:
        prepared = reading(content)
        arrays = [array for window in prepared.windows for array in window] + [prepared.lengths]
        if sum(array.nbytes for array in arrays) > AREA:
            return {"unreadable": f"gives a network more than {AREA // 1_000_000} MB"}
        first = 0
        for array in arrays:
            np.frombuffer(shared, array.dtype, array.size, first).reshape(array.shape)[...] = array
            first += array.nbytes
        shapes = [(array.dtype.str, array.shape) for array in arrays]
        return {"windows": len(prepared.windows), "arrays": shapes}
    except Unreadable as error:
        return {"unreadable": str(error)}
    except MemoryError:
        return {"unreadable": "does not fit into memory"}
    except GraftworkError as error:
        return {"failed": str(error)}
    except Exception as error:  # decoders raise anything, and the next content is another's
        return {"unreadable": f"broke its decoder ({type(error).__name__}: {error})"[:300]}


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
    main(int(sys.argv[1]), int(sys.argv[2]))
