"""What a strategy is: what may learn, and how. It returns a Model and never sees a score of another."""

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from graftwork.backbones.base import Backbone
from graftwork.model import Model
from graftwork.records import Metric, Notify
from graftwork.rows import IntArray, Kind, Rows
from graftwork.training.checkpoints import Checkpoints


@dataclass(frozen=True)
class Task:
    """The rows a strategy may learn from: all labelled and readable, none of them a test row.

    codes: (rows,) index of each row's label in `labels`. groups: (rows,) id; rows of one group must
    stay on one side of any split a strategy makes. validation: (rows,) True for rows that the user
    set apart for choosing settings; a strategy with its own cross-validation may learn from them.
    weights: (rows,) mean 1, for unbalanced classes; all ones by default.
    seconds: time the strategy may spend, None for its own default. checkpoints: where a training keeps
    its state, None for nowhere. look: the model is asked about some hundred rows at most and then dropped, so
    that no time need go into making it answer fast.
    """

    rows: Rows
    codes: IntArray
    labels: tuple[str, ...]
    groups: IntArray
    validation: NDArray[np.bool_]
    weights: NDArray[np.float64]
    metric: Metric
    seed: int
    seconds: float | None = None
    checkpoints: Checkpoints | None = None
    look: bool = False

    def part(self, index: IntArray) -> "Task":
        """The same task on fewer rows."""
        return replace(
            self,
            rows=self.rows.take(index),
            codes=self.codes[index],
            groups=self.groups[index],
            validation=self.validation[index],
            weights=self.weights[index],
        )

    @property
    def kind(self) -> Kind:
        return self.rows.kind


class Strategy(Protocol):
    """One recipe. `transfers` says whether it uses the source's weights; `quick` whether fitting it anew
    takes seconds at most, so that folds and learning curves may do so many times.
    """

    @property
    def name(self) -> str: ...

    @property
    def transfers(self) -> bool: ...

    @property
    def quick(self) -> bool: ...

    def basis(self, kind: Kind, source: Backbone | None) -> Backbone | None:
        """The frozen backbone whose features it learns on, or None where it needs none.

        The caller may hand a remembering backbone of the same fingerprint to `fit`.
        """
        ...

    def fit(self, task: Task, basis: Backbone | None, notify: Notify) -> Model: ...
