"""Ranking joined to what it needs: sources by name, opened and remembered; the model without transfer."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork import ranking, registry, remembered, sources
from graftwork.backbones import open_backbone
from graftwork.backbones.base import Backbone
from graftwork.bench import Bench
from graftwork.errors import GraftworkError, RequestError
from graftwork.evaluation import declare_metric
from graftwork.folds import choose_k, folds
from graftwork.ranking.against import Baseline
from graftwork.records import Notify, Ranking, silent
from graftwork.rows import PLURAL, IntArray, Kind
from graftwork.sources import Source
from graftwork.starting import known_metric, ready
from graftwork.store import remember
from graftwork.strategies.base import Strategy, Task

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Picked:
    """The source that a ranking led to, a sentence why, and the ranking."""

    source: Source
    reason: str
    ranking: Ranking


def rank(
    data: Any,
    *,
    sources: str | Sequence[str] | None = None,
    budget: str | float | None = None,
    metric: str | None = None,
    baseline: bool = True,
    seed: int = 0,
    pooling: str | None = None,
    resize: str | None = None,
    offline: bool = False,
    notify: Notify = silent,
    **loading: Any,
) -> Ranking:
    """Which source to start from, measured on the rows that may be learnt from, and how sure that is.

    data, loading, metric: as for `fit`. sources: names (by default every one of this kind on this
    machine). budget: seconds, or such as "30s", "1m", "2h"; what it leaves out is said. baseline: also
    compare with `classical` on the same rows. Raises RequestError for what the caller can mend.
    """
    allowed = budget_seconds(budget)
    wanted = None if metric is None else known_metric(metric)
    dataset, _ = ready(data, seed=seed, notify=notify, **loading)
    declared = wanted or declare_metric(dataset.target.codes[dataset.split.index("train", "validation")])
    bench = Bench(dataset, declared, seed, notify)
    said, _ = ranked(
        bench.task(bench.learning),
        [sources] if isinstance(sources, str) else sources,
        budget=allowed,
        baseline=baseline,
        pooling=pooling,
        resize=resize,
        offline=offline,
        notify=notify,
    )
    return said


def budget_seconds(said: str | float | None) -> float | None:
    """Seconds of "30", "30s", "1m" or "2h", or of a number; None stays None. Raises RequestError."""
    if said is None:
        return None
    text = str(said).strip().lower()
    unit = text[-1:] if text[-1:] in ("s", "m", "h") else ""
    try:
        seconds = float(text.removesuffix(unit)) * _UNITS[unit]
    except ValueError:
        seconds = math.nan
    if not 0.0 < seconds < math.inf:
        raise RequestError(f"budget {said!r} is no time; expected seconds, or such as 30s, 1m, 2h")
    return seconds


def ranked(
    task: Task,
    names: Sequence[str] | None,
    *,
    budget: float | None,
    baseline: bool,
    pooling: str | None,
    resize: str | None,
    offline: bool,
    notify: Notify,
) -> tuple[Ranking, Mapping[str, Source]]:
    """The ranking of the sources named (None: all of this kind on this machine), and those by name."""
    found, refused = _found(task.kind, names, offline)

    def opening(source: Source, notify: Notify) -> Backbone:
        return remember(open_backbone(source, task.rows, pooling=pooling, resize=resize, notify=notify))

    said = ranking.rank(
        task,
        found,
        opening,
        refused=refused,
        budget=budget,
        baseline=_classical(task) if baseline else None,
        notify=notify,
    )
    return said, {source.name: source for source in found}


def picked(
    task: Task,
    *,
    budget: float | None,
    pooling: str | None,
    resize: str | None,
    offline: bool,
    notify: Notify,
    earlier: str | None = None,
) -> Picked | None:
    """What `--source auto` takes where several sources besides the packaged fit; None where fewer do.

    earlier: weights' SHA-256 of what an interrupted run had taken, which is taken again: a ranking under a
    budget may end otherwise another time.
    """
    fitting = sources.available(task.kind)
    if sum(source.origin != "packaged" for source in fitting) < 2:
        return None
    said, by_name = ranked(
        task,
        [source.name for source in fitting],
        budget=budget,
        baseline=False,  # the fit judges against models without transfer itself
        pooling=pooling,
        resize=resize,
        offline=offline,
        notify=notify,
    )
    again = [one for one in said.candidates if one.sha256 == earlier]
    if again and again[0] is not said.candidates[0]:
        reason = f"taken before the run was interrupted; ranked again: {said.sentence}"
        return Picked(by_name[again[0].name], reason, said)
    first = said.candidates[0]
    taken = "" if said.choice else f"; {first.name} was taken as the best by expectation"
    return Picked(by_name[first.name], f"ranked by measurement: {said.sentence}{taken}", said)


def _found(kind: Kind, names: Sequence[str] | None, offline: bool) -> tuple[list[Source], dict[str, str]]:
    """The sources of `names`, each once, and why others cannot be asked."""
    if names is None:
        found = sources.available(kind)
        if not found:
            raise RequestError(
                f"no source for {PLURAL[kind]} at hand; name one with --source, or list a folder of them in "
                "GRAFT_SOURCES"
            )
        return found, {}
    kept: dict[str, Source] = {}
    refused: dict[str, str] = {}
    for name in names:
        try:
            source = sources.find(name, offline=offline)
        except GraftworkError as error:
            refused[name] = str(error)
            continue
        if source.kind != kind:
            refused[name] = f"takes {PLURAL[source.kind]}, the data are {PLURAL[kind]}"
        elif source.name in kept and source.folder != kept[source.name].folder:
            kept[name] = replace(source, name=name)  # two folders of one name: told apart by their paths
        else:
            kept[source.name] = source
    return list(kept.values()), refused


def _classical(task: Task) -> Baseline:
    """`classical`'s answers for rows of the task, each fold's remembered."""
    recipe: Strategy = registry.get("strategies", "classical")()
    plain = recipe.basis(task.kind, None)
    basis = None if plain is None else remember(plain)

    def answers(index: IntArray) -> tuple[NDArray[np.float64], IntArray]:
        part = task.part(index)
        given = np.full((len(index), len(task.labels)), np.nan)
        place = np.full(len(index), -1, dtype=np.int64)
        drawn = folds(part.codes, part.groups, choose_k(part.codes), part.seed)
        for fold, (learn, held) in enumerate(drawn):
            learnt, asked = part.part(learn), part.rows.take(held)

            def fitted(learnt: Task = learnt, asked: IntArray = held) -> NDArray[np.float64]:
                return recipe.fit(learnt, basis, silent).answer(part.rows.take(asked)).probabilities

            given[held] = remembered.answers(recipe.name, learnt, asked, fitted)
            place[held] = fold
        return given, place

    return answers
