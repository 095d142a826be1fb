"""Readings that misbehave, by what the content says; a reader process finds them on the path of tests."""

import os
import signal
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from graftwork.backbones.served import Prepared
from graftwork.errors import Unreadable, WorkError


@dataclass(frozen=True)
class Obedient:
    """Does what the content says; anything else is one window: its bytes as numbers."""

    def __call__(self, content: bytes) -> Prepared:
        said, _, rest = content.partition(b" ")
        match said:
            case b"refuse":
                raise Unreadable("is not wanted")
            case b"sleep":
                time.sleep(600)
            case b"spin":
                while True:
                    pass
            case b"say":  # as whoever has taken the process over may
                _socket().send_bytes(rest)
                time.sleep(600)
            case b"crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            case b"killed":
                os.kill(os.getpid(), signal.SIGKILL)
            case b"leave":
                os._exit(0)
            case b"allocate":
                return Prepared.single(np.ones((1, int(rest)), np.uint8)[:, :1])
            case b"give":
                return Prepared.single(np.zeros((1, int(rest)), np.uint8))
            case b"raise":
                raise ZeroDivisionError("surprising")
            case b"fail":
                raise WorkError("the source lacks a file; fetch it again")
            case b"windows":
                return Prepared([(np.full((1, 3), i), np.array([i])) for i in range(4)], np.arange(4.0))
            case b"who":
                return Prepared.single(np.array([os.getpid()]))
            case b"meet":  # answered once another process reads the same
                (Path(rest.decode()) / str(os.getpid())).touch()
                while len(list(Path(rest.decode()).iterdir())) < 2:
                    time.sleep(0.01)
                return Prepared.single(np.array([os.getpid()]))
            case b"files":
                names = " ".join(
                    str(one.readlink()) for one in Path("/proc/self/fd").iterdir() if one.is_symlink()
                )
                return Prepared.single(np.frombuffer(names.encode(), np.uint8)[None])
        return Prepared.single(np.frombuffer(content, np.uint8)[None].astype(np.float32))


@dataclass(frozen=True)
class Slow:
    """Loads something large and slow before its first content."""

    def __call__(self, content: bytes) -> Prepared:
        if "loaded" not in self.__dict__:
            time.sleep(2)
            object.__setattr__(self, "loaded", np.ones(300_000_000, np.uint8))
        return Prepared.single(np.frombuffer(content, np.uint8)[None])


def _socket() -> Connection:
    for one in Path("/proc/self/fd").iterdir():
        if one.is_symlink() and str(one.readlink()).startswith("socket:"):
            return Connection(int(one.name))
    raise AssertionError("no socket")


@dataclass(frozen=True)
class Unloadable:
    """Cannot be built in the reader."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return int, ("no number",)

    def __call__(self, content: bytes) -> Prepared:
        raise AssertionError("it was never there")
