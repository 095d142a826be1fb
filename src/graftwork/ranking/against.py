"""The best source beside not transferring, on the same rows and folds."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graftwork.intervals import effective_wilson, grouping
from graftwork.ranking.estimate import LEVEL, Course, Rung, difference, influence_of
from graftwork.ranking.looking import Look, Plan
from graftwork.ranking.probing import out_of_fold
from graftwork.records import Progress, Score
from graftwork.rows import IntArray

PILOT = 200
"""Rows that tell what the model without transfer costs, where there is a budget."""
GROWTH = 1.5
"""How much more than in proportion to the rows it may cost."""

Baseline = Callable[[IntArray], tuple[NDArray[np.float64], IntArray]]
"""Rows (positions in the task) -> what a model without transfer answers for each, fitted without the row's
fold: probabilities (rows, classes), NaN where a row was not asked, and the folds (rows,)."""


@dataclass(frozen=True)
class Against:
    """The metric of not transferring, and how far the best source lies above it (fractions)."""

    score: Score
    ahead: Score


def without_transfer(
    leader: Look, plan: Plan, baseline: Baseline | None, rows: int
) -> tuple[Against | None, list[str]]:
    """`leader` against the baseline on the first `rows` of the sample, fewer where the budget asks for it.

    Also what must be said about it. The leader's probe is fitted in the baseline's own folds, so that
    both learn from the same rows.
    """
    if baseline is None:
        return None, []
    if plan.left <= 0:
        return None, [f"the model without transfer was left out: the budget of {plan.budget:g} s was spent"]
    plan.notify(Progress("without transfer", 0, None))
    notes = []
    if plan.budget is not None and rows > PILOT:
        start = plan.clock()
        baseline(plan.order[:PILOT])
        each = GROWTH * (plan.clock() - start) / PILOT
        allowed = int(plan.left / each) if each > 0 else rows
        if allowed < rows:
            rows = max(PILOT, allowed)
            notes = [f"the model without transfer was compared on {rows:,} rows, which the budget allowed"]
    return _beside(leader, plan, rows, *baseline(plan.order[:rows])), notes


def _beside(leader: Look, plan: Plan, rows: int, given: NDArray[np.float64], folds: IntArray) -> Against:
    index, task = plan.order[:rows], plan.task
    codes, groups, classes = task.codes[index], task.groups[index], len(task.labels)
    ours = out_of_fold(leader.matrix[:rows], codes, folds, task.weights[index], classes, task.seed)
    asked = ~np.isnan(given[:, 0])
    theirs = np.where(asked[:, None], given, 0.0)
    rung = Rung(rows, {0: ours.argmax(axis=1), 1: theirs.argmax(axis=1)})
    course = Course(codes, groups, asked, classes, rows, [rung])
    value, influence = influence_of(task.metric, codes[asked], rung.answers[1][asked], classes)
    together = grouping(groups[asked])
    ends = effective_wilson(value, influence, together, float(asked.sum()), LEVEL)
    count = int(asked.sum())
    ahead = Score(task.metric, *difference(course, task.metric, task.seed), count, LEVEL)
    return Against(Score(task.metric, value, *ends, count, LEVEL), ahead)
