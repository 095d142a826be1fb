"""What the trials so far say: each candidate's answers, which to keep, and the record for the user."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal

import numpy as np

from graftwork.records import Trial
from graftwork.rows import IntArray
from graftwork.search.candidates import Candidate
from graftwork.search.judging import Answer, Truth, choose, lead, scored
from graftwork.search.trying import Tried
from graftwork.search.validation import Validation
from graftwork.strategies.base import Task

WENT_ON = "among the better half of the first looks: it was trained for longer"
Outcome = Literal["chosen", "went on", "stopped", "failed"]


class Board:
    """Finished trials in their order; the probe's come first."""

    def __init__(self, task: Task, validation: Validation) -> None:
        self.validation = validation
        self.asked = validation.asked
        self.classes = len(task.labels)
        codes, groups = task.codes[self.asked], task.groups[self.asked]
        self.truth = Truth(codes, groups, task.metric, self.classes)
        self.trials: list[Tried] = []
        self._best: tuple[int, Candidate] | None = None
        self.places: list[IntArray] = [np.searchsorted(self.asked, held) for _, held in validation.folds]

    @property
    def answered(self) -> list[Candidate]:
        """Candidates that gave an answer, in the order of their first trials."""
        found: list[Candidate] = []
        for one in self.trials:
            if not one.failed and one.candidate not in found:
                found.append(one.candidate)
        return found

    def of(self, candidate: Candidate) -> list[Tried]:
        """Its trials that gave an answer and were given most: one a fold."""
        mine = [one for one in self.trials if one.candidate == candidate and not one.failed]
        last = max((one.rung for one in mine), default=0)
        return [one for one in mine if one.rung == last]

    def answer(self, candidate: Candidate) -> Answer:
        """Its probabilities of every row asked, NaN where it was not."""
        return self._answer(candidate.rank, self.of(candidate))

    def score(self, one: Tried) -> tuple[float, float]:
        """(metric, log-loss) of one trial."""
        return scored(self.truth, self._answer(0, [one]))

    def best(self) -> Candidate:
        """Whose model would be kept if nothing else were tried."""
        if self._best is None or self._best[0] != len(self.trials):
            answered = self.answered
            chosen = choose(self.truth, [self.answer(one) for one in answered])
            self._best = len(self.trials), answered[chosen]
        return self._best[1]

    def records(self, chosen: Candidate, reason: str) -> list[dict[str, Any]]:
        """Every trial as plain JSON of a `records.Trial`; those of several folds in one."""
        found = []
        for candidate, rung in dict.fromkeys(_key(one) for one in self.trials):
            mine = [one for one in self.trials if _key(one) == (candidate, rung)]
            found.append(asdict(self._record(mine, chosen, reason)))
        return found

    def _record(self, mine: Sequence[Tried], chosen: Candidate, reason: str) -> Trial:
        one = mine[0]
        able = [trial for trial in mine if not trial.failed]
        score, loss = scored(self.truth, self._answer(0, able)) if able else (None, None)
        last = bool(able) and one.rung == max(t.rung for t in self.of(one.candidate))
        further = any(t.candidate == one.candidate and t.rung > one.rung for t in self.trials)
        outcome: Outcome = "failed" if not able else "went on" if further and not last else "stopped"
        said = next((trial.reason for trial in mine if trial.reason), "")
        if able and last and one.candidate == chosen:
            outcome, said = "chosen", reason
        elif able and not said:
            said = WENT_ON if outcome == "went on" else self._why_not(one.candidate, chosen)
        return Trial(
            one.candidate.strategy, dict(one.candidate.settings), one.rung, one.learnt, score, loss,
            sum(trial.seconds for trial in mine), outcome, said,
        )  # fmt: skip

    def _why_not(self, candidate: Candidate, chosen: Candidate) -> str:
        """Why another one is kept, in one sentence."""
        found = lead(self.truth, self.answer(chosen), self.answer(candidate))
        points = f"{abs(100 * found.score):.1f} points"
        if found.score > 0:
            return f"{points} behind {chosen.label} (standard error {100 * found.score_error:.1f})"
        ahead = f"{points} ahead of" if found.score < 0 else "level with"
        return f"{ahead} {chosen.label}, not clearly (standard error {100 * found.score_error:.1f})"

    def _answer(self, rank: int, trials: Sequence[Tried]) -> Answer:
        answers = np.full((len(self.asked), self.classes), np.nan)
        for one in trials:
            if one.probabilities is not None:
                answers[self.places[one.fold]] = one.probabilities
        return Answer(rank, answers)


def _key(one: Tried) -> tuple[Candidate, int]:
    return one.candidate, one.rung
