"""The end of a search: the chosen candidate's model, on all rows where there is time, and the record."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from graftwork.model import Model
from graftwork.records import Metric
from graftwork.search.board import Board
from graftwork.search.candidates import Candidate
from graftwork.search.judging import lead
from graftwork.search.searching import PROBE, Search
from graftwork.search.trying import OutOfTime, attempt, fitted, training_seconds
from graftwork.search.validation import trial_task

SAID: Mapping[Metric, str] = {
    "accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "macro_f1": "macro F1",
}  # fmt: skip
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


def without_folds(probe: Model) -> Model:
    """The probe, where no row can be held out."""
    remark = "no row could be held out to compare strategies on, so the answer is the probe's"
    said: dict[str, Any] = {"chosen": PROBE.strategy, "chosen_settings": {}, "trials": [], "remark": remark}
    return replace(probe, settings={**probe.settings, **said})


def _model(search: Search, best: Candidate) -> tuple[Model, int]:
    """(the chosen candidate's model, rows it learnt from)."""
    everything = len(search.task.codes)
    if best == PROBE:
        return search.models[PROBE], everything
    mine = search.board.of(best)
    first = next((one for one in mine if one.fold == 0), mine[0])
    left = search.seconds - search.spent
    growth = everything / first.learnt
    if best.cheap:
        wanted = 1.1 * growth * first.seconds
    else:
        wanted = 1.02 * growth * first.seconds if search.validation.origin == "folds" else np.inf
    if wanted <= left:
        seconds = None
        if not best.cheap:
            seconds = training_seconds(left, search.lane_of(best).fixed)
        task = replace(
            search.task, seconds=seconds, checkpoints=None if best.cheap else search.task.checkpoints
        )
        try:
            until = search.begun + LATE * search.seconds if best in search.models else None
            return fitted(best, task, search.basis, search.watch(best, until)), everything
        except OutOfTime:
            pass  # the model of the trial stands
    if best not in search.models:  # an earlier run made it: the state of its training was kept
        fold = search.validation.folds[0]
        part = trial_task(search.task, fold, best.strategy, first.training)
        search.models[best], _ = attempt(
            best, search.task, part, fold[1], search.basis, search.watch(best, None)
        )
    return search.models[best], first.learnt


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
    return (
        f"the {search.seconds:.3g} s allowed were too few to try anything beside the probe, so the answer is "
        "the probe's; allow more"
    )
