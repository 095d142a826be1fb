"""The rows on which candidates are compared: the same for all, so that every comparison is paired."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from graftwork.errors import RequestError
from graftwork.folds import Fold, choose_k, folds
from graftwork.rows import IntArray
from graftwork.strategies.base import Task
from graftwork.training import hold_out

FOLDS_BELOW = 1_500
"""Rows below which candidates are compared on folds: a tenth of them would decide by a handful of rows."""
SHARE = 0.1
HOLDS_OUT = frozenset({"partial", "full", "lora", "scratch"})
"""Strategies that never learn from rows marked for validation, and choose their epoch by them."""


@dataclass(frozen=True)
class Validation:
    """folds: (positions to learn from, positions to be asked) a fold; no row is asked twice.

    origin: "given" by the user, a part "held out" of the rows, or "folds" of all rows. Empty where
    nothing can be held out.
    """

    folds: tuple[Fold, ...]
    origin: Literal["given", "held out", "folds"]

    @property
    def asked(self) -> IntArray:
        """Every row that is asked, ascending."""
        return np.sort(np.concatenate([held for _, held in self.folds]))


def validation_of(task: Task) -> Validation:
    """The user's validation rows, else a tenth of many rows, else folds of few."""
    given = given_rows(task)
    if given.any():
        return Validation((_fold(given),), "given")
    if len(task.codes) >= FOLDS_BELOW:
        held = hold_out(task.codes, task.groups, SHARE, task.seed)
        if held.any():
            return Validation((_fold(held),), "held out")
    try:
        found = folds(task.codes, task.groups, choose_k(task.codes), task.seed)
    except RequestError:
        found = []
    return Validation(tuple(found), "folds")


def given_rows(task: Task) -> NDArray[np.bool_]:
    """(rows,) the user's validation rows, without those whose group is also learnt from.

    None at all where a class would not be learnt.
    """
    shared = np.isin(task.groups, task.groups[~task.validation])
    held = np.asarray(task.validation & ~shared)
    missing = np.setdiff1d(task.codes, task.codes[~held])
    return np.zeros_like(held) if len(missing) else held


def trial_task(task: Task, fold: Fold, strategy: str, seconds: float | None) -> Task:
    """What a trial of `strategy` may learn from.

    A strategy that holds validation rows out by itself sees them marked, and chooses its epoch by
    them; any other gets the rows to learn from alone, since it may learn from validation rows too.
    """
    learnt, held = fold
    if strategy in HOLDS_OUT:
        marked = np.zeros(len(task.codes), dtype=bool)
        marked[held] = True
        return replace(task, validation=marked, seconds=seconds)
    part = task.part(learnt)
    return replace(part, validation=np.zeros(len(learnt), dtype=bool), seconds=seconds)


def _fold(held: NDArray[np.bool_]) -> Fold:
    return np.flatnonzero(~held).astype(np.int64), np.flatnonzero(held).astype(np.int64)
