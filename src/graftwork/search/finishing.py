"""The end of a search: the chosen candidate's model, on all rows where there is time, and the record."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from graftwork.backbones.base import Tunable, plain
from graftwork.model import Model
from graftwork.records import Metric
from graftwork.search.board import Board
from graftwork.search.candidates import TUNING, Candidate
from graftwork.search.judging import lead
from graftwork.search.searching import PROBE, Search
from graftwork.search.trying import OutOfTime, Tried, Watch, attempt, fitted, training_seconds
from graftwork.search.validation import trial_task, validation_of
from graftwork.strategies.base import Task
from graftwork.strategies.options import defaults

SAID: Mapping[Metric, str] = {
    "accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "macro_f1": "macro F1",
}  # fmt: skip
SETTLING_S = 8.0
"""What is to be left for making a model answer fast that was only looked at; it answers without, too."""
LATE = 1.03
"""A refit is ended at so many times the whole time; the model of the trial is then kept."""


def finished(search: Search) -> Model:
    """The model that is kept, with what was tried in its settings; needs a search that is through."""
    board = search.board
    best = board.best()
    model, rows = _model(search, best)
    reason = _reason(board, best)
    said: dict[str, Any] = {
        "chosen": best.strategy,
        "chosen_settings": dict(best.settings),
        "trials": board.records(best, reason),
        "chosen_by": {
            "rows": len(board.asked), "origin": search.validation.origin, "metric": search.task.metric,
        },
        "learnt_rows": rows,
        "search_seconds": search.spent,
    }  # fmt: skip
    tried = {one.candidate for one in board.trials}
    said["not_tried"] = [one.label for one in search.candidates if one not in tried]
    if not any(not one.failed and one.candidate != PROBE for one in board.trials):
        said["remark"] = _nothing_else(search)
    return replace(model, settings={**model.settings, **said})


def untried(search: Search) -> Model:
    """The probe, where no row can be held out or no time is left to try anything else."""
    remark = "no row could be held out to compare strategies on, so the answer is the probe's"
    if validation_of(search.task).folds:
        remark = _too_short(search)
    said: dict[str, Any] = {"chosen": PROBE.strategy, "chosen_settings": {}, "trials": [], "remark": remark}
    probe = search.models[PROBE]
    return replace(probe, settings={**probe.settings, **said})


def _model(search: Search, best: Candidate) -> tuple[Model, int]:
    """(the chosen candidate's model, rows it learnt from): of all rows where there is time."""
    everything = len(search.task.codes)
    if best == PROBE:
        return search.models[PROBE], everything
    first = next(one for one in search.board.of(best) if one.fold == 0)
    try:
        again = _refitted(search, best, first)
    except OutOfTime:
        again = None  # the model of the trial stands
    if again is not None:
        return again, everything
    if best not in search.models:  # an earlier run made it: the state of its training was kept
        fold = search.validation.folds[0]
        part = trial_task(search.task, fold, best.strategy, first.training)
        watch = search.watch(best, None)
        search.models[best], _ = attempt(best, search.task, part, fold[1], search.basis, watch)
    elif first.rung == 0 and search.seconds - search.spent > SETTLING_S:
        search.models[best] = _settled(search.models[best], search.task)
    return search.models[best], first.learnt


def _refitted(search: Search, best: Candidate, first: Tried) -> Model | None:
    """The chosen candidate fitted on every row; None where that takes longer than is left."""
    left = search.seconds - search.spent
    cost = first.seconds * len(search.task.codes) / first.learnt
    watch = search.watch(best, search.begun + LATE * search.seconds if best in search.models else None)
    if best.cheap:
        task = replace(search.task, seconds=None, checkpoints=None)
        return fitted(best, task, search.basis, watch) if 1.1 * cost <= left else None
    if search.validation.origin != "folds":
        return _learnt_once_more(search, best, first, watch)
    if 1.05 * cost > left:
        return None
    task = replace(search.task, seconds=training_seconds(left, search.lane_of(best).fixed))
    # what learns once more from the rows it held out takes twice the time
    return fitted(best, task, search.basis, watch, trial=2.1 * cost > left)


def _learnt_once_more(search: Search, best: Candidate, first: Tried, watch: Watch) -> Model | None:
    """The trial's training with its rows held out taken in at last, where the strategy does so by itself.

    Its first part is the very training of the trial, and is read back from where that kept its state.
    """
    epochs, kept = first.settings.get("seconds_an_epoch", ()), first.settings.get("kept_epoch", 0)
    wanted = best.strategy in TUNING and defaults(best.strategy, search.task.kind, first.learnt).refit
    if not wanted or not epochs or not kept or first.settings.get("stopped_by") == "time":
        return None
    growth = len(search.task.codes) / first.learnt
    cost = search.lane_of(best).fixed + 1.1 * growth * kept * float(np.mean(epochs))
    unspent = (first.training or 0.0) - sum(epochs)
    if cost > search.seconds - search.spent or unspent < cost:
        return None
    part = trial_task(search.task, search.validation.folds[0], best.strategy, first.training)
    return fitted(best, part, search.basis, watch)


def _settled(model: Model, task: Task) -> Model:
    """A model that was only looked at, made to answer as fast as this machine can."""
    backbone = plain(model.backbone)
    if not isinstance(backbone, Tunable):
        return model
    return replace(model, backbone=backbone.tuned(backbone.state().arrays, task.rows))


def _reason(board: Board, best: Candidate) -> str:
    """Why it was chosen, in one sentence."""
    if best == PROBE:
        return "nothing dearer leads it clearly"
    found = lead(board.truth, board.answer(best), board.answer(PROBE))
    rows = int(board.answer(best).given.sum())
    points = f"{100 * found.score:+.1f} points of {SAID[board.truth.metric]} against the probe"
    return (
        f"{points} on {rows:,} rows held out (standard error {100 * found.score_error:.1f}), "
        "and nothing dearer leads it clearly"
    )


def _nothing_else(search: Search) -> str:
    if search.board.trials[-1].candidate != PROBE:
        return "every other candidate failed, so the answer is the probe's; the trials say why"
    return _too_short(search)


def _too_short(search: Search) -> str:
    return (
        f"the {search.seconds:.3g} s allowed were too few to try anything beside the probe, so the answer is "
        "the probe's; allow more"
    )
