"""Reading rows in threads beside the compute, in order, a bounded number ahead."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from graftwork.backbones import engine

T = TypeVar("T")


def in_order(count: int, one: Callable[[int], T], each: int = 8) -> Iterator[T]:
    """one(0), one(1), ... one(count - 1), computed in as many threads as there are cores.

    At most `each` results a core wait to be taken, so memory does not grow with `count`.
    """
    workers = engine.cores()
    ahead: deque[Future[T]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="ahead")
    try:
        waiting = iter(range(count))
        for _ in range(count):
            while len(ahead) < each * workers and (following := next(waiting, None)) is not None:
                ahead.append(pool.submit(one, following))
            yield ahead.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
