"""What a fit spends its time on, and what is left of its budget."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from graftwork.backbones.base import Backbone, plain
from graftwork.rows import Rows

PILOT = 48
"""Rows that tell what features of a changed backbone cost."""


class Clock:
    """Wall-clock seconds by stage, and what is left of a budget. before: seconds of earlier attempts."""

    def __init__(self, budget: float | None) -> None:
        self.budget, self.before = budget, 0.0
        self.seconds: dict[str, float] = {}
        self._start = time.perf_counter()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start

    @property
    def spent(self) -> float:
        return self.before + time.perf_counter() - self._start

    @property
    def left(self) -> float:
        """Seconds of the budget that are left; infinite without one."""
        return np.inf if self.budget is None else self.budget - self.spent

    def share(self, part: float, most: float) -> float:
        """`part` of the budget, `most` at most; `most` without a budget."""
        return most if self.budget is None else min(most, part * self.budget)

    def total(self) -> dict[str, float]:
        earlier = {"earlier attempts": self.before} if self.before else {}
        return {**earlier, **self.seconds, "total": self.spent}


def changed_seconds(basis: Backbone, rows: Rows) -> tuple[float, float]:
    """(seconds to make a changed backbone ready, seconds a row), as the source's own are measured now."""
    own = plain(basis)
    some = rows.take(np.unique(np.linspace(0, len(rows) - 1, min(PILOT, len(rows))).astype(np.int64)))
    seconds = []
    for _ in range(2):
        begun = time.perf_counter()
        own.features(some)
        seconds.append(time.perf_counter() - begun)
    return max(seconds[0] - seconds[1], 0.0), seconds[1] / len(some)
