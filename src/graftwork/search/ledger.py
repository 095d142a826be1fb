"""What a search has found so far, kept where its trainings keep their state: no trial is made twice."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from graftwork.backbones.base import Backbone
from graftwork.search.candidates import Candidate
from graftwork.search.trying import Tried
from graftwork.strategies.base import Task
from graftwork.training.checkpoints import Checkpoint


class Ledger:
    """The finished trials of one search, and the one that was under way, in one checkpoint; or nowhere."""

    def __init__(self, task: Task, basis: Backbone) -> None:
        self.checkpoint: Checkpoint | None = None
        if task.checkpoints is not None:
            rows = [task.rows.column.digest(i).hex() for i in range(len(task.codes))]
            key = {
                "strategy": "auto", "rows": rows, "codes": task.codes.tolist(), "metric": task.metric,
                "groups": task.groups.tolist(), "validation": task.validation.tolist(), "seed": task.seed,
                "source": basis.fingerprint,
            }  # fmt: skip
            self.checkpoint = task.checkpoints.of(key)

    def read(self) -> tuple[list[Tried], Tried | None]:
        """(finished trials in their order, the one that was under way)."""
        found = None if self.checkpoint is None else self.checkpoint.load()
        if found is None:
            return [], None
        said, tensors = found
        trials = [_tried(one, tensors.get(str(i))) for i, one in enumerate(said["trials"])]
        return trials, None if said["begun"] is None else _tried(said["begun"], None)

    def write(self, trials: Sequence[Tried], begun: Tried | None) -> None:
        """Raises WorkError where the disk cannot take it."""
        if self.checkpoint is None:
            return
        tensors = {
            str(i): torch.from_numpy(one.probabilities)
            for i, one in enumerate(trials)
            if one.probabilities is not None
        }
        under_way = None if begun is None else _said(begun)
        self.checkpoint.save({"trials": [_said(one) for one in trials], "begun": under_way}, tensors)


def _said(one: Tried) -> dict[str, Any]:
    return {
        "strategy": one.candidate.strategy, "settings": dict(one.candidate.settings), "rung": one.rung,
        "fold": one.fold, "learnt": one.learnt, "given": one.given, "seconds": one.seconds,
        "reason": one.reason, "costs": one.costs, "found": dict(one.settings),
        "training": one.training,
    }  # fmt: skip


def _tried(said: dict[str, Any], tensor: torch.Tensor | None) -> Tried:
    answers: NDArray[np.float64] | None = None if tensor is None else tensor.numpy()
    return Tried(
        Candidate(said["strategy"], said["settings"]), said["rung"], said["fold"], said["learnt"],
        said["given"], said["seconds"], answers, said["reason"],
        None if said["costs"] is None else (said["costs"][0], said["costs"][1]), said["found"],
        said["training"],
    )  # fmt: skip
