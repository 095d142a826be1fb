"""The only joiner: data in, an Outcome out. Every step is a module of its own; none knows the next."""

import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from graftwork import artefact, choosing, registry, showing, wire
from graftwork.backbones.base import Backbone, labelled_matrix
from graftwork.bench import Bench, Held
from graftwork.datasets import load
from graftwork.errors import RequestError
from graftwork.evaluation import assess, declare_metric
from graftwork.inspection import inspect, readable
from graftwork.model import Model
from graftwork.records import (
    Assessment,
    Extraction,
    LearningCurve,
    Notify,
    Result,
    Verdict,
    silent,
)
from graftwork.rows import PLURAL, UNLABELLED, Dataset, IntArray, Rows
from graftwork.seen import seen_rows
from graftwork.starting import known_metric, open_source, opened, ready, summarise
from graftwork.store import remember
from graftwork.strategies.base import Strategy
from graftwork.unknown import Familiarity

WITHOUT_TRANSFER: Mapping[str, tuple[str, ...]] = {
    "all": ("classical", "scratch"),
    "classical": ("classical",),
    "none": (),
}
SCRATCH_SECONDS = 20.0
"""The least time a network with fresh weights gets; more where the cold transfer itself cost more."""
PROBE_ROWS = 8


class RowsWarning(UserWarning):
    """Rows of the caller's were left out."""


@dataclass(frozen=True)
class Outcome:
    """What `fit` gives back: a model, all that was found out about it, and the rows of its probe."""

    model: Model
    result: Result
    probe: Rows = field(repr=False)

    @property
    def verdict(self) -> Verdict | None:
        """Did the transfer help? None where no baseline was asked for."""
        return self.result.verdict

    @property
    def scores(self) -> Mapping[str, Any]:
        """metric -> Score on rows that no strategy saw."""
        return self.result.assessment.scores

    def report(self, *, examples: bool = True) -> str:
        """The report as one HTML page; without `examples` no row's name or content is in it."""
        from graftwork.report import render

        return render(self.result if examples else _without_examples(self.result))

    def save(self, folder: str | Path, *, examples: bool = True, bundle: bool = False) -> Path:
        """Write the artefact (see artefact.save) and return its folder."""
        result = self.result if examples else _without_examples(self.result)
        return artefact.save(
            self.model,
            Path(folder),
            strategy=result.strategy,
            result=wire.result(result),
            versions=result.versions,
            created=result.created,
            report=self.report(examples=examples),
            probe=self.probe if examples else artefact.synthetic_rows(self.model.backbone.kind),
            examples=examples,
            bundle=bundle,
        )


