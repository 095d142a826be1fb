"""The search itself: the probe first, then trial after trial while there is time, then the choice."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from graftwork import registry
from graftwork.backbones.base import Backbone
from graftwork.model import Model
from graftwork.records import Notify
from graftwork.search import candidates as known
from graftwork.search.board import Board
from graftwork.search.candidates import TUNING, Candidate
from graftwork.search.halving import Lane, Step, dropped, following, measured, rescaled
from graftwork.search.judging import lead
from graftwork.search.ledger import Ledger
from graftwork.search.trying import Timer, Tried, Watch, attempt, fitted, reason_of, training_seconds
from graftwork.search.validation import trial_task, validation_of
from graftwork.strategies.base import Task

SECONDS = 120.0
"""What the search may spend where nobody says."""
SPARE = 0.02
"""Share of the time that is kept back: steps do not take twice the same time."""
REFITTING = 0.25
"""Share of the time that may be kept for fitting the leader on all rows; what takes more is not refitted."""
PROBING = 0.25
"""Share of the time for asking the probe fold by fold; where that is too little, fewer folds are asked."""
PATIENCE = 3.0
"""A cheap trial is ended after so many times what it was thought to take."""
LOOKING_S = 4.0
"""Less time than this is not worth a look at the source's network."""
KEPT = ("options", "stopped_by", "kept_epoch", "seconds_an_epoch", "refit_epochs")
"""What is kept of a trial's settings."""
PROBE, CLASSICAL = Candidate("probe"), Candidate("classical")

Interim = Callable[[Model], None]


