"""A model: y = head(backbone(x)). What every strategy returns and every artefact holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from graftwork.backbones.base import Backbone
from graftwork.records import Features, Notify, silent
from graftwork.rows import Rows


class Head(Protocol):
    """Task layers: features -> logits. It does not know where features came from."""

    @property
    def labels(self) -> tuple[str, ...]: ...

    @property
    def width(self) -> int: ...

    def logits(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """(rows, width) -> (rows, classes), temperature already applied; raises FeatureWidth.

        Softmax of a row gives its calibrated probabilities.
        """
        ...

    def state(self) -> tuple[str, Mapping[str, Any], Mapping[str, NDArray[Any]]]:
        """(registered name under "heads", plain JSON config without labels, arrays).

        The registered object is a callable (labels, config, arrays) -> Head.
        """
        ...


class Familiarity(Protocol):
    """Says how far features lie from the training rows (see unknown.py)."""

    def distance(self, features: NDArray[np.float32]) -> NDArray[np.float64]: ...

    def unknown(self, features: NDArray[np.float32]) -> NDArray[np.bool_]: ...

    def arrays(self) -> Mapping[str, NDArray[Any]]: ...


@dataclass(frozen=True)
class Answers:
    """A model's answers on rows: probabilities (rows, classes; NaN where unreadable), unknown flags."""

    labels: tuple[str, ...]
    probabilities: NDArray[np.float64]
    unknown: NDArray[np.bool_]
    unreadable: Mapping[int, str]
    features: Features


@dataclass(frozen=True)
class Model:
    """A backbone and a head; `settings` is what the strategy chose, in plain JSON, for the record."""

    backbone: Backbone
    head: Head
    familiarity: Familiarity | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def labels(self) -> tuple[str, ...]:
        return self.head.labels

    def answer(self, rows: Rows, notify: Notify = silent) -> Answers:
        """Everything the model says of `rows`; unreadable rows are reported, not raised."""
        features = self.backbone.features(rows, notify)
        matrix = features.matrix
        probabilities = np.full((len(rows), len(self.labels)), np.nan)
        unknown = np.zeros(len(rows), dtype=bool)
        readable = np.setdiff1d(np.arange(len(rows)), list(features.unreadable))
        if len(readable):
            # all rows readable is the usual case: no copy of a memory-mapped matrix then
            seen = matrix if len(readable) == len(rows) else matrix[readable]
            probabilities[readable] = softmax(self.head.logits(seen))
            if self.familiarity is not None:
                unknown[readable] = self.familiarity.unknown(seen)
        return Answers(self.labels, probabilities, unknown, features.unreadable, features)

    @classmethod
    def load(cls, folder: str | Path, *, offline: bool = False) -> "Model":
        """The model of an artefact, after every check; raises ArtefactError where one fails."""
        from graftwork.artefact import load

        return load(Path(folder), offline=offline)[0]

    def predict(self, items: Sequence[Any]) -> list[str]:
        """The most probable label of each item: a path or picture, or a text.

        Raises Unreadable, naming the first item that cannot be read.
        """
        return [self.labels[code] for code in self.predict_proba(items).argmax(1)]

    def predict_proba(self, items: Sequence[Any]) -> NDArray[np.float64]:
        """Calibrated probabilities (items, classes), columns in the order of `labels`."""
        return self._answer_items(items).probabilities

    def top(self, items: Sequence[Any], k: int = 3) -> list[list[tuple[str, float]]]:
        """The k most probable (label, probability) of each item, most probable first."""
        rows = self.predict_proba(items)
        return [[(self.labels[c], float(row[c])) for c in np.argsort(-row)[:k]] for row in rows]

    def unknown(self, items: Sequence[Any]) -> NDArray[np.bool_]:
        """Whether each item lies too far from the training rows for its label to be trusted."""
        return self._answer_items(items).unknown

    def _answer_items(self, items: Sequence[Any]) -> Answers:
        from graftwork.datasets import rows_from_items
        from graftwork.errors import Unreadable

        rows = rows_from_items(items, self.backbone.kind)
        answers = self.answer(rows)
        for i, reason in answers.unreadable.items():
            raise Unreadable(f"{rows.names[i]} {reason}")
        return answers


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Row-wise softmax, safe for large logits."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), dtype=np.float64)
