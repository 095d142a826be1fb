"""One line a network: inputs of all requests, in fair turns, go through its network without a pause.

Nothing waits for a batch to fill. While the network works on as much as it can, inputs gather; as soon
as it has room, those that may go together go together.
"""

import heapq
import itertools
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.backbones.engine import Arrays, Batch, cores
from graftwork.backbones.served import NOTHING, Added, Prepared, beside
from graftwork.errors import GraftworkError, Unreadable, WorkError
from graftwork.rows import IntArray
from graftwork.serving.reading import Job, Readers
from graftwork.serving.records import Item
from graftwork.serving.ways import Way

PATIENCE_S = 30.0
"""A run in which nothing has come out for so long is ended, so that its error is seen."""


@dataclass(eq=False)
class Asked(ABC):
    """What one request asks of one backbone, and what came of it so far.

    contents: each once. features: (contents, width), NaN where unreadable. failure: what else went wrong.
    added: what the backbone adds to its rows where the network is shared.
    """

    contents: Sequence[Item]
    features: NDArray[np.float32]
    unreadable: dict[int, str] = field(default_factory=dict, init=False)
    failure: BaseException | None = field(default=None, init=False)
    left: int = field(init=False)
    gone: bool = field(default=False, init=False)
    """Nobody waits for it any more."""
    added: Added = field(default=NOTHING, init=False)

    def __post_init__(self) -> None:
        self.left = len(self.contents)

    @abstractmethod
    def finish(self) -> None:
        """Called once, on any thread, when every content was answered or `failure` is set."""


Place = tuple[int, int]
"""Turn and number: the k-th content of a request has the k-th turn from when it came."""


@dataclass(eq=False)
class _Row:
    """One content on its way. parts: its windows' features, as far as they are there."""

    place: Place
    asked: Asked
    index: int
    lengths: NDArray[np.float64] = field(default_factory=lambda: np.ones(1))
    parts: list[NDArray[np.float32] | None] = field(default_factory=list)

    def __lt__(self, other: "_Row") -> bool:
        return self.place < other.place


@dataclass(eq=False)
class _Window:
    """One set of the network's inputs. batch: how many of those it runs with are not yet there."""

    place: Place
    row: _Row
    number: int
    inputs: Arrays
    batch: list[int] = field(default_factory=list)

    def __lt__(self, other: "_Window") -> bool:
        return self.place < other.place


