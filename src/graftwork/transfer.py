"""The only joiner: data in, an Outcome out. Every step is a module of its own; none knows the next."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from graftwork import choosing
from graftwork.datasets import load
from graftwork.errors import RequestError
from graftwork.evaluation import assess
from graftwork.fitting import WITHOUT_TRANSFER, Fitting, Interim, Request
from graftwork.inspection import inspect, readable
from graftwork.model import Model
from graftwork.outcome import Outcome
from graftwork.records import Assessment, Notify, silent
from graftwork.rows import PLURAL, UNLABELLED, Dataset
from graftwork.starting import known_metric
from graftwork.store import remember
from graftwork.strategies.base import Strategy
from graftwork.strategies.setting import configured

__all__ = ["Outcome", "RowsWarning", "evaluate", "fit"]


class RowsWarning(UserWarning):
    """Rows of the caller's were left out."""


def fit(
    data: Any,
    *,
    source: str = "auto",
    strategy: str | Strategy = "probe",
    settings: Mapping[str, object] | None = None,
    metric: str | None = None,
    baselines: str = "all",
    budget: str | float | None = None,
    seed: int = 0,
    pooling: str | None = None,
    resize: str | None = None,
    offline: bool = False,
    run: str | Path | None = None,
    resume: bool = False,
    interim: Interim | None = None,
    notify: Notify = silent,
    **loading: Any,
) -> Outcome:
    """Learn a task from labelled data on a pretrained source, and judge whether the transfer helped.

    data: whatever `load` takes, or a Dataset. loading: options of `load` (text, file, label, group,
    split, labels). strategy: a name, or a Strategy of your own; settings: name -> value, of what it lets
    one set. metric: declared before anything is fitted; by default accuracy, or balanced accuracy where
    classes are unbalanced. source "auto": the only one at hand, or the best by `rank`.

    budget: seconds, or such as "5m". With strategy "auto" it bounds the whole fit; with another that
    trains by epochs the training stops in time; with a quick one it is for ranking sources.
    run: a folder to keep checkpoints in while it lasts; resume: go on with what lies there. interim:
    called with the probe's outcome as soon as it is known, where the strategy takes longer than seconds.
    Raises RequestError for what the caller can mend.
    """
    if baselines not in WITHOUT_TRANSFER:
        raise RequestError(f"baselines {baselines!r} is not known; expected all, classical or none")
    if resume and run is None:
        raise RequestError("resume needs the folder of the run to go on with; give run as well")
    request = Request(
        recipe=configured(strategy, settings),
        source=source,
        metric=None if metric is None else known_metric(metric),
        baselines=baselines,
        budget=choosing.budget_seconds(budget),
        seed=seed,
        pooling=pooling,
        resize=resize,
        offline=offline,
        run=None if run is None else Path(run),
        resume=resume,
    )
    fitting = Fitting(request, interim, notify)
    try:
        return fitting.all(data, loading)
    except RequestError:
        # nothing worth going on with: the same request will be refused again
        if fitting.run is not None and not fitting.run.resumed:
            fitting.run.remove()
        raise


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
