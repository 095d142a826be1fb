"""Features that are complete go to the heads of all who asked, as many requests at once as have come."""

import asyncio
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graftwork.rows import IntArray
from graftwork.serving import fanout
from graftwork.serving.batching import Asked
from graftwork.serving.records import Replies
from graftwork.serving.tasks import Task


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
    """A thread that applies heads. Its answers reach a loop by one call for all that are ready."""

    def __init__(self) -> None:
        self._waiting: list[Request] = []
        self._come = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="heads", daemon=True)
        self._thread.start()

    def put(self, request: Request) -> None:
        with self._come:
            self._waiting.append(request)
            self._come.notify()

    def close(self) -> None:
        """End it, once all that was put is answered."""
        with self._come:
            self._closed = True
            self._come.notify()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            with self._come:
                while not (self._waiting or self._closed):
                    self._come.wait()
                requests, self._waiting = self._waiting, []
            if not requests:
                return
            groups: defaultdict[str, list[Request]] = defaultdict(list)
            for request in requests:
                groups[request.tasks[0].fingerprint].append(request)
            told: defaultdict[asyncio.AbstractEventLoop, list[_Told]] = defaultdict(list)
            for together in groups.values():
                for request, outcome in zip(together, _outcomes(together), strict=True):
                    told[request.answer.get_loop()].append((request.answer, outcome))
            for loop, answers in told.items():
                if not loop.is_closed():
                    loop.call_soon_threadsafe(_tell, answers)


_Outcome = list[Replies] | BaseException
_Told = tuple["asyncio.Future[list[Replies]]", _Outcome]


def _tell(answers: Sequence[_Told]) -> None:
    for future, outcome in answers:
        if future.done():
            continue  # whoever asked has gone
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)


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


def _replies(request: Request, task: Task, said: Iterator[fanout.Said]) -> Replies:
    """Of `task`, whose answers come next, to every input of the request."""
    readable, count = _readable(request), len(request.contents)
    probabilities: NDArray[np.float64] = np.full((count, len(task.labels)), np.nan)
    unknown: NDArray[np.bool_] = np.zeros(count, dtype=np.bool_)
    if len(readable):
        found = next(said)
        probabilities[readable], unknown[readable] = found.probabilities, found.unknown
    places = enumerate(request.index.tolist())
    reasons = {i: request.unreadable[k] for i, k in places if k in request.unreadable}
    return Replies(task.labels, probabilities[request.index], unknown[request.index], reasons)
