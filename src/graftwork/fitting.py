"""One fit, step by step: look at the data, open the source, learn, judge, put together what was found.

A strategy that takes its time is preceded by the probe, so that there is an answer from the first seconds
on; its learning curve is the probe's. Under a budget each step leaves time for those that follow.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from graftwork import bench as benches
from graftwork import choosing, finding, registry, running, showing, wire
from graftwork.backbones.base import Backbone
from graftwork.bench import Bench, Held
from graftwork.evaluation import declare_metric
from graftwork.model import Model
from graftwork.outcome import Outcome
from graftwork.records import Extraction, Metric, Notify, Result, Trial, Verdict
from graftwork.rows import UNLABELLED
from graftwork.running import Run
from graftwork.starting import open_source, opened, ready, summarise
from graftwork.store import remember
from graftwork.strategies.base import Strategy
from graftwork.timing import Clock, changed_seconds

WITHOUT_TRANSFER: Mapping[str, tuple[str, ...]] = {
    "all": ("classical", "scratch"),
    "classical": ("classical",),
    "none": (),
}
SCRATCH_SECONDS = 20.0
"""The least time a network with fresh weights gets; more where the cold transfer itself cost more."""
RANKING_SHARE, SCRATCH_SHARE, CURVE_SHARE, SPARE_SHARE = 0.2, 0.1, 0.05, 0.03
"""Parts of a budget for choosing a source, for the network from scratch, for the learning curve, and what
is kept back because steps do not take twice the same time."""
LEAST_SEARCH_S = 2.0
"""Less time than this is none: the answer is the probe's."""

Interim = Callable[[Outcome], None]


@dataclass(frozen=True)
class Request:
    """What was asked of a fit. strategy: as the record names it. budget: seconds."""

    recipe: Strategy
    source: str
    metric: Metric | None
    baselines: str
    budget: float | None
    seed: int
    pooling: str | None
    resize: str | None
    offline: bool
    run: Path | None = None
    resume: bool = False


@dataclass(frozen=True)
class Learnt:
    """A strategy's model and its answers on rows it did not see."""

    recipe: Strategy
    model: Model
    held: Held


