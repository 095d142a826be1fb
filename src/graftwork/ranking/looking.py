"""Looking at sources: each opened, its features of the sampled rows taken, what that cost."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from graftwork import paths
from graftwork.backbones.base import Backbone
from graftwork.errors import GraftworkError, Unreadable
from graftwork.records import Extraction, Notify, Progress
from graftwork.rows import IntArray
from graftwork.sources import Source
from graftwork.strategies.base import Task
from graftwork.transferability import Separation

PILOT = 64
"""Rows that tell a source's speed before a budget is shared out."""
SPEED_ROWS = 32
"""Computed rows from which on a speed is believed, and kept."""
SAMPLE_SHARE = 0.6
"""Part of a budget that the first sample of all sources may take; the rest is for growing samples."""


@dataclass(frozen=True)
class Plan:
    """What is asked of every source. order: positions of the task's rows, each beginning a fair sample.

    budget: seconds, None for no bound; begun: the clock when they began to run.
    """

    task: Task
    order: IntArray
    budget: float | None
    clock: Callable[[], float]
    begun: float
    notify: Notify

    @property
    def left(self) -> float:
        """Seconds of the budget that are left; may be negative, infinite without a budget."""
        return np.inf if self.budget is None else self.budget - (self.clock() - self.begun)

    def named(self, name: str) -> Notify:
        """A Notify whose stages begin with a source's name."""
        return lambda step: self.notify(replace(step, stage=f"{name}: {step.stage}"))


@dataclass
class Look:
    """One source under the eye: what was found so far."""

    source: Source
    backbone: Backbone
    seconds: float = 0.0
    rate: float | None = None
    matrix: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), np.float32))
    separations: tuple[Separation, ...] = ()

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def memory(self) -> int:
        """Bytes of the files that hold what was learnt."""
        return sum((self.source.folder / name).stat().st_size for name in self.source.weights)

    def grow(self, plan: Plan, rows: int) -> None:
        """Take the features of the first `rows` of the sample; raises Unreadable where one has none."""
        start = plan.clock()
        taken = plan.task.rows.take(plan.order[:rows])
        found = self.backbone.features(taken, plan.named(self.name))
        for i, reason in found.unreadable.items():
            raise Unreadable(f"{taken.names[i]} {reason}")
        if not np.isfinite(found.matrix).all():
            raise Unreadable("gives features that are not finite (NaN or infinite); are its weights whole?")
        self.matrix = found.matrix
        self.rate = _speed(self.backbone.fingerprint, found.extraction)
        self.seconds += plan.clock() - start

    def cost(self, rows: int) -> float:
        """Seconds that the features of so many further rows will take, as far as the speed is known."""
        return rows / self.rate if self.rate else 0.0


def look(
    sources: Sequence[Source],
    plan: Plan,
    opening: Callable[[Source, Notify], Backbone],
    rows: int,
    least: int,
) -> tuple[list[Look], dict[str, str]]:
    """Every distinct source with the features of one sample, and why others are missing.

    rows: of the sample, fewer (at least `least`) where the budget asks for it. One source that fails
    does not stop the others, whatever went wrong with it.
    """
    refused: dict[str, str] = {}
    looks: list[Look] = []
    for done, source in enumerate(sources):
        plan.notify(Progress("opening sources (converted once a machine)", done, len(sources), "sources"))
        if plan.left <= 0 and looks:
            refused[source.name] = _spent(plan)
            continue
        with noted(refused, source.name):
            start = plan.clock()
            opened = opening(source, plan.named(source.name))
            twin = next((one.name for one in looks if one.backbone.fingerprint == opened.fingerprint), None)
            if twin is None:
                looks.append(Look(source, opened, plan.clock() - start))
            else:
                refused[source.name] = f"is the same model as {twin}, and counted once"
    if plan.budget is not None:
        rows = _affordable(looks, plan, refused, rows, least)
    return _distinct(_grown(looks, plan, rows, refused), refused), refused


def _affordable(looks: list[Look], plan: Plan, refused: dict[str, str], rows: int, least: int) -> int:
    """Rows of the sample that the budget allows; the slowest sources go where even the least is too much."""
    seen = min(PILOT, rows)
    looks[:] = _grown(looks, plan, seen, refused)
    while looks:
        slowness = sum(one.cost(1) for one in looks)
        allowed = seen + SAMPLE_SHARE * plan.left / slowness if slowness > 0 else np.inf
        if allowed >= least or len(looks) == 1:
            return int(np.clip(allowed, least, rows))
        slowest = max(looks, key=lambda one: one.cost(1))
        refused[slowest.name] = (
            f"is too slow for the budget of {plan.budget:g} s ({slowest.rate:.0f} rows a second)"
        )
        looks.remove(slowest)
    return rows


def _grown(looks: list[Look], plan: Plan, rows: int, refused: dict[str, str]) -> list[Look]:
    """Those of `looks` that gave the features of `rows` rows, in time."""
    kept: list[Look] = []
    for one in looks:
        if plan.left <= 0 and len(kept) > 1:  # one alone would be no comparison
            refused[one.name] = _spent(plan)
            continue
        with noted(refused, one.name):
            one.grow(plan, rows)
            kept.append(one)
    return kept


@contextmanager
def noted(refused: dict[str, str], name: str) -> Iterator[None]:
    """Whatever goes wrong with a source in the block is its reason, and stops no other source."""
    try:
        yield
    except GraftworkError as error:
        refused[name] = str(error)
    except Exception as error:  # converters and drivers raise anything
        refused[name] = f"failed with {type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _distinct(looks: list[Look], refused: dict[str, str]) -> list[Look]:
    """Sources whose features differ; a copy under another name would halve the chances of both."""
    kept: list[Look] = []
    for one in looks:
        twin = next((other for other in kept if np.array_equal(other.matrix, one.matrix)), None)
        if twin is None:
            kept.append(one)
        else:
            refused[one.name] = f"gives the same features as {twin.name}, and is counted once"
    return kept


def _spent(plan: Plan) -> str:
    return f"was not looked at: the budget of {plan.budget:g} s was spent"


def _speed(fingerprint: str, made: Extraction) -> float | None:
    """Rows a second of this backbone on this machine, as first measured; None where it never was."""

    def measured() -> Mapping[str, float]:
        if made.computed < SPEED_ROWS:
            raise LookupError(fingerprint)
        return {"rows_per_second": made.rows_per_second}

    try:
        return float(paths.kept("speeds", [fingerprint], measured)["rows_per_second"])
    except LookupError:
        return None
