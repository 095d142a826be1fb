"""What a network learns from, batch by batch, prepared beside the compute where that pays."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor

from graftwork.rows import IntArray
from graftwork.training.augmentation import Augment

Batches = Callable[[IntArray], Tensor]
"""Positions of rows -> what the network takes, rows first."""
T = TypeVar("T")


@dataclass(frozen=True)
class Fed:
    """Examples of a single input, distorted by `augment` where a generator is given."""

    batches: Batches
    augment: Augment | None = None
    lengths: IntArray | None = None

    def batch(self, index: IntArray, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        inputs = self.batches(index)
        return (inputs if generator is None or self.augment is None else self.augment(inputs, generator),)


def ahead(count: int, one: Callable[[int], T], waiting: int) -> Iterator[T]:
    """one(0), one(1), ... one(count - 1), made by one thread; `waiting`: at most so many ahead.

    With 0 each is made when it is asked for, by the caller's own thread.
    """
    if not waiting:
        yield from map(one, range(count))
        return
    pool = ThreadPoolExecutor(1, thread_name_prefix="feeding")
    try:
        places = iter(range(count))
        made: deque[Future[T]] = deque(pool.submit(one, place) for place in islice(places, waiting))
        while made:
            found = made.popleft().result()
            made.extend(pool.submit(one, place) for place in islice(places, 1))
            yield found
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
