"""One trial: a candidate fitted on one fold's rows in the time that it was given, and asked on the others."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.backbones.base import Backbone, beside
from graftwork.errors import GraftworkError, WorkError
from graftwork.model import Model
from graftwork.records import Notify, Progress
from graftwork.rows import IntArray
from graftwork.search.candidates import Candidate
from graftwork.strategies.base import Strategy, Task
from graftwork.strategies.setting import configured, known_settings

Timer = Callable[[], float]
REFIT = "refit"


class OutOfTime(WorkError):
    """A trial that went on beyond the time there was."""


@dataclass
class Watch:
    """Hears how a trial goes on, and ends it where the time is up.

    until: on the timer's scale, None for never. started, last: when the first and the last step of a
    training were heard of; steps: (done then, all).
    """

    timer: Timer
    notify: Notify
    label: str
    until: float | None
    begun: float = 0.0
    started: float | None = None
    last: float = 0.0
    first_step: int = 0
    steps: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        self.begun = self.timer()

    def hear(self, step: Progress) -> None:
        """A Notify."""
        now = self.timer()
        if step.stage == "training" and step.unit == "steps" and step.total:
            if self.started is None:
                self.started, self.first_step = now, step.done
            self.last, self.steps = now, (step.done, step.total)
        if self.until is not None and now > self.until:
            raise OutOfTime(f"{self.label} was not done in the {now - self.begun:.0f} s there were")
        self.notify(replace(step, stage=f"{self.label}: {step.stage}"))

    def costs(self) -> tuple[float, float] | None:
        """(seconds for the whole training, of these before its first step and after its last).

        As far as its pace tells; None where no training was heard of.
        """
        done = self.steps[0] - self.first_step
        if self.started is None or done < 1:
            return None
        fixed = (self.started - self.begun) + (self.timer() - self.last)
        return fixed + (self.last - self.started) / done * self.steps[1], fixed


@dataclass(frozen=True)
class Tried:
    """What a trial gave. probabilities: (rows asked, classes). given: the seconds it was allowed.

    costs: see `Watch.costs`. model: None in what was read back from a checkpoint.
    """

    candidate: Candidate
    rung: int
    fold: int
    learnt: int
    given: float | None
    seconds: float
    probabilities: NDArray[np.float64] | None = None
    reason: str = ""
    costs: tuple[float, float] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    training: float | None = None

    @property
    def failed(self) -> bool:
        return self.probabilities is None


def fitted(candidate: Candidate, task: Task, basis: Backbone, watch: Watch, trial: bool = False) -> Model:
    """The candidate's model of the task; raises whatever its strategy raises, and OutOfTime.

    trial: rows marked for validation must not be learnt from, also not in the end.
    """
    recipe: Strategy = configured(candidate.strategy, candidate.settings)
    if trial and REFIT in known_settings(recipe):
        recipe = configured(recipe, {REFIT: False})
    own = recipe.basis(task.kind, basis)
    if own is not None and own is not basis:
        own = beside(basis, own)
    return recipe.fit(task, own, watch.hear)


def attempt(
    candidate: Candidate, whole: Task, part: Task, held: IntArray, basis: Backbone, watch: Watch
) -> tuple[Model, NDArray[np.float64]]:
    """(model of `part`, its probabilities for the rows of `whole` at `held`).

    Raises WorkError where an answer is no number.
    """
    model = fitted(candidate, part, basis, watch, trial=True)
    answers = model.answer(whole.rows.take(held)).probabilities
    if not np.isfinite(answers).all():
        raise WorkError(f"{candidate.label} gave answers that are no numbers; try another source")
    return model, answers


def reason_of(error: Exception) -> str:
    """One line for the record."""
    said = str(error).strip().splitlines()
    first = said[0] if said else "no reason given"
    return first if isinstance(error, GraftworkError) else f"{type(error).__name__}: {first}"


def training_seconds(given: float, fixed: float) -> float:
    """What of the seconds given is for training itself."""
    return max(given - fixed, 0.2 * given, 1e-3)