class _Clock:
    """Wall-clock seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._start = time.perf_counter()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start

    def total(self) -> dict[str, float]:
        return {**self.seconds, "total": time.perf_counter() - self._start}


def fit(
    data: Any,
    *,
    source: str = "auto",
    strategy: str = "probe",
    metric: str | None = None,
    baselines: str = "all",
    budget: str | float | None = None,
    seed: int = 0,
    pooling: str | None = None,
    resize: str | None = None,
    offline: bool = False,
    notify: Notify = silent,
    **loading: Any,
) -> Outcome:
    """Learn a task from labelled data on a pretrained source, and judge whether the transfer helped.

    data: whatever `load` takes, or a Dataset. loading: options of `load` (text, file, label, group,
    split, labels). metric: declared before anything is fitted; by default accuracy, or balanced
    accuracy where classes are unbalanced. source "auto": the only one at hand, or the best by `rank`,
    for which budget (seconds, or such as "1m") is. Raises RequestError for what the caller can mend.
    """
    allowed = choosing.budget_seconds(budget)
    wanted = None if metric is None else known_metric(metric)
    if baselines not in WITHOUT_TRANSFER:
        raise RequestError(f"baselines {baselines!r} is not known; expected all, classical or none")
    clock = _Clock()
    recipe: Strategy = registry.get("strategies", strategy)()
    with clock("inspection"):
        dataset, found = ready(data, seed=seed, notify=notify, **loading)
    declared = wanted or declare_metric(dataset.target.codes[dataset.split.index("train", "validation")])
    bench = Bench(dataset, declared, seed, notify)
    with clock("ranking"):
        options: dict[str, Any] = {"pooling": pooling, "resize": resize, "notify": notify}
        ranks = source == "auto" and recipe.transfers
        task = bench.task(bench.learning)
        picked = choosing.picked(task, budget=allowed, offline=offline, **options) if ranks else None
    with clock("features"):
        if picked is None:
            source_opened = open_source(dataset, source, recipe, pooling, resize, offline, notify)
        else:
            source_opened = opened(dataset, picked.source, picked.reason, **options)
        basis = recipe.basis(dataset.kind, source_opened[0] if source_opened else None)
        basis = None if basis is None else remember(basis)
        extraction = _extract(dataset, basis, notify)
    with clock("head"):
        model = bench.fit(recipe, basis)
    with clock("evaluation"):
        ours = bench.answers(recipe, basis, model)
        assessment = bench.assess(ours)
    with clock("baselines"):
        seconds = max(SCRATCH_SECONDS, _cold_seconds(extraction, clock))
        asked = [name for name in WITHOUT_TRANSFER[baselines] if name != strategy]
        rivals = {name: bench.rival(name, seconds) for name in asked}
        verdict, silence = bench.verdict(recipe, ours, rivals, _caution(basis, dataset))
    with clock("learning curve"):
        curve = _curve(bench, recipe, basis, {strategy: ours, **rivals})
    with clock("familiarity"):
        model = _familiar(model, bench)
    with clock("report data"):
        held, probabilities = bench.shown(ours)
        mistakes = showing.mistakes(dataset, held, probabilities)
        learnt = bench.task(bench.learning)
        feature_map = showing.feature_map(model, learnt.rows, learnt.codes, dataset, held, probabilities)
        unknown = _unknown_rate(model, dataset, bench.test)
    settings = wire.plain(model.settings)
    training_curve = tuple(map(tuple, settings.pop("training_curve", ())))
    result = Result(
        dataset=summarise(dataset, found),
        source=source_opened[1] if source_opened else None,
        strategy=strategy,
        settings=settings,
        seed=seed,
        metric=declared,
        extraction=extraction,
        assessed_on=bench.assessed_on,
        assessment=assessment,
        baselines={name: bench.assess(answers) for name, answers in rivals.items()},
        verdict=verdict,
        no_verdict=silence,
        curve=curve,
        mistakes=mistakes,
        map=feature_map,
        unknown_rate=unknown,
        seconds=clock.total(),
        versions=versions(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        training_curve=training_curve,
        ranking=None if picked is None else picked.ranking,
    )
    return Outcome(replace(model, settings=settings), result, _probe(dataset, bench.test))


def evaluate(
    model: Model, data: Any, *, seed: int = 0, notify: Notify = silent, **loading: Any
) -> Assessment:
    """Scores of a finished model on labelled rows: the test part where the data has one, else all.

    Near-duplicates count as one group, as in `fit`, so that both give the same intervals. Rows that
    cannot be read are left out with a RowsWarning, up to 5% of them. Raises RequestError where there
    are more, and where a row carries a label that the model does not know.
    """
    dataset = data if isinstance(data, Dataset) else load(data, **loading)
    if dataset.kind != model.backbone.kind:
        raise RequestError(
            f"{dataset.name} holds {PLURAL[dataset.kind]}; expected labelled {PLURAL[model.backbone.kind]}, "
            "as the model answers for them"
        )
    found = inspect(dataset, remember, notify)
    dataset = readable(dataset, found)
    if found.unreadable:
        name, reason = next(iter(found.unreadable.items()))
        said = f"{len(found.unreadable_rows)} of {found.rows} rows cannot be read and are left out"
        warnings.warn(f"{said}, such as {name}: it {reason}", RowsWarning, stacklevel=2)
    test = dataset.split.index("test")
    index = test if len(test) else np.arange(len(dataset))
    index = index[dataset.target.codes[index] != UNLABELLED]
    if not len(index):
        raise RequestError(
            f"{dataset.name} has no labelled row to evaluate on; give labels, or use graft predict"
        )
    strangers = sorted({dataset.labels[c] for c in dataset.target.codes[index]} - set(model.labels))
    if strangers:
        raise RequestError(
            f"the model does not know the labels {', '.join(strangers[:5])}; "
            f"it knows {', '.join(model.labels[:20])}"
        )
    known = {label: code for code, label in enumerate(model.labels)}
    translate = np.array([known.get(label, UNLABELLED) for label in dataset.labels])
    answers = model.answer(dataset.rows.take(index), notify)
    if answers.unreadable:  # a file may go between the look at it and the answer
        i, reason = next(iter(answers.unreadable.items()))
        raise RequestError(
            f"{dataset.rows.names[index[i]]} {reason}, and could be read a moment ago; evaluate again"
        )
    truth = translate[dataset.target.codes[index]]
    assert dataset.groups is not None
    return assess(truth, answers.probabilities, model.labels, groups=dataset.groups[index], seed=seed)


def _extract(dataset: Dataset, basis: Backbone | None, notify: Notify) -> Extraction | None:
    """Compute every labelled row's features once, so that whatever follows reads them from the store."""
    if basis is None:
        return None
    index = np.flatnonzero(dataset.target.codes != UNLABELLED)
    return basis.features(dataset.rows.take(index), notify).extraction


