"""Banks of unknown inputs in files without a name: of each, a few rows are read at a time, by few answers.

They are the larger part of what a task holds. In a file they take no memory that the system could not have
back, and as it has no name, nobody can cut it short or change it.
"""

import os
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from graftwork import paths
from graftwork.rows import IntArray

FILE_BYTES = 64_000_000
"""A file takes banks up to here; it goes when the last of its banks does."""


@dataclass
class Aside:
    """Puts banks aside, from any thread. Where the disk is full they stay in memory."""

    _file: "_File | None" = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, bank: NDArray[np.float16]) -> "NDArray[np.float16] | Kept":
        try:
            with self._lock:
                if self._file is None or self._file.used + bank.nbytes > FILE_BYTES:
                    self._file = _File()
                return Kept(self._file, self._file.append(bank.tobytes()), (len(bank), bank.shape[1]))
        except OSError:
            return bank


@dataclass(frozen=True)
class Kept:
    """A bank in a file; rows are read when they are asked for. shape: (rows, width)."""

    file: "_File"
    start: int
    shape: tuple[int, int]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | IntArray) -> NDArray[np.float16]:
        size, handle = 2 * self.shape[1], self.file.handle
        if isinstance(rows, slice):
            first, end, _ = rows.indices(len(self))
            read = os.pread(handle, (end - first) * size, self.start + first * size)
        else:
            read = b"".join([os.pread(handle, size, self.start + row * size) for row in rows.tolist()])
        return np.frombuffer(read, np.float16).reshape(-1, self.shape[1])


class _File:
    def __init__(self) -> None:
        # beside the store rather than in /tmp, which may itself lie in memory
        place = paths.home() if os.access(paths.home(), os.W_OK) else None
        self.handle, name = tempfile.mkstemp(dir=place)
        Path(name).unlink()
        self.used = 0

    def append(self, content: bytes) -> int:
        """Where it begins; raises OSError."""
        start, left = self.used, memoryview(content)
        while left:
            left = left[os.pwrite(self.handle, left, start + len(content) - len(left)) :]
        self.used += len(content)
        return start

    def __del__(self) -> None:
        if hasattr(self, "handle"):
            os.close(self.handle)
