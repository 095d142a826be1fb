"""A scikit-learn estimator: clone, Pipeline, GridSearchCV and cross_val_score work as with any other."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_is_fitted

from graftwork.backbones.base import Backbone
from graftwork.bench import class_weights
from graftwork.datasets import load, rows_from_items
from graftwork.errors import RequestError
from graftwork.evaluation import declare_metric
from graftwork.model import Model
from graftwork.records import silent
from graftwork.rows import Dataset
from graftwork.store import remember
from graftwork.strategies.base import Strategy, Task
from graftwork.strategies.setting import configured


class TransferClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Features of a pretrained source, kept in the store, and a head fitted on them.

    X: a sequence of texts, picture paths, PIL pictures or arrays (height, width[, 3]). y: labels,
    strings or integers. Extracted features are stored, so every fold and every setting of a search
    reuses them. With source="auto" several sources on this machine are ranked on the rows given to `fit`
    (`ranking_`, None where there was no choice). settings: name -> value, of what the strategy lets one set;
    seconds: what fitting may take, None for the strategy's own time. Raises RequestError for a numeric
    target (regression is not there yet).
    """

    def __init__(
        self,
        source: str = "auto",
        strategy: str | Strategy = "probe",
        pooling: str | None = None,
        resize: str | None = None,
        seed: int = 0,
        settings: Mapping[str, object] | None = None,
        seconds: float | None = None,
    ) -> None:
        self.source = source
        self.strategy = strategy
        self.pooling = pooling
        self.resize = resize
        self.seed = seed
        self.settings = settings
        self.seconds = seconds

    def fit(self, X: Sequence[Any], y: Sequence[Any]) -> Self:
        """Learn the labels `y` of the items `X`."""
        target = type_of_target(y)
        if target not in ("binary", "multiclass"):
            raise RequestError(
                f"the target is {target}; expected one label a row: other targets are not there yet"
            )
        self.classes_, codes = np.unique(np.asarray(y), return_inverse=True)
        if len(self.classes_) < 2:
            only = str(self.classes_[0])
            raise RequestError(
                f"the target has one class ({only!r}); expected two at least: add rows of another"
            )
        dataset = load(_items(X), labels=[str(label) for label in np.asarray(y)])
        # the classes in scikit-learn's order (integers by value), not in the dataset's
        order = [str(label) for label in self.classes_]
        codes = np.array([order.index(dataset.labels[code]) for code in dataset.target.codes])
        recipe = configured(self.strategy, self.settings)
        metric = declare_metric(codes)
        task = Task(
            rows=dataset.rows,
            codes=codes,
            labels=tuple(order),
            groups=np.arange(len(codes)),
            validation=np.zeros(len(codes), dtype=bool),
            weights=class_weights(codes, metric),
            metric=metric,
            seed=self.seed,
            seconds=self.seconds,
        )
        basis = recipe.basis(dataset.kind, self._backbone(dataset, task, recipe))
        self.model_: Model = recipe.fit(task, None if basis is None else remember(basis), silent)
        return self

    def _backbone(self, dataset: Dataset, task: Task, recipe: Strategy) -> Backbone | None:
        from graftwork import choosing, starting

        options: dict[str, Any] = {"pooling": self.pooling, "resize": self.resize, "notify": silent}
        ranks = self.source == "auto" and recipe.transfers
        picked = choosing.picked(task, budget=None, offline=False, **options) if ranks else None
        self.ranking_ = None if picked is None else picked.ranking
        if picked is not None:
            return starting.opened(dataset, picked.source, picked.reason, **options)[0]
        found = starting.open_source(dataset, self.source, recipe, offline=False, **options)
        return None if found is None else found[0]

    def predict_proba(self, X: Sequence[Any]) -> NDArray[np.float64]:
        """Calibrated probabilities (items, classes), columns in the order of `classes_`."""
        check_is_fitted(self, "model_")
        return self.model_.predict_proba(_items(X))

    def predict(self, X: Sequence[Any]) -> NDArray[Any]:
        """The most probable label of each item, as given to `fit`."""
        check_is_fitted(self, "model_")
        return np.asarray(self.classes_[self.predict_proba(X).argmax(1)])

    def transform(self, X: Sequence[Any]) -> NDArray[np.float32]:
        """The backbone's features (items, width), for a Pipeline that goes on from there."""
        check_is_fitted(self, "model_")
        items = _items(X)
        return self.model_.backbone.features(rows_from_items(items, self.model_.backbone.kind)).matrix


def _items(X: Any) -> list[Any]:
    return list(X)
