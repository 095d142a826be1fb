"""Features that are complete go to the heads of all who asked, as many requests at once as have come."""

import asyncio
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graftwork.rows import IntArray
from graftwork.serving import fanout
from graftwork.serving.batching import Asked
from graftwork.serving.records import Replies
from graftwork.serving.tasks import Task

LITTLE = 64
"""Heads times rows that are applied on the loop itself."""


@dataclass(eq=False)
class Request(Asked):
    """One request on one backbone: `tasks` about the contents at `index`, in the order of its inputs.

    answer: resolved with one Replies a task, on its own loop.
    """

    tasks: Sequence[Task]
    index: IntArray
    answer: "asyncio.Future[list[Replies]]"
    finishing: "Finishing"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.added = self.tasks[0].added

    def finish(self) -> None:
        self.finishing.put(self)


class Finishing:
    """Applies heads to all requests that were completed since the loop came round last, then answers them.

    A little work is done on the loop itself, as to wake a thread for it would take longer.
    """

    def __init__(self) -> None:
        self._waiting: dict[asyncio.AbstractEventLoop, list[Request]] = {}
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="heads")

    def put(self, request: Request) -> None:
        loop = request.answer.get_loop()
        with self._lock:
            come = self._waiting.setdefault(loop, [])
            first = not come  # another thread's may be there as soon as the lock is given back
            come.append(request)
        if first:
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(self._finish, loop)

    def close(self) -> None:
        self._thread.shutdown()

    def _finish(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            requests = self._waiting.pop(loop)
        groups: defaultdict[str, list[Request]] = defaultdict(list)
        for request in requests:
            groups[request.tasks[0].network].append(request)
        for together in groups.values():
            work = sum(len(one.tasks) * len(one.contents) for one in together if one.failure is None)
            if work <= LITTLE:
                _tell(together, _outcomes(together))
            else:
                self._thread.submit(_finish_apart, loop, together)


def _finish_apart(loop: asyncio.AbstractEventLoop, requests: list[Request]) -> None:
    outcomes = _outcomes(requests)
    with suppress(RuntimeError):  # as above
        loop.call_soon_threadsafe(_tell, requests, outcomes)


_Outcome = list[Replies] | BaseException


def _tell(requests: Sequence[Request], outcomes: Sequence[_Outcome]) -> None:
    for request, outcome in zip(requests, outcomes, strict=True):
        if request.answer.done():
            continue  # whoever asked has gone
        if isinstance(outcome, BaseException):
            request.answer.set_exception(outcome)
        else:
            request.answer.set_result(outcome)


def _outcomes(requests: Sequence[Request]) -> list[_Outcome]:
    """What is to be told to each of these requests, which share a network."""
    found: dict[int, _Outcome] = {i: one.failure for i, one in enumerate(requests) if one.failure is not None}
    whole = [i for i in range(len(requests)) if i not in found]
    if not whole:
        return [found[i] for i in range(len(requests))]
    try:
        for i, replies in zip(whole, _answered([requests[i] for i in whole]), strict=True):
            found[i] = replies
    except Exception as error:  # whose head it was, is found by asking each alone
        for i in whole:
            found[i] = error if len(whole) == 1 else _outcomes([requests[i]])[0]
    return [found[i] for i in range(len(requests))]


def _answered(requests: Sequence[Request]) -> list[list[Replies]]:
    """All heads of all requests, over one matrix of features."""
    matrix, pairs, first = list[NDArray[np.float32]](), list[tuple[Task, IntArray]](), 0
    for request in requests:
        seen = request.features
        if request.unreadable:
            seen = np.delete(seen, list(request.unreadable), axis=0)
        rows = np.arange(first, first + len(seen))
        pairs += [(task, rows) for task in request.tasks] if len(rows) else []
        matrix.append(seen)
        first += len(seen)
    whole = matrix[0] if len(matrix) == 1 else np.concatenate(matrix) if pairs else None
    said = iter(fanout.answer(pairs, whole) if whole is not None and pairs else ())
    return [[_replies(request, task, said) for task in request.tasks] for request in requests]


def _replies(request: Request, task: Task, said: Iterator[fanout.Answer]) -> Replies:
    """Of `task`, whose answers come next, to every input of the request."""
    count, index = len(request.contents), request.index
    if not request.unreadable and count:
        probabilities, unknown = next(said)
        if len(index) == count:  # each input is another
            return Replies(task.labels, probabilities, unknown, {})
        return Replies(task.labels, probabilities[index], unknown[index], {})
    probabilities, unknown = np.full((count, len(task.labels)), np.nan), np.zeros(count, dtype=np.bool_)
    readable = np.setdiff1d(np.arange(count), list(request.unreadable))
    if len(readable):
        probabilities[readable], unknown[readable] = next(said)
    places = enumerate(index.tolist())
    reasons = {i: request.unreadable[k] for i, k in places if k in request.unreadable}
    return Replies(task.labels, probabilities[index], unknown[index], reasons)