class Line:
    """The inputs of one network, from being asked to being features."""

    def __init__(self, way: Way, width: int, readers: Readers, name: str = "line") -> None:
        self.width, self.rows, self.batches, self.last = width, 0, 0, time.monotonic()
        self._way, self._readers = way, readers
        self._known = readers.register(way.reading) if way.reading is not None else None
        self._lock = threading.Lock()
        self._moved = threading.Condition(self._lock)
        self._turn, self._numbers = 0, itertools.count()
        self._waiting: list[_Row] = []
        self._ready: dict[Any, list[_Window]] = {}
        self._running: dict[int, _Window] = {}
        self._busy = 0
        self._preparing = False
        self._ahead, self._most_ahead = 0, 4 * max(cores(), readers.count)
        self._moved_at = time.monotonic()
        self._closed = False
        self._thread: threading.Thread | None = None
        if way.runner is not None:
            self._thread = threading.Thread(target=self._feed, args=(way.runner,), name=name, daemon=True)
            self._thread.start()

    def ask(self, asked: Asked) -> bool:
        """Answer it some time; False where the line was closed meanwhile."""
        with self._lock:
            if self._closed:
                return False
            self.last = time.monotonic()
            for index in range(len(asked.contents)):
                place = (self._turn + index, next(self._numbers))
                heapq.heappush(self._waiting, _Row(place, asked, index))
            if self._known is None:
                self._moved.notify()
        self._read_on()
        if not asked.contents:
            asked.finish()
        return True

    @property
    def waiting(self) -> int:
        """Contents not yet taken up."""
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        """Whether it has nothing to do."""
        return not (self._waiting or self._preparing or self._ready or self._running or self._ahead)

    def retire(self) -> bool:
        """Take no more, so that it may be closed; False where it has something to do."""
        with self._lock:
            self._closed = self._closed or self.idle
            return self._closed

    def close(self) -> None:
        """End it; whatever was not answered fails."""
        with self._lock:
            self._closed = True
            self._moved.notify_all()
        if self._known is not None:
            self._readers.forget(self._known)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        with self._lock:
            rows = [*self._waiting, *(window.row for heap in self._ready.values() for window in heap)]
            rows += [window.row for window in self._running.values()]
            self._waiting, self._ready = [], {}
        for row in rows:
            self._give_up(row.asked, WorkError("the server ended before it was answered; ask again"))

    # Reading, in other processes

    def _read_on(self) -> None:
        """Have more read where there is room for several: readers that wake for each one cost more."""
        if self._known is not None and self._waiting and self._ahead <= self._most_ahead // 2:
            self._readers.call(self)

    def next_job(self) -> Job | None:
        """See `reading.Line`; only so many contents are read ahead of the network."""
        assert self._known is not None
        with self._lock:
            if self._ahead >= self._most_ahead or self._closed:
                return None
            row = self._next_row()
            if row is None:
                return None
            self._ahead += 1
            self._turn = max(self._turn, row.place[0])
        content = row.asked.contents[row.index]
        assert isinstance(content, bytes), "pictures and recordings are bytes"
        return Job(self._known, content, partial(self._read, row))

    def _read(self, row: _Row, outcome: Prepared | GraftworkError) -> None:
        if isinstance(outcome, GraftworkError) or self._way.runner is None:
            with self._lock:
                self._ahead -= 1
            if isinstance(outcome, Prepared):
                self._deliver(row, outcome.windows[0][0])
            elif isinstance(outcome, Unreadable):
                self._refuse(row, str(outcome))
            else:
                self._give_up(row.asked, outcome)
            self._read_on()
            return
        with self._lock:
            self._put(row, outcome)
            if self._busy < self._way.runner.slots:
                self._moved.notify()

    def _next_row(self) -> _Row | None:
        """The next waiting row whose request still matters; called with the lock held."""
        while self._waiting:
            row = heapq.heappop(self._waiting)
            if not row.asked.gone:
                return row
        return None

    def _put(self, row: _Row, prepared: Prepared) -> None:
        """Into what is ready for the network; called with the lock held."""
        row.lengths, row.parts = prepared.lengths, [None] * len(prepared.windows)
        turn, number = row.place
        for i, inputs in enumerate(prepared.windows):
            # a long recording takes a turn for each of its windows
            window = _Window((turn + i, number), row, i, inputs)
            alike = tuple(array.shape for array in inputs)
            heapq.heappush(self._ready.setdefault(alike, []), window)

    # The network

    def _feed(self, runner: Any) -> None:
        while not self._closed:
            lost: BaseException = WorkError("the network gave no answer; ask again")
            try:
                runner.run(self._batches(runner.slots), self._arrived)
            except Exception as error:  # whatever a runtime raises belongs to those who asked
                lost = error
            with self._lock:
                windows = list(self._running.values())
                self._running.clear()
                self._busy = 0
            for window in windows:
                self._give_up(window.row.asked, lost)

    def _batches(self, slots: int) -> Iterator[Batch]:
        numbers = itertools.count()
        while (windows := self._next_batch(slots, numbers)) is not None:
            positions, chosen = windows
            self._read_on()
            each = zip(*(window.inputs for window in chosen), strict=True)
            inputs = chosen[0].inputs if len(chosen) == 1 else tuple(map(np.concatenate, each))
            yield positions, beside(inputs, [window.row.asked.added for window in chosen])

    def _next_batch(self, slots: int, numbers: Iterator[int]) -> tuple[IntArray, list[_Window]] | None:
        """Waits until the network has room and something is ready; None where the run should end."""
        while True:
            with self._lock:
                if self._closed:
                    return None
                rows = self._texts_waiting()
                self._preparing = bool(rows)
                if not rows and self._ready and self._busy < slots:
                    return self._chosen(numbers)
                if not rows:
                    if self._running and time.monotonic() - self._moved_at > PATIENCE_S:
                        return None
                    self._moved.wait(PATIENCE_S if self._running else None)
                    continue
            self._prepare(rows)

    def _texts_waiting(self) -> list[_Row]:
        if self._way.prepared is None:
            return []
        return list(iter(self._next_row, None))

    def _prepare(self, rows: Sequence[_Row]) -> None:
        """A text that cannot be prepared fails alone."""
        assert self._way.prepared is not None
        try:
            prepared = self._way.prepared([str(row.asked.contents[row.index]) for row in rows])
            pairs = list(zip(rows, prepared, strict=True))
        except Exception as error:
            if len(rows) == 1:
                self._give_up(rows[0].asked, error)
                return
            for row in rows:
                self._prepare([row])
            return
        with self._lock:
            for row, inputs in pairs:
                self._put(row, inputs)

    def _chosen(self, numbers: Iterator[int]) -> tuple[IntArray, list[_Window]]:
        """Those whose turn it is, and others of the same shape; called with the lock held."""
        alike = min(self._ready, key=lambda one: self._ready[one][0])
        heap = self._ready[alike]
        most = min(len(heap), self._way.together(heap[0].inputs))
        windows = [heapq.heappop(heap) for _ in range(most)]
        if not heap:
            del self._ready[alike]
        batch, positions = [most], []
        for window in windows:
            window.batch = batch
            self._turn = max(self._turn, window.place[0])
            positions.append(number := next(numbers))
            self._running[number] = window
        self._busy += 1
        self.batches += 1
        self._moved_at = time.monotonic()
        if self._known is not None:
            self._ahead -= sum(window.number == 0 for window in windows)
        return np.array(positions), windows

    def _arrived(self, positions: IntArray, values: NDArray[np.float32]) -> None:
        """What the network gave; on its own threads."""
        with self._lock:
            windows = [self._running.pop(number) for number in positions.tolist()]
            for window in windows:
                window.batch[0] -= 1
                self._busy -= not window.batch[0]
            self._moved_at = time.monotonic()
            self._moved.notify()
        for window, value in zip(windows, values, strict=True):
            row = window.row
            if len(row.parts) == 1:
                self._deliver(row, self._way.joined(value[None], row.lengths))
                continue
            with self._lock:
                row.parts[window.number] = np.array(value)  # the network uses its memory again
                whole = [part for part in row.parts if part is not None]
            if len(whole) == len(row.parts):
                self._deliver(row, self._way.joined(np.stack(whole), row.lengths))

    # What came of it

    def _deliver(self, row: _Row, features: NDArray[Any]) -> None:
        if features.size != self.width or not np.isfinite(features).all():
            self._refuse(row, "has features that are no numbers")
            return
        row.asked.features[row.index] = features.ravel()
        self._one_less(row.asked)

    def _refuse(self, row: _Row, reason: str) -> None:
        row.asked.features[row.index] = np.nan
        row.asked.unreadable[row.index] = reason
        self._one_less(row.asked)

    def _one_less(self, asked: Asked) -> None:
        with self._lock:
            self.rows += 1
            asked.left -= 1
            last = not asked.left and asked.failure is None
        if last:
            asked.finish()

    def _give_up(self, asked: Asked, error: BaseException) -> None:
        with self._lock:
            first = asked.failure is None and asked.left > 0
            if first:
                asked.failure, asked.gone = error, True
        if first:
            asked.finish()
