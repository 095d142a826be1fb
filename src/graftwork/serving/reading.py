"""Contents read by processes under limits: one that takes too much memory or time is killed and replaced."""

import fcntl
import json
import math
import mmap
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Protocol

import numpy as np

from graftwork.backbones.reader import AREA, FORGET, LEARN, NUMBER, READ, READY
from graftwork.backbones.served import Prepared, Reading
from graftwork.errors import GraftworkError, Unreadable, WorkError

STARTING_S = 60.0
"""What a new reader may take to come up on a busy machine."""
_HEADER = 1_000_000


@dataclass(frozen=True)
class Known:
    """A reading under the number by which readers know it."""

    number: int
    pickled: bytes

    @classmethod
    def of(cls, reading: Reading, number: int) -> "Known":
        return cls(number, pickle.dumps(reading))


@dataclass(frozen=True)
class Job:
    """One content to read. done: called once, on the reader's thread, with what came of it."""

    known: Known
    content: bytes
    done: Callable[[Prepared | GraftworkError], None]


class Line(Protocol):
    """Whoever has contents to be read."""

    def next_job(self) -> Job | None:
        """The next one; None where there is none now: it will call again."""
        ...


class Readers:
    """`count` reader processes, each with a thread that asks it. Lines that call are served in turns."""

    def __init__(self, count: int, most_bytes: int, most_seconds: float) -> None:
        self._limits = most_bytes, most_seconds
        self._lines: deque[Line] = deque()
        self._changed = threading.Condition()
        self._alive: set[int] = set()
        self._processes: list[_Process] = []
        self._numbers = 0
        self._closed = False
        self._up = 0
        self.count, self.replaced = count, 0
        self._threads = [
            threading.Thread(target=self._serve, name=f"reader-{i}", daemon=True) for i in range(count)
        ]
        self._started = False

    def register(self, reading: Reading) -> Known:
        """Readings are pickled once; forget it when its line closes."""
        with self._changed:
            self._numbers += 1
            known = Known.of(reading, self._numbers)
            self._alive.add(known.number)
            return known

    def forget(self, known: Known) -> None:
        with self._changed:
            self._alive.discard(known.number)

    def call(self, line: Line) -> None:
        """`line` has something to read; starts the readers where none runs yet."""
        with self._changed:
            self._start()
            if line not in self._lines:
                self._lines.append(line)
            self._changed.notify()

    def warm(self) -> None:
        """Start the readers and wait until each has come up."""
        with self._changed:
            self._start()
            self._changed.wait_for(lambda: self._up >= self.count or self._closed, STARTING_S)

    def close(self) -> None:
        """End every reader; what is being read is given up."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            for process in self._processes:
                process.kill()
        if self._started:
            for thread in self._threads:
                thread.join()

    def _start(self) -> None:
        if not self._started and not self._closed:
            self._started = True
            for thread in self._threads:
                thread.start()

    def _next(self) -> Job | None:
        with self._changed:
            while not self._closed:
                for _ in range(len(self._lines)):
                    line = self._lines.popleft()
                    job = line.next_job()
                    if job is not None:
                        self._lines.append(line)
                        self._changed.notify()  # another reader may find more
                        return job
                self._changed.wait()
        return None

    def _serve(self) -> None:
        # started by the thread that asks it: the process is told to die with this very thread
        process: _Process | None = None
        with suppress(WorkError):  # the first that asks for it hears of it
            process = self._started_anew()
            process.wait_ready()
        with self._changed:
            self._up += 1
            self._changed.notify_all()
        while (job := self._next()) is not None:
            outcome: Prepared | GraftworkError
            try:
                if process is None or process.ended:
                    process = self._started_anew()
                    self.replaced += 1
                outcome = process.read(job.known, job.content, self._alive)
            except GraftworkError as error:
                outcome = error
            if self._closed and isinstance(outcome, Unreadable):  # it was ended, whatever it was reading
                outcome = WorkError("the server ended before it was answered; ask again")
            job.done(outcome)
        if process is not None:
            process.end()

    def _started_anew(self) -> "_Process":
        try:
            process = _Process(*self._limits)
        except OSError as error:
            raise WorkError(
                f"no process that reads contents could be started ({error.strerror}); try again in a while"
            ) from error
        with self._changed:
            self._processes = [one for one in self._processes if not one.ended] + [process]
        if self._closed:
            process.kill()
        return process


class _Process:
    """One reader process; not to be asked again once it `ended`. Raises OSError where none can be started."""

    def __init__(self, most_bytes: int, most_seconds: float) -> None:
        self._most_bytes, self._most_seconds = most_bytes, most_seconds
        self._knows: set[int] = set()
        self._ready = self._let_go = False
        ours, theirs = socket.socketpair()
        self._connection = Connection(ours.detach())
        self._answered = select.poll()
        self._answered.register(self._connection.fileno(), select.POLLIN)
        area = _shared()
        self._shared = mmap.mmap(area, AREA)
        with theirs:
            try:
                self._process = subprocess.Popen(
                    # -P: nothing is imported from the folder that the server was started in
                    [sys.executable, "-P", "-m", "graftwork.backbones.reader", str(area), str(most_bytes)],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    env=_environment(),
                    pass_fds=(area,),
                )
            finally:
                os.close(area)

    @property
    def ended(self) -> bool:
        """Also where somebody else ended it, for which the next content is not to blame."""
        return self._let_go or self._process.poll() is not None

    def wait_ready(self) -> None:
        """Raises WorkError where it does not come up, or cannot be taught a reading."""
        if self._ready:
            return
        try:
            self._ready = (
                bool(self._answered.poll(STARTING_S * 1e3)) and self._connection.recv_bytes(64) == READY
            )
        except (EOFError, OSError):
            self._ready = False
        if not self._ready:
            self.end()
            raise WorkError(
                "a process that reads contents did not start; see what it printed, then try again"
            )

    def read(self, known: Known, content: bytes, alive: set[int]) -> Prepared:
        """Raises Unreadable; WorkError where the content is not to blame."""
        self.wait_ready()
        number = NUMBER.pack(known.number)
        try:
            for stale in self._knows - alive:
                self._knows.discard(stale)
                self._connection.send_bytes(FORGET + NUMBER.pack(stale))
            if known.number not in self._knows:
                self._knows.add(known.number)
                self._connection.send_bytes(LEARN + number + known.pickled)
                self._ready = False
                self.wait_ready()  # what a reading loads takes no content's time
            self._connection.send_bytes(READ + number + content)
            if not self._answered.poll(self._most_seconds * 1e3):
                self.end()
                raise Unreadable(f"takes too long to read (more than {self._most_seconds:g} s)")
            told = json.loads(self._connection.recv_bytes(_HEADER))
            if "windows" in told:
                return self._prepared(told)
            raise Unreadable(str(told["unreadable"])) if "unreadable" in told else WorkError(told["failed"])
        except GraftworkError:
            raise
        except (EOFError, OSError) as error:
            raise Unreadable(self._death()) from error
        except Exception as error:  # it does not speak as it should: its decoder may have been taken over
            self.end()
            raise Unreadable("broke its decoder (an answer that makes no sense)") from error

    def _prepared(self, told: Any) -> Prepared:
        arrays, first = [], 0
        for name, shape in told["arrays"]:
            kind, count = np.dtype(name), math.prod(shape)
            if kind.kind not in "biuf" or min(shape, default=1) < 0:
                raise ValueError(f"an array of {kind} {shape}")
            # a copy: the next content's inputs will lie there
            arrays.append(np.frombuffer(self._shared, kind, count, first).reshape(shape).copy())
            first += arrays[-1].nbytes
        *inputs, lengths = arrays
        each, rest = divmod(len(inputs), told["windows"])
        whole = all(array.shape[:1] == (1,) for array in inputs)
        if rest or not each or not whole or lengths.shape != (told["windows"],):
            raise ValueError("windows and arrays do not match")
        windows = [tuple(inputs[i : i + each]) for i in range(0, len(inputs), each)]
        return Prepared(windows, lengths)

    def _death(self) -> str:
        """Why it is no longer there, as a reason that follows a file's name."""
        self.end()
        if self._process.returncode == -signal.SIGKILL:  # the system's, when memory runs out
            return "does not fit into memory"
        return "crashes its decoder"

    def kill(self) -> None:
        """From any thread: whoever waits for its answer sees it die."""
        self._process.kill()

    def end(self) -> None:
        """Kill it where it still runs, and let go of it."""
        self._let_go = True
        self._connection.close()
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()


def _shared() -> int:
    """A descriptor of memory to share, which the other end can neither shrink nor let grow."""
    area = os.memfd_create("reader", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(area, AREA)
    fcntl.fcntl(area, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return area


def _environment() -> dict[str, str]:
    path = os.pathsep.join(one for one in sys.path if one)
    # memory of one picture is kept for the next: to fetch it anew takes as long as to decode
    kept = {"MALLOC_TRIM_THRESHOLD_": "64000000", "MALLOC_MMAP_THRESHOLD_": "32000000"}
    return {**os.environ, **kept, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
