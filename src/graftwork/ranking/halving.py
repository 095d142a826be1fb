"""Successive halving: ever fewer sources are asked with ever more rows."""

from collections.abc import Sequence

import numpy as np

from graftwork.ranking.estimate import Course, Estimate, Rung, estimates, fused
from graftwork.ranking.looking import Look, Plan, noted
from graftwork.ranking.probing import out_of_fold
from graftwork.ranking.sample import answerable
from graftwork.records import Progress
from graftwork.rows import IntArray

HOPELESS = 0.01
"""Probability of being the best below which a source is asked no further."""
NEARLY_ALL = 2.5
"""All rows are asked at once where they are at most so many times the last sample."""
WORTH = 1.25
"""How much larger a sample must be to be worth asking."""


def halve(looks: Sequence[Look], plan: Plan) -> tuple[Course, list[Estimate], list[str]]:
    """The course of growing samples, what it says of each source, and what must be said of its end.

    Each rung asks at most half of the sources (two at least) with twice the rows, so that it costs about
    as much as the one before; the last has all rows, or two sources.
    """
    total, size = len(plan.task.codes), len(looks[0].matrix)
    alive, rungs, notes = list(range(len(looks))), list[Rung](), list[str]()
    scores = fused([one.separations for one in looks])
    while True:
        start = plan.clock()
        rungs.append(Rung(size, {s: _answers(looks[s], plan, size) for s in alive}))
        course = _course(plan, rungs)
        found = estimates(course, scores, plan.task.metric, plan.task.seed)
        if size == total or (len(rungs) > 1 and len(alive) <= 2):
            return course, found, notes
        probing = (plan.clock() - start) / len(alive)
        alive = _survivors(alive, found)
        wanted = total if total <= NEARLY_ALL * size else 2 * size
        alive, following = _in_time(looks, alive, plan, size, wanted, probing)
        if following < WORTH * size:
            notes.append(
                f"the budget of {plan.budget:g} s ended the comparison at {size:,} of {total:,} rows"
            )
            return course, found, notes
        alive = _grown(looks, alive, plan, following, notes)
        if not alive:
            return course, found, notes
        size = following


def _answers(one: Look, plan: Plan, size: int) -> IntArray:
    start, task, index = plan.clock(), plan.task, plan.order[:size]
    plan.notify(Progress(f"{one.name}: probe on {size:,} rows", 0, None))
    given = out_of_fold(
        one.matrix, task.codes[index], task.groups[index], task.weights[index], len(task.labels), task.seed
    )
    one.seconds += plan.clock() - start
    return np.asarray(given.argmax(axis=1))


def _course(plan: Plan, rungs: Sequence[Rung]) -> Course:
    task, index = plan.task, plan.order[: rungs[-1].size]
    asked = answerable(task.codes, task.groups)[index]
    return Course(
        task.codes[index], task.groups[index], asked, len(task.labels), len(task.codes), list(rungs)
    )


def _survivors(alive: Sequence[int], found: Sequence[Estimate]) -> list[int]:
    """The better half, without those that are hopeless; two at least, where there are two."""
    order = sorted(alive, key=lambda s: found[s].regret)
    half = order[: max(2, -(-len(order) // 2))]
    return [s for place, s in enumerate(half) if place < 2 or found[s].probability_best >= HOPELESS]


def _in_time(
    looks: Sequence[Look], alive: list[int], plan: Plan, size: int, wanted: int, probing: float
) -> tuple[list[int], int]:
    """(sources, rows) of the next rung: all that was wanted, else the two best, else fewer rows."""

    def cost(kept: Sequence[int]) -> float:
        growth = (wanted / size) ** 2
        return sum(looks[s].cost(wanted - size) + probing * growth for s in kept)

    for kept in (alive, alive[:2]):
        if cost(kept) <= plan.left:
            return kept, wanted
    if plan.left <= 0:
        return alive, size
    part = plan.left / cost(alive[:2])
    return alive[:2], int(size + part * (wanted - size))


def _grown(looks: Sequence[Look], alive: Sequence[int], plan: Plan, size: int, notes: list[str]) -> list[int]:
    kept, failed = [], dict[str, str]()
    for s in alive:
        with noted(failed, looks[s].name):
            looks[s].grow(plan, size)
            kept.append(s)
    notes += [f"{name} was asked no further: {reason}" for name, reason in failed.items()]
    return kept
