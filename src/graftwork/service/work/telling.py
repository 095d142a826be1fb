"""What a job tells while it works: progress, points of its curve, remarks, scores."""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from graftwork.outcome import Outcome
from graftwork.records import Notify, Progress
from graftwork.running import RunWarning
from graftwork.service.jobs.desk import Desk
from graftwork.service.work.said import Said
from graftwork.store import StoreWarning
from graftwork.transfer import RowsWarning


def watched(desk: Desk) -> Notify:
    """Progress as events; each epoch of the training that is kept also as a point of the curve."""

    def heard(step: Progress) -> None:
        if step.point is not None and step.stage == "training":
            epoch, loss, validation = step.point
            desk.point({"epoch": epoch, "loss": _number(loss), "validation": _number(validation)})
        desk.notify(step)

    return heard


def told(desk: Desk, outcome: Outcome) -> None:
    """The score of an answer, which may not be the last."""
    result = outcome.result
    score = result.assessment.scores[result.metric]
    desk.event(
        "score",
        {
            "strategy": result.strategy,
            "metric": result.metric,
            "value": _number(score.value),
            "low": _number(score.low),
            "high": _number(score.high),
            "verdict": None if result.verdict is None else result.verdict.outcome,
        },
    )


@contextmanager
def remarking(desk: Desk, said: Said) -> Iterator[None]:
    """What the library warns its caller of becomes remarks of the job."""

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if issubclass(category, RunWarning | StoreWarning | RowsWarning):
            desk.event("remark", {"text": said.text(str(message))})

    with warnings.catch_warnings():
        for category in (RunWarning, StoreWarning, RowsWarning):
            warnings.simplefilter("always", category)
        warnings.showwarning = show
        yield


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
