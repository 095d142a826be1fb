"""Fits any strategy on the same rows and asks it on the same held rows, so that scores compare."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from graftwork import registry, remembered
from graftwork.backbones.base import Backbone
from graftwork.curve import FitPredict, learning_curve
from graftwork.evaluation import assess, measure
from graftwork.folds import choose_k, repeated
from graftwork.model import Model
from graftwork.records import Assessment, LearningCurve, Metric, Notify, Progress, Verdict, silent
from graftwork.rows import UNLABELLED, Dataset, IntArray
from graftwork.store import remember
from graftwork.strategies.base import Strategy, Task
from graftwork.training.checkpoints import Checkpoints
from graftwork.verdict import judge, judge_folds

REPEATS = 2
"""Times that the folds are drawn where there is no test part and fitting takes seconds at most."""
CURVE_SECONDS = 15.0


@dataclass(frozen=True)
class Held:
    """A procedure's answers on rows it did not see: (positions in the dataset, probabilities) a split."""

    rows: tuple[IntArray, ...]
    probabilities: tuple[NDArray[np.float64], ...]


class Bench:
    """One dataset, one declared metric, one list of splits: (positions to learn from, positions held).

    With a test part there is one split, the test rows held; without, repeated stratified folds.
    """

    def __init__(
        self, dataset: Dataset, metric: Metric, seed: int, notify: Notify, repeats: int = REPEATS
    ) -> None:
        self.dataset, self.metric, self.seed, self.notify = dataset, metric, seed, notify
        assert dataset.groups is not None, "prepare gives every row a group"
        self.groups = dataset.groups
        self.codes = dataset.target.codes
        self.test = self._labelled(dataset.split.index("test"))
        self.learning = self._labelled(dataset.split.index("train", "validation"))
        if len(self.test):
            self.splits = [(self.learning, self.test)]
        else:
            codes = self.codes[self.learning]
            drawn = repeated(codes, self.groups[self.learning], choose_k(codes), repeats, seed)
            self.splits = [(self.learning[train], self.learning[held]) for train, held in drawn]
        self.first = self._first_repeat()

    @property
    def assessed_on(self) -> Literal["test", "folds"]:
        return "test" if len(self.test) else "folds"

    def task(
        self, index: IntArray, seconds: float | None = None, checkpoints: Checkpoints | None = None
    ) -> Task:
        """The rows at `index` as a strategy may see them."""
        data = self.dataset
        return Task(
            rows=data.rows.take(index),
            codes=self.codes[index],
            labels=data.labels,
            groups=self.groups[index],
            validation=data.split.parts[index] == "validation",
            weights=class_weights(self.codes[index], self.metric),
            metric=self.metric,
            seed=self.seed,
            seconds=seconds,
            checkpoints=checkpoints,
        )

    def fit(
        self,
        recipe: Strategy,
        basis: Backbone | None,
        seconds: float | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> Model:
        """The model that is kept: fitted on every row that may be learnt from, in so many seconds."""
        self.notify(Progress("fitting the head", 0, None))
        return recipe.fit(self.task(self.learning, seconds, checkpoints), basis, self.notify)

    def answers(
        self,
        recipe: Strategy,
        basis: Backbone | None,
        whole: Model,
        seconds: float | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> Held:
        """The strategy's answers on held rows; on a test part these are `whole`'s own.

        seconds: what each fit may spend. Every choice is made anew inside each fold.
        """
        if len(self.test):
            return Held((self.test,), (self._ask(whole, self.test),))
        given = []
        for done, (learn, held) in enumerate(self.splits):
            self.notify(Progress("folds", done, len(self.splits), "folds"))
            heard = silent if recipe.quick else self._in_fold(done)
            task = self.task(learn, seconds, checkpoints)
            given.append(self._ask(recipe.fit(task, basis, heard), held))
        return Held(tuple(held for _, held in self.splits), tuple(given))

    def _in_fold(self, fold: int) -> Notify:
        """A Notify whose stages say which fold they are of."""
        name = f"fold {fold + 1} of {len(self.splits)}"
        return lambda step: self.notify(replace(step, stage=f"{name}: {step.stage}"))

    def rival(self, name: str, seconds: float, *, short: bool = False) -> Held:
        """A strategy without transfer, on the same rows; remembered, so it is fitted once a dataset.

        seconds: what the strategy may spend on one repeat of the splits. short: that is less than it is due.
        """
        recipe: Strategy = registry.get("strategies", name)()
        basis = recipe.basis(self.dataset.kind, None)
        basis = None if basis is None else remember(basis)
        share = seconds / self.first
        given = []
        for done, (learn, held) in enumerate(self.splits):
            self.notify(Progress(f"without transfer: {name}", done, len(self.splits), "folds"))
            task = self.task(learn, share)

            def answer(task: Task = task, held: IntArray = held) -> NDArray[np.float64]:
                return self._ask(recipe.fit(task, basis, silent), held)

            given.append(remembered.answers(name, task, self.dataset.rows.take(held), answer, short=short))
        return Held(tuple(held for _, held in self.splits), tuple(given))

    def shown(self, held: Held) -> tuple[IntArray, NDArray[np.float64]]:
        """Positions and probabilities of the first repeat, so that each held row comes once."""
        return np.concatenate(held.rows[: self.first]), np.concatenate(held.probabilities[: self.first])

    def assess(self, held: Held) -> Assessment:
        rows, probabilities = self.shown(held)
        return assess(
            self.codes[rows], probabilities, self.dataset.labels, groups=self.groups[rows], seed=self.seed
        )

    def verdict(
        self, recipe: Strategy, ours: Held, rivals: Mapping[str, Held], caution: str | None
    ) -> tuple[Verdict | None, str | None]:
        """The verdict, or None and the sentence that says why there is none."""
        if not recipe.transfers:
            return None, f"{recipe.name} does not transfer, so there is nothing to judge"
        if not rivals:
            return None, "no model without transfer was fitted (--baselines none), so there is no verdict"
        if len(self.test):
            theirs = {name: held.probabilities[0] for name, held in rivals.items()}
            truth, groups = self.codes[self.test], self.groups[self.test]
            mine = ours.probabilities[0]
            judged = judge(truth, mine, theirs, self.metric, groups=groups, seed=self.seed, caution=caution)
            return judged, None
        train_rows = float(np.mean([len(learn) for learn, _ in self.splits]))
        test_rows = float(np.mean([len(held) for _, held in self.splits]))
        theirs = {name: self._by_split(held) for name, held in rivals.items()}
        scores = self._by_split(ours)
        return judge_folds(scores, theirs, train_rows, test_rows, self.metric, caution=caution), None

    def curve(
        self,
        learners: Mapping[str, tuple[Strategy, Backbone | None]],
        transfer: str,
        full: Mapping[str, Held],
        seconds: float,
    ) -> LearningCurve:
        """Scores of `learners` by labels a class, on the rows that the first split holds.

        full: the answers already given with all rows, of `transfer` and of the models without it. seconds:
        after which no further fit begins.
        """
        learn, held = self.splits[0]

        def learner(recipe: Strategy, basis: Backbone | None) -> FitPredict:
            def fit_predict(chosen: IntArray, seed: int) -> NDArray[np.float64]:
                task = replace(self.task(learn[chosen]), seed=seed)
                return self._ask(recipe.fit(task, basis, silent), held)

            return fit_predict

        return learning_curve(
            {name: learner(*one) for name, one in learners.items()},
            self.codes[learn],
            self.groups[learn],
            self.codes[held],
            self.metric,
            transfer=transfer,
            full={name: float(self._by_split(one)[0]) for name, one in full.items()},
            seconds=seconds,
            seed=self.seed,
            notify=self.notify,
        )

    def _by_split(self, held: Held) -> NDArray[np.float64]:
        pairs = zip(held.rows, held.probabilities, strict=True)
        return np.array([measure(self.metric, self.codes[rows], given) for rows, given in pairs])

    def _first_repeat(self) -> int:
        """Splits of the first repeat: repeats may differ in number where a class can be held out by few."""
        taken = np.zeros(len(self.dataset), dtype=bool)
        for count, (_, held) in enumerate(self.splits):
            if taken[held].any():
                return count
            taken[held] = True
        return len(self.splits)

    def _ask(self, model: Model, index: IntArray) -> NDArray[np.float64]:
        return model.answer(self.dataset.rows.take(index)).probabilities

    def _labelled(self, index: IntArray) -> IntArray:
        return np.asarray(index[self.codes[index] != UNLABELLED], dtype=np.int64)


def class_weights(codes: IntArray, metric: Metric) -> NDArray[np.float64]:
    """(rows,) weights of mean 1: inverse to the class's frequency where every class counts the same."""
    if metric == "accuracy":
        return np.ones(len(codes))
    counts = np.bincount(codes)
    return np.asarray(len(codes) / (np.count_nonzero(counts) * counts[codes]), dtype=np.float64)