class Search:
    """One search under way. lanes[i] is what is known of candidates[i]; models holds those made here."""

    def __init__(
        self,
        task: Task,
        basis: Backbone,
        notify: Notify,
        interim: Interim | None = None,
        timer: Timer = time.monotonic,
    ) -> None:
        self.task, self.basis, self.notify = task, basis, notify
        self.interim, self.timer, self.begun = interim, timer, timer()
        self.seconds = SECONDS if task.seconds is None else task.seconds
        self.validation = validation_of(task)
        self.candidates: list[Candidate] = []
        self.lanes: list[Lane] = []
        self.models: dict[Candidate, Model] = {}
        self.ledger = Ledger(task, basis)
        self.earlier: list[Tried] = []
        self.under_way: Tried | None = None

    def start(self) -> Model:
        """The probe on every row: an answer from the first seconds on.

        Where even one more like it would take too long, no fold is left to choose on, but for those on
        which an earlier run has asked it.
        """
        self.earlier, self.under_way = self.ledger.read()
        probe = fitted(
            PROBE, self._alone(self.task), self.basis, Watch(self.timer, self.notify, "probe", None)
        )
        self.models[PROBE] = probe
        affordable = int(PROBING * self.seconds / max(self.spent, 1e-9))
        if affordable < len(self.validation.folds):
            some = max(affordable, 1) if 2 * self.spent <= self.seconds else 0
            asked = sum(one.candidate == PROBE for one in self.earlier)
            self.validation = replace(self.validation, folds=self.validation.folds[: max(some, asked)])
        if self.interim is not None:
            self.interim(probe)
        return probe

    def go(self) -> None:
        """Try what suits the rows while there is time; needs folds."""
        self.board = Board(self.task, self.validation)
        self.board.trials += [one for one in self.earlier if one.candidate == PROBE]
        for fold in range(len(self.board.trials), len(self.validation.folds)):
            self._try(PROBE, 0, fold, None)
        registered = registry.names("strategies")
        self.at = known.situation_of(self.task, len(self.validation.folds[0][0]))
        self._go_through(known.cheap(registered))
        if self.left <= LOOKING_S:
            self._go_through(self._taken_up())
            return
        self.at = replace(known.looked_into(self.at, self.task, self.basis), losing=self._losing())
        self._go_through(known.trainings(self.at, registered, self.seconds))
        self._go_through(self._taken_up())
        self._vary()
        self._confirm()

    @property
    def spent(self) -> float:
        return self.timer() - self.begun

    @property
    def left(self) -> float:
        """Seconds for further trials: what is needed at the end is set aside."""
        reserve = self.refitting
        reserve = reserve if reserve <= REFITTING * self.seconds else 0.0
        return self.seconds * (1 - SPARE) - self.spent - reserve

    @property
    def refitting(self) -> float:
        """Seconds for fitting the leader on all rows; one tuned beside held rows stays as it is."""
        best = self.board.best()
        if best == PROBE or not (best.cheap or self.validation.origin == "folds"):
            return 0.0
        return 1.2 * max(one.seconds * len(self.task.codes) / one.learnt for one in self.board.of(best))

    def watch(self, candidate: Candidate, until: float | None) -> Watch:
        return Watch(self.timer, self.notify, candidate.label, until)

    def _losing(self) -> bool:
        """Whether the best model without transfer clearly leads the probe."""
        if CLASSICAL not in self.board.answered:
            return False
        return lead(self.board.truth, self.board.answer(CLASSICAL), self.board.answer(PROBE)).clear

    def _taken_up(self) -> list[Candidate]:
        """What an earlier run took up, such as variants of its best training, and this one has not yet."""
        tried = [*self.earlier, *([] if self.under_way is None else [self.under_way])]
        return [
            one for one in dict.fromkeys(t.candidate for t in tried) if one not in (PROBE, *self.candidates)
        ]

    def _note(self, begun: Tried | None) -> None:
        """Keep what was found so far, that of an earlier run too which this one has not taken up yet."""
        places = {id(one) for one in self.board.trials}
        waiting = [one for one in self.earlier if id(one) not in places]
        self.ledger.write([*self.board.trials, *waiting], begun)

    def _go_through(self, candidates: Sequence[Candidate]) -> None:
        """Take candidates up, with what an earlier run found out, and try them while there is time."""
        begun = self.under_way
        for candidate in candidates:
            self._add(candidate, known.lane_of(candidate, self.at))
        for one in self.earlier:
            if one.candidate in candidates:
                self.board.trials.append(one)
                self._learn(one)
        if begun is not None and begun.candidate in candidates and begun.fold == 0:
            # its training goes on where it was, which it does only with the seconds that it had then
            self._try(begun.candidate, begun.rung, 0, begun.given, begun.training)
        whole = self.left
        while (step := following(self.lanes, self.left, whole)) is not None:
            self._take(step)

    def _vary(self) -> None:
        """Neighbours of the best training, for time that is left over."""
        best = self.board.best()
        if best.strategy not in TUNING:
            return
        like = replace(self.lanes[self.candidates.index(best)], state="open")
        for candidate in known.variants(best, self.board.of(best)[0].settings):
            if candidate not in self.candidates:
                self._add(candidate, like)
        while (step := following(self.lanes, self.left, self.left)) is not None:
            self._take(step)

    def _confirm(self) -> None:
        """A training that leads on one fold is tried on the others too, while it can still be refitted."""
        while True:
            best = self.board.best()
            mine = self.board.of(best)
            folds = sorted(set(range(len(self.validation.folds))) - {one.fold for one in mine})
            cost = max(one.seconds for one in mine)
            if best.cheap or not folds or self.left < 1.1 * cost:
                return
            if self._try(best, mine[0].rung, folds[0], mine[0].given).failed:
                return

    def _add(self, candidate: Candidate, lane: Lane) -> None:
        self.candidates.append(candidate)
        self.lanes.append(lane)

    def _take(self, step: Step) -> None:
        candidate, lane = self.candidates[step.lane], self.lanes[step.lane]
        if not lane.cheap:
            if step.rung and lane.state == "looked at":
                for i in dropped(self.lanes):
                    self.lanes[i] = replace(self.lanes[i], state="stopped")
            self._try(candidate, step.rung, 0, step.seconds)
            return
        count = len(self.validation.folds)
        for fold in range(count):
            tried = self._try(candidate, 0, fold, PATIENCE * lane.full)
            # one fold of few rows says little: all are asked where what the first took allows it
            if tried.failed or tried.seconds * (count - fold - 1) > self.left / 3:
                return

    def _try(
        self, candidate: Candidate, rung: int, fold: int, given: float | None, training: float | None = None
    ) -> Tried:
        """One trial in `given` seconds, all told; what came of it is on the board and in the ledger.

        training: seconds of these for the training itself, None for what is left after all else.
        """
        learnt, held = self.validation.folds[fold]
        end = self.begun + self.seconds
        if candidate.cheap:
            end = np.inf if candidate == PROBE else min(end, self.timer() + (given or 0.0))
        watch = self.watch(candidate, end)
        if training is None and given is not None and not candidate.cheap:
            # what goes on may take what there is: it ends by itself where its epochs do
            whole = given if rung == 0 else max(given, self.left)
            training = training_seconds(whole, self.lane_of(candidate).fixed)
        part = trial_task(self.task, self.validation.folds[fold], candidate.strategy, training)
        part = self._alone(part) if candidate.cheap else replace(part, look=rung == 0)
        tried = Tried(candidate, rung, fold, len(learnt), given, 0.0, None, training=training)
        if not candidate.cheap:
            self._note(tried)
        try:
            model, answers = attempt(candidate, self.task, part, held, self.basis, watch)
        except Exception as error:
            # whatever a candidate runs into is said in the record; the answer so far stands
            if candidate == PROBE:
                raise
            tried = replace(tried, reason=reason_of(error))
        else:
            said = {name: model.settings[name] for name in KEPT if name in model.settings}
            tried = replace(tried, probabilities=answers, costs=watch.costs(), settings=said)
            if fold == 0 and candidate != PROBE:
                self.models[candidate] = model
        tried = replace(tried, seconds=self.timer() - watch.begun)
        self.board.trials.append(tried)
        self._note(None)
        self._learn(tried)
        return tried

    def _learn(self, tried: Tried) -> None:
        """What a trial on the first fold says of its lane, and of those not begun yet."""
        if tried.candidate not in self.candidates or tried.fold:
            return
        place = self.candidates.index(tried.candidate)
        before = self.lanes[place]
        if tried.failed:
            self.lanes[place] = replace(before, state="stopped")
            return
        given = tried.seconds if tried.given is None else tried.given
        score, loss = self.board.score(tried)
        after = measured(before, tried.rung, given, tried.seconds, tried.costs, score, loss)
        self.lanes[place] = after
        if tried.candidate.strategy in TUNING and before.state == "open" and tried.costs is not None:
            for i, lane in enumerate(self.lanes):
                if lane.state == "open" and self.candidates[i].strategy in TUNING:
                    self.lanes[i] = rescaled(lane, before, after)
        if (
            self.interim is not None
            and tried.candidate == self.board.best()
            and tried.candidate in self.models
        ):
            self.interim(self.models[tried.candidate])

    def lane_of(self, candidate: Candidate) -> Lane:
        return self.lanes[self.candidates.index(candidate)]

    def _alone(self, task: Task) -> Task:
        """For what takes seconds: no clock of its own, and nothing kept to go on from."""
        return replace(task, seconds=None, checkpoints=None)
