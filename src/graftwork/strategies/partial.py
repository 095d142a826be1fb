"""`partial`: the last blocks learn, from what the frozen ones before them gave, kept once.

An epoch costs the blocks that learn and nothing else. Distorted views of the rows go through the frozen
blocks once too; each epoch draws one of a row's views.
"""

from dataclasses import dataclass, field

from graftwork.backbones.base import Backbone, Tunable, View, beside
from graftwork.errors import RequestError
from graftwork.model import Model
from graftwork.records import Notify
from graftwork.rows import Kind
from graftwork.strategies.base import Task
from graftwork.strategies.options import Options, defaults, settled
from graftwork.strategies.tuning import tunable, tune
from graftwork.training import mirrorable, views


@dataclass(frozen=True)
class Partial:
    """blocks: how many of the last blocks learn, or the name of the first that does."""

    blocks: int | str = 2
    options: Options = field(default_factory=Options)
    name: str = "partial"
    transfers: bool = True
    quick: bool = False

    def basis(self, kind: Kind, source: Backbone | None) -> Backbone | None:
        """The source itself; raises RequestError where its network cannot learn, before any work is done."""
        tunable(self.name, source)
        return source

    def fit(self, task: Task, basis: Backbone | None, notify: Notify) -> Model:
        """Raises RequestError, listing the blocks, where the network has no such block."""
        backbone = tunable(self.name, basis)
        assert basis is not None
        options = settled(self.options, defaults(self.name, task.kind, len(task.codes)))
        block = self.first(backbone)
        seen = seen_as(options, backbone, task)
        cut = backbone.cut(block, task.rows, seen, lambda other: beside(basis, other), notify)
        work = {"strategy": self.name, "block": cut.block, "views": [v and dict(v.key) for v in seen]}
        model = tune(task, basis, backbone, cut, options, work, notify)
        return Model(model.backbone, model.head, settings={"block": cut.block, **model.settings})

    def first(self, backbone: Tunable) -> str:
        """The first block that learns."""
        if isinstance(self.blocks, str):
            return self.blocks
        names = backbone.blocks()
        if not 1 <= self.blocks <= len(names):
            known = f"expected 1 to {len(names)}: {', '.join(names)}" if names else "the network has none"
            raise RequestError(f"the last {self.blocks} blocks asked for; {known}; or take strategy full")
        return names[-self.blocks]


def seen_as(options: Options, backbone: Tunable, task: Task) -> list[View | None]:
    """How often, and how distorted, each row is kept at the cut; undistorted first."""
    if options.augment in (None, "none") or options.views in (None, 1):
        return [None]
    assert options.augment is not None and options.views is not None
    mirror = mirrorable(task.labels)
    return views(task.kind, options.augment, options.views, backbone.frame, mirror=mirror)
