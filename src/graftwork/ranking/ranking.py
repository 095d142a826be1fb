"""The order of things: look at every source, score it, ask the best with more rows, compare, say it."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from graftwork.backbones.base import Backbone
from graftwork.backbones.classifier import own_classifier, source_probabilities
from graftwork.errors import RequestError
from graftwork.ranking import saying
from graftwork.ranking.against import Baseline, without_transfer
from graftwork.ranking.estimate import Estimate
from graftwork.ranking.halving import halve
from graftwork.ranking.looking import Look, Plan, look, noted
from graftwork.ranking.sample import answerable, nested
from graftwork.ranking.significance import standing_out
from graftwork.records import Candidate, Notify, Progress, Ranking, Transferability, silent
from graftwork.sources import Source
from graftwork.strategies.base import Task
from graftwork.transferability import separations, shufflings

SAMPLE = 1_000
"""Rows of the first sample; all rows where they are hardly more."""
HARDLY_MORE = 1.25
EACH_CLASS = 10
"""Rows a class of the first sample, where there are so many."""
LEAST = 50
"""Rows of the first sample at least, whatever the budget."""
SCORED = 500
"""Rows that are scored and shuffled; p needs no more, and the probes see them all."""
SHUFFLINGS = 99
STANDS_OUT = 0.05


def rank(
    task: Task,
    sources: Sequence[Source],
    opening: Callable[[Source, Notify], Backbone],
    *,
    refused: Mapping[str, str] | None = None,
    budget: float | None = None,
    baseline: Baseline | None = None,
    clock: Callable[[], float] = time.perf_counter,
    notify: Notify = silent,
) -> Ranking:
    """Which of `sources` to start from, for rows that may be learnt from, and how sure that is.

    opening: gives a source's backbone, one that remembers. refused: names known not to work, and why.
    budget: seconds; what it left out is said. Raises RequestError where no source can be looked at,
    and where no class has two rows that may be parted.
    """
    plan = Plan(task, nested(task.codes, task.groups, task.seed), budget, clock, clock(), notify)
    if not answerable(task.codes, task.groups).any():
        raise RequestError(
            "every class has one row (or one group) alone, so no answer can be checked against another; "
            "expected a second row of some class: add labels, or name one source with --source"
        )
    looks, missing = look(sources, plan, opening, *_sizes(task))
    missing = {**(refused or {}), **missing}
    if not looks:
        said = "; ".join(f"{name}: {reason}" for name, reason in missing.items()) or "none was given"
        raise RequestError(f"no source could be looked at ({said}); name others with --source")
    p, remarks = _score(looks, plan)
    course, found, notes = halve(looks, plan)
    best_first = sorted(range(len(looks)), key=lambda s: (-found[s].expected.value, found[s].regret))
    leader, rows = looks[best_first[0]], course.rungs[-1].size
    against, omitted = without_transfer(leader, plan, baseline, len(leader.matrix))
    notes = [*_unasked(task), *remarks, *notes, *omitted]
    candidates = [_candidate(looks[s], found[s], course.rungs[course.last(s)].size) for s in best_first]
    return Ranking(
        metric=task.metric,
        choice=candidates[0].name if p <= STANDS_OUT else None,
        candidates=tuple(
            replace(one, reason=saying.why(place, candidates, rows)) for place, one in enumerate(candidates)
        ),
        baseline=None if against is None else against.score,
        ahead=None if against is None else against.ahead,
        p=p,
        rows=rows,
        budget=budget,
        seconds=clock() - plan.begun,
        refused=missing,
        sentence=saying.whole(candidates, p, STANDS_OUT, against, notes),
    )


def _sizes(task: Task) -> tuple[int, int]:
    """Rows of the first sample: wanted, and the least that a budget may leave."""
    rows, classes = len(task.codes), len(task.labels)
    wanted = max(SAMPLE, EACH_CLASS * classes)
    wanted = rows if rows <= HARDLY_MORE * wanted else wanted
    return wanted, min(wanted, max(LEAST, 2 * classes))


def _unasked(task: Task) -> list[str]:
    count = int((~answerable(task.codes, task.groups)).sum())
    if not count:
        return []
    return [f"{count:,} of {len(task.codes):,} rows cannot be asked: no other row or group has their class"]


def _score(looks: Sequence[Look], plan: Plan) -> tuple[float, list[str]]:
    """Score every source against the same shufflings; p of the strongest of all, and what must be said."""
    task, most = plan.task, max(SCORED, EACH_CLASS * len(plan.task.labels))
    index = plan.order[: min(most, len(looks[0].matrix))]
    codes = np.unique(task.codes[index], return_inverse=True)[1].astype(np.int64)
    groups = task.groups[index]
    labellings = shufflings(codes, groups, SHUFFLINGS, task.seed)
    without: dict[str, str] = {}
    for done, one in enumerate(looks):
        plan.notify(Progress("scores against shuffled labels", done, len(looks), "sources"))
        start = plan.clock()
        features = one.matrix[: len(index)]
        said = None
        with noted(without, one.name):
            own = own_classifier(one.source, one.backbone)
            said = None if own is None else source_probabilities(features, own)
        one.separations = separations(features, codes, groups, labellings, source_probabilities=said)
        one.seconds += plan.clock() - start
    remarks = [f"{name} is scored without its own labels: {reason}" for name, reason in without.items()]
    return standing_out([one.separations for one in looks]), remarks


def _candidate(one: Look, found: Estimate, rows: int) -> Candidate:
    return Candidate(
        name=one.name,
        sha256=one.source.weights_sha256,
        licence=one.source.licence,
        width=one.backbone.width,
        rows=rows,
        expected=found.expected,
        probability_best=found.probability_best,
        regret=found.regret,
        scores=tuple(Transferability(s.name, s.value, s.z, s.p) for s in one.separations),
        seconds=one.seconds,
        memory=one.memory,
        rows_per_second=one.rate,
        reason="",
    )
