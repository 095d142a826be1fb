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
Said = tuple[NDArray[np.float64], NDArray[np.bool_]]
"""Probabilities and flags of one task's readable contents."""


@dataclass(eq=False)
class Request(Asked):
    """One request on one backbone: `tasks` about the contents at `index`, in the order of its inputs.

    answer: resolved with one Replies a task, on its own loop.
    """

    tasks: Sequence[Task]
    index: IntArray
    answer: "asyncio.Future[list[Replies]]"
    finishing: "Finishing"

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
            come.append(request)
        if len(come) == 1:
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(self._finish, loop)

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)

    def _finish(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            requests = self._waiting.pop(loop)
        groups: defaultdict[str, list[Request]] = defaultdict(list)
        for request in requests:
            groups[request.tasks[0].fingerprint].append(request)
        for together in groups.values():
            if sum(len(one.tasks) * len(one.contents) for one in together) <= LITTLE:
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
    """What is to be told to each of these requests, which share a backbone."""
    found: dict[int, _Outcome] = {i: one.failure for i, one in enumerate(requests) if one.failure is not None}
    whole = [i for i in range(len(requests)) if i not in found]
    try:
        for i, replies in zip(whole, _answered([requests[i] for i in whole]), strict=True):
            found[i] = replies
    except Exception as error:  # whose head it was, is found by asking each alone
        for i in whole:
            found[i] = error if len(whole) == 1 else _outcomes([requests[i]])[0]
    return [found[i] for i in range(len(requests))]


def _answered(requests: Sequence[Request]) -> list[list[Replies]]:
    """All heads of all requests, over one matrix of features."""
    if not requests:
        return []
    matrix, pairs, first = [], list[tuple[Task, IntArray]](), 0
    for request in requests:
        readable = _readable(request)
        matrix.append(request.features[readable])
        rows = np.arange(first, first + len(readable))
        pairs += [(task, rows) for task in request.tasks] if len(rows) else []
        first += len(readable)
    said = iter(fanout.answer(pairs, np.concatenate(matrix)) if pairs else ())
    return [[_replies(request, task, said) for task in request.tasks] for request in requests]


def _readable(request: Request) -> IntArray:
    return np.array([i for i in range(len(request.contents)) if i not in request.unreadable], dtype=np.int64)


def _replies(request: Request, task: Task, said: Iterator[Said]) -> Replies:
    """Of `task`, whose answers come next, to every input of the request."""
    readable, count = _readable(request), len(request.contents)
    probabilities: NDArray[np.float64] = np.full((count, len(task.labels)), np.nan)
    unknown: NDArray[np.bool_] = np.zeros(count, dtype=np.bool_)
    if len(readable):
        probabilities[readable], unknown[readable] = next(said)
    places = enumerate(request.index.tolist())
    reasons = {i: request.unreadable[k] for i, k in places if k in request.unreadable}
    return Replies(task.labels, probabilities[request.index], unknown[request.index], reasons)