def _cold_seconds(extraction: Extraction | None, clock: _Clock) -> float:
    """What the transfer costs without a store, as far as this run can tell."""
    if extraction is None or not extraction.computed:
        return 0.0
    return extraction.rows / extraction.rows_per_second + clock.seconds["head"]


def _curve(
    bench: Bench, recipe: Strategy, basis: Backbone | None, full: Mapping[str, Held]
) -> LearningCurve | None:
    """The transfer's curve beside that of `classical`; a network from scratch is too slow to repeat."""
    if not recipe.transfers:
        return None
    learners: dict[str, tuple[Strategy, Backbone | None]] = {recipe.name: (recipe, basis)}
    if "classical" in full:
        classical: Strategy = registry.get("strategies", "classical")()
        plain = classical.basis(bench.dataset.kind, None)
        learners["classical"] = (classical, None if plain is None else remember(plain))
    return bench.curve(learners, recipe.name, full)


def _caution(basis: Backbone | None, dataset: Dataset) -> str | None:
    """What to say where the source, as far as is known, was pretrained on rows of this very dataset."""
    source = None if basis is None else basis.state().source
    seen = None if source is None else seen_rows(source, dataset.rows)
    if source is None or not seen:
        return None
    return f"{source.name} was pretrained on {seen:,} of these {len(dataset):,} rows"


def _familiar(model: Model, bench: Bench) -> Model:
    learnt = bench.task(bench.learning)
    matrix = labelled_matrix(model.backbone, learnt.rows)
    return replace(model, familiarity=Familiarity.fit(matrix, learnt.codes, learnt.groups, seed=learnt.seed))


def _unknown_rate(model: Model, dataset: Dataset, test: IntArray) -> float | None:
    if model.familiarity is None or not len(test):
        return None
    return float(model.answer(dataset.rows.take(test)).unknown.mean())


def _probe(dataset: Dataset, test: IntArray) -> Rows:
    index = test if len(test) else np.arange(len(dataset))
    return dataset.rows.take(index[:: max(1, len(index) // PROBE_ROWS)][:PROBE_ROWS])


def versions() -> dict[str, str]:
    """Versions of what shapes the numbers."""
    return {
        name: version(name)
        for name in ("graftwork", "numpy", "torch", "openvino", "transformers", "scikit-learn")
    }


def _without_examples(result: Result) -> Result:
    """The same result with nothing of any row: no names, pictures or texts."""
    data = replace(result.dataset, unreadable={}, notes=())
    return replace(result, dataset=data, mistakes=())