class Fitting:
    """The steps of one fit, in the order of `all`; each leaves what it found for those after it."""

    def __init__(self, request: Request, interim: Interim | None, notify: Notify) -> None:
        self.request, self.interim, self.notify = request, interim, notify
        self.clock = Clock(request.budget)
        self.run: Run | None = None

    def all(self, data: Any, loading: Mapping[str, Any]) -> Outcome:
        recipe = self.request.recipe
        self.look(data, loading)
        self.open_source()
        self.begin_run()
        self.extract()
        if recipe.quick or self.basis is None:
            seconds = None if recipe.quick or self.request.budget is None else max(self.time_each(), 1.0)
            answer = self.learn(recipe, seconds)
            self.judge_rivals(answer)
            return self.outcome(answer, answer)
        first = self.learn(registry.get("strategies", "probe")(), None)
        self.judge_rivals(first)
        begun = time.perf_counter()
        outcome = self.outcome(first, first)
        if self.interim is not None:
            with self.clock("saving the first answer"):
                self.interim(outcome)
        reserve = time.perf_counter() - begun
        seconds = self.search_seconds(reserve)
        if seconds is not None and seconds < LEAST_SEARCH_S:
            return self.too_short(outcome)
        return self.outcome(self.learn(recipe, seconds), first)

    def look(self, data: Any, loading: Mapping[str, Any]) -> None:
        """The rows, their inspection and final split, the metric, the bench they are measured on."""
        request = self.request
        with self.clock("inspection"):
            self.dataset, self.found = ready(data, seed=request.seed, notify=self.notify, **loading)
            codes = self.dataset.target.codes[self.dataset.split.index("train", "validation")]
            self.metric = request.metric or declare_metric(codes)
            # a slow strategy is fitted once a fold, not twice
            repeats = benches.REPEATS if request.recipe.quick else 1
            self.bench = Bench(self.dataset, self.metric, request.seed, self.notify, repeats)

    def open_source(self) -> None:
        """The source, ranked first where several fit, and the backbone that the strategy builds on."""
        request, recipe = self.request, self.request.recipe
        options: dict[str, Any] = {
            "pooling": request.pooling, "resize": request.resize, "notify": self.notify
        }  # fmt: skip
        with self.clock("ranking"):
            budget = request.budget
            if budget is not None and not recipe.quick:
                budget = min(RANKING_SHARE * budget, self.clock.left)
            task = self.bench.task(self.bench.learning)
            ranks = request.source == "auto" and recipe.transfers
            earlier = running.source_of(request.run) if request.resume and request.run else None
            self.picked = (
                choosing.picked(task, budget=budget, offline=request.offline, earlier=earlier, **options)
                if ranks
                else None
            )
        with self.clock("features"):
            if self.picked is None:
                at = open_source(
                    self.dataset, request.source, recipe, request.pooling, request.resize, request.offline,
                    self.notify,
                )  # fmt: skip
            else:
                at = opened(self.dataset, self.picked.source, self.picked.reason, **options)
            self.source = at[1] if at else None
            basis = recipe.basis(self.dataset.kind, at[0] if at else None)
            self.basis: Backbone | None = None if basis is None else remember(basis)

    def begin_run(self) -> None:
        """The folder of the run, for a strategy that takes its time; what it asks for is in it."""
        request, recipe = self.request, self.request.recipe
        self.summary = summarise(self.dataset, self.found)
        if request.run is None or (recipe.quick and not request.resume):
            return
        asked = {
            "data": self.summary.digest,
            "source": None if self.source is None else self.source.sha256,
            "strategy": recipe.name,
            "settings": wire.plain(finding.settings_of(recipe)),
            "metric": self.metric,
            "budget": request.budget,
            "seed": request.seed,
            "pooling": request.pooling,
            "resize": request.resize,
            "versions": finding.versions(),
        }
        self.run = running.begin(request.run, asked, resume=request.resume)
        self.clock.before = self.run.before
        self.notify = self.bench.notify = self.run.watched(self.notify)

    def extract(self) -> None:
        """Compute every labelled row's features once, so that whatever follows reads them from the store."""
        self.extraction: Extraction | None = None
        if self.basis is not None:
            with self.clock("features"):
                index = np.flatnonzero(self.dataset.target.codes != UNLABELLED)
                self.extraction = self.basis.features(self.dataset.rows.take(index), self.notify).extraction

    def learn(self, recipe: Strategy, seconds: float | None) -> Learnt:
        """The model of all rows that may be learnt from, and the strategy's answers on held rows."""
        checkpoints = None if self.run is None or recipe.quick else self.run.checkpoints
        with self.clock("head"):
            model = self.bench.fit(recipe, self.basis, seconds, checkpoints)
            if self.basis is not None and model.backbone.fingerprint != self.basis.fingerprint:
                # asked several times below: for held rows, for what is familiar, for the map
                model = replace(model, backbone=remember(model.backbone))
        with self.clock("evaluation"):
            held = self.bench.answers(recipe, self.basis, model, seconds, checkpoints)
        return Learnt(recipe, model, held)

    def judge_rivals(self, first: Learnt) -> None:
        """The models without transfer, and the learning curve of what is quick to learn."""
        rivals: dict[str, Held] = {}
        self.left_out = False
        asked = WITHOUT_TRANSFER[self.request.baselines]
        with self.clock("baselines"):
            full = max(SCRATCH_SECONDS, self._cold_seconds())
            seconds = self.clock.share(SCRATCH_SHARE, full)
            for name in asked:
                if name == self.request.recipe.name:
                    continue
                # what an earlier attempt made is remembered and takes no time now
                if self.clock.left < seconds and not (self.run is not None and self.run.resumed):
                    self.left_out = True
                    continue
                rivals[name] = self.bench.rival(name, seconds, short=seconds < SCRATCH_SECONDS)
        self.rivals = rivals
        with self.clock("learning curve"):
            seconds = min(self.clock.share(CURVE_SHARE, benches.CURVE_SECONDS), max(self.clock.left, 0.0))
            self.curve = finding.curve_of(
                self.bench, first.recipe, first.held, self.basis, rivals, seconds, self.request.recipe.quick
            )

    def _cold_seconds(self) -> float:
        """What the transfer costs without a store, as far as this run can tell."""
        made = self.extraction
        if made is None or not made.computed:
            return 0.0
        return made.rows / made.rows_per_second + self.clock.seconds["head"]

    def search_seconds(self, reserve: float) -> float | None:
        """What a slow strategy may spend on one fit; None without a budget. reserve: for an outcome."""
        if self.request.budget is None:
            return None
        assert self.basis is not None
        with self.clock("features"):
            start_up, a_row = changed_seconds(self.basis, self.dataset.rows)
        rows = len(self.bench.learning) + len(self.bench.test)
        fits = self._fits()
        # each row is asked once of the final model, and once more where it is held out of a fold
        reserve += fits * start_up + a_row * rows * (1 if fits == 1 else 2)
        each = (self.clock.left - reserve - SPARE_SHARE * self.request.budget) / fits
        if self.run is None:
            return each
        if self.request.recipe.name == "auto":
            # it spends what there is; what an earlier attempt found is worth the time to put it together
            return max(each, LEAST_SEARCH_S) if self.run.resumed else each
        decided = self.run.decided("seconds", each)
        assert isinstance(decided, float)
        return decided

    def time_each(self) -> float:
        """What is left of the budget for one fit of a strategy that has no features to look at first."""
        return (1 - SPARE_SHARE) * self.clock.left / self._fits()

    def _fits(self) -> int:
        return 1 if len(self.bench.test) else len(self.bench.splits) + 1

    def too_short(self, first: Outcome) -> Outcome:
        """The probe's answer, and why it is."""
        remark = (
            f"the budget of {self.request.budget:g} s left no time for {self.request.recipe.name} "
            f"({self.clock.spent:.0f} s went before it), so the answer is the probe's; allow more"
        )
        settings = {**first.model.settings, "remark": remark}
        result = replace(first.result, settings=settings, seconds=self.clock.total())
        return replace(first, model=replace(first.model, settings=settings), result=result, run=self.run)

    def outcome(self, answer: Learnt, first: Learnt) -> Outcome:
        """Everything that was found out about `answer`. first: the probe's, where that came first."""
        dataset, bench = self.dataset, self.bench
        verdict, silence = self._verdict(answer, first)
        with self.clock("familiarity"):
            model = finding.familiar(answer.model, bench)
        with self.clock("report data"):
            held, probabilities = bench.shown(answer.held)
            mistakes = showing.mistakes(dataset, held, probabilities)
            learnt = bench.task(bench.learning)
            shown = showing.feature_map(model, learnt.rows, learnt.codes, dataset, held, probabilities)
            unknown = finding.unknown_rate(model, bench)
            assessment = bench.assess(answer.held)
            baselines = {name: bench.assess(answers) for name, answers in self.rivals.items()}
        settings = wire.plain(model.settings)
        training_curve = tuple(map(tuple, settings.pop("training_curve", ())))
        trials = tuple(Trial(**one) for one in settings.pop("trials", ()))
        result = Result(
            dataset=self.summary,
            source=self.source,
            strategy=answer.recipe.name,
            settings=settings,
            seed=self.request.seed,
            metric=self.metric,
            extraction=self.extraction,
            assessed_on=bench.assessed_on,
            assessment=assessment,
            baselines=baselines,
            verdict=verdict,
            no_verdict=silence,
            curve=self.curve,
            mistakes=mistakes,
            map=shown,
            unknown_rate=unknown,
            seconds=self.clock.total(),
            versions=finding.versions(),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            training_curve=training_curve,
            ranking=None if self.picked is None else self.picked.ranking,
            trials=trials,
            budget=self.request.budget,
        )
        run = self.run if answer.recipe is self.request.recipe else None
        return Outcome(replace(model, settings=settings), result, finding.probe_rows(bench), run)

    def _verdict(self, answer: Learnt, first: Learnt) -> tuple[Verdict | None, str | None]:
        caution = finding.caution(self.basis, self.dataset.rows)
        if self.left_out and not self.rivals:
            return None, f"the budget of {self.request.budget:g} s left no time for a model without transfer"
        chosen = answer.model.settings.get("chosen", answer.recipe.name)
        judged = answer
        if chosen != answer.recipe.name and not finding.transfers(chosen):
            judged = first
            said = f"this is the verdict on the probe, as auto chose {chosen}, which does not transfer"
            caution = said if caution is None else f"{caution}; {said}"
        return self.bench.verdict(judged.recipe, judged.held, self.rivals, caution)
