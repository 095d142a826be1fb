"""The facade: inputs and artefacts in, answers out; whoever serves HTTP, or none, stands in front of it."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from graftwork.backbones.engine import cores
from graftwork.errors import Busy, RequestError
from graftwork.rows import PLURAL, IntArray
from graftwork.serving.finishing import Finishing, Request
from graftwork.serving.pool import Pool
from graftwork.serving.reading import Readers
from graftwork.serving.records import Held, Item, Replies
from graftwork.serving.tasks import Task, Tasks

OPENING = 16
"""Artefacts and backbones that may be opened at once."""
Key = TypeVar("Key", Path, str)
Opened = TypeVar("Opened")


class Serving:
    """Answers for any number of artefacts; those with one network share it and its batches, with backbones
    that add low-rank pairs of their own among them.

    head_memory, backbone_memory: bytes. readers: processes that read pictures and recordings, None for one
    a core. reading_bytes, reading_seconds: what one content may take. queue: inputs that may wait. offline:
    sources are not fetched.
    """

    def __init__(
        self,
        *,
        head_memory: int,
        backbone_memory: int,
        readers: int | None = None,
        reading_bytes: int,
        reading_seconds: float,
        queue: int = 1024,
        offline: bool = False,
    ) -> None:
        self._most, self._waiting, self._refused = queue, 0, 0
        self._tasks = Tasks(head_memory, offline=offline)
        self._readers = Readers(cores() if readers is None else readers, reading_bytes, reading_seconds)
        self._pool = Pool(backbone_memory, self._tasks, self._readers)
        self._finishing = Finishing()
        self._opening = ThreadPoolExecutor(OPENING, thread_name_prefix="opening")
        self._underway: dict[Path | str, Future[Any]] = {}

    async def answer(self, folders: Sequence[Path], items: Sequence[Item]) -> list[Replies]:
        """What each artefact says of all items, in the order of `folders`.

        Raises RequestError where a task takes another kind of input, ArtefactError where an artefact is
        damaged or gone, Busy where too much is waiting.
        """
        with self._accepted(len(items)):
            tasks = [self._tasks.held(folder) or await self._opened(folder) for folder in folders]
            shared: dict[str, list[int]] = {}
            for i, task in enumerate(tasks):
                _require_kind(task, items)
                shared.setdefault(task.fingerprint, []).append(i)
            contents, index = _distinct(items)
            replies: list[Replies | None] = [None] * len(tasks)
            requests: list[Request] = []
            try:
                for members in shared.values():
                    requests.append(await self._asked([tasks[i] for i in members], contents, index))
                for members, request in zip(shared.values(), requests, strict=True):
                    for i, one in zip(members, await request.answer, strict=True):
                        replies[i] = one
            finally:
                for request in requests:
                    request.gone = True
                    if not (request.answer.cancel() or request.answer.cancelled()):
                        request.answer.exception()  # seen, whether or not it is the one that is raised
        return [one for one in replies if one is not None]

    def forget(self, folder: Path) -> None:
        """The artefact was deleted or replaced; from any thread."""
        self._tasks.forget(folder)

    def warm(self, folders: Sequence[Path] = ()) -> None:
        """Start the readers and open these artefacts with their backbones; from any thread but the loop's."""
        self._readers.warm()
        for folder in folders:
            self._pool.load(self._tasks.get(folder).network)

    def backbones(self) -> list[Held]:
        return self._pool.backbones()

    def figures(self) -> Mapping[str, float]:
        """Figures for metrics. inputs: waiting or at work now. Others count from the start."""
        return {
            "inputs": self._waiting,
            "refused": self._refused,
            **self._pool.figures(),
            "readers": self._readers.count,
            "readers_replaced": self._readers.replaced,
            **self._tasks.figures(),
        }

    async def drain(self) -> None:
        """Returns once everything accepted is answered."""
        while self._waiting:
            await asyncio.sleep(0.02)

    def close(self) -> None:
        """End all threads and processes; what was not answered fails."""
        self._opening.shutdown(cancel_futures=True)
        self._readers.close()
        self._pool.close()
        self._finishing.close()

    @contextmanager
    def _accepted(self, count: int) -> Iterator[None]:
        # on the loop's thread alone, so nothing comes between
        if self._waiting and self._waiting + count > self._most:
            self._refused += 1
            raise Busy(
                f"{self._waiting:,} inputs are waiting, and at most {self._most:,} may; ask again in a while"
            )
        self._waiting += count
        try:
            yield
        finally:
            self._waiting -= count

    async def _opened(self, folder: Path) -> Task:
        return await self._once(self._tasks.get, folder)

    async def _once(self, work: Callable[[Key], Opened], key: Key) -> Opened:
        """`work(key)` in a thread, one for all who ask for the same: they hold up nobody else."""
        found = self._underway.get(key)
        if found is None:
            found = self._underway[key] = self._opening.submit(work, key)
            found.add_done_callback(lambda _: self._underway.pop(key, None))
        opened: Opened = await asyncio.shield(asyncio.wrap_future(found))
        return opened

    async def _asked(self, tasks: Sequence[Task], contents: Sequence[Item], index: IntArray) -> Request:
        """The request of tasks of one fingerprint, on its way."""
        loop, network = asyncio.get_running_loop(), tasks[0].network
        while True:
            loaded = self._pool.held(network)
            if loaded is None:
                loaded = await self._once(self._pool.load, network)
            features = np.empty((len(contents), loaded.backbone.width), np.float32)
            answer: asyncio.Future[list[Replies]] = loop.create_future()
            request = Request(contents, features, tasks, index, answer, self._finishing)
            if loaded.line.ask(request):
                return request


def _distinct(items: Sequence[Item]) -> tuple[Sequence[Item], IntArray]:
    """Each item once, and where each lies among those: an item asked twice is computed once."""
    if len(items) == 1:
        return items, np.zeros(1, np.int64)
    numbers: dict[Item, int] = {}
    index = [numbers.setdefault(item, len(numbers)) for item in items]
    return list(numbers), np.array(index, dtype=np.int64)


def _require_kind(task: Task, items: Sequence[Item]) -> None:
    wanted = str if task.kind == "text" else bytes
    for i, item in enumerate(items):
        if not isinstance(item, wanted):
            seen = "a text" if isinstance(item, str) else "a file"
            raise RequestError(f"this model takes {PLURAL[task.kind]}, input {i} is {seen}")
