"""`auto`: tries the other strategies on rows held out, within the time allowed, and keeps the best answer.

The probe comes first, so that there is an answer from the first seconds on. Candidates are compared by
the declared metric, then by log-loss, on the same rows; one that does not clearly lead a cheaper one is
not taken (search/judging.py). What is tried in which order, and for how long, is decided from the kind
and number of rows and from measured times (search/candidates.py, search/halving.py).
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from graftwork.backbones.base import Backbone
from graftwork.errors import RequestError
from graftwork.model import Model
from graftwork.records import Notify
from graftwork.rows import Kind
from graftwork.strategies.base import Task
from graftwork.training.checkpoints import Checkpoints


@dataclass(frozen=True)
class Auto:
    """Strategy "auto". interim: hears of every model that is the best answer so far; the probe's first.

    The model's settings are those of the strategy that was chosen, and besides: chosen (its name),
    chosen_settings, trials (plain JSON of `records.Trial` each), chosen_by (which rows), not_tried, and
    where nothing but the probe could be tried, remark: a sentence that says so.
    """

    interim: Callable[[Model], None] | None = field(default=None, compare=False)
    name: str = "auto"
    transfers: bool = True
    quick: bool = False

    def basis(self, kind: Kind, source: Backbone | None) -> Backbone:
        """The source itself; raises RequestError where there is none."""
        if source is None:
            raise RequestError(
                f"strategy 'auto' starts from a pretrained model's features; no source was given for {kind} "
                "rows; try: --source NAME (graft sources lists them), or --strategy classical"
            )
        return source

    def fit(self, task: Task, basis: Backbone | None, notify: Notify) -> Model:
        """The best model found in `task.seconds` (None: two minutes), the last fit included.

        Finished trials are kept in `task.checkpoints` and not made again; time that an earlier, interrupted
        run spent is the caller's to take off. Raises Unreadable and whatever the probe raises.
        """
        from graftwork.search.finishing import finished, untried
        from graftwork.search.searching import Search

        backbone = self.basis(task.kind, basis)
        with tempfile.TemporaryDirectory(prefix="graftwork-") as folder:
            if task.checkpoints is None:  # the last fit goes on from where a trial ended
                task = replace(task, checkpoints=Checkpoints(Path(folder)))
            search = Search(task, backbone, notify, self.interim)
            search.start()
            if not search.validation.folds:
                return untried(search)
            search.go()
            return finished(search)
