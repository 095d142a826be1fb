"""`partial`: the last blocks learn, from what the frozen ones before them gave, kept once.

An epoch costs the blocks that learn and nothing else.
"""

from dataclasses import dataclass, field

from graftwork.backbones.base import Backbone, beside
from graftwork.errors import RequestError
from graftwork.model import Model
from graftwork.records import Notify
from graftwork.rows import Kind
from graftwork.strategies.base import Task
from graftwork.strategies.tuning import Options, settled, tunable, tune

DEFAULTS = Options(
    epochs=15,
    batch=32,
    rate=3e-4,
    decay=0.02,
    layer_decay=0.7,
    warmup=0.1,
    smoothing=0.1,
    still=True,
    clip=1.0,
)


@dataclass(frozen=True)
class Partial:
    """blocks: how many of the last blocks learn, or the name of the first that does."""

    blocks: int | str = 2
    options: Options = field(default_factory=Options)
    name: str = "partial"
    transfers: bool = True
    quick: bool = False

    def basis(self, kind: Kind, source: Backbone | None) -> Backbone | None:
        return source

    def fit(self, task: Task, basis: Backbone | None, notify: Notify) -> Model:
        backbone = tunable(self.name, basis)
        assert basis is not None
        options = settled(self.options, DEFAULTS)
        block = self.first(backbone)
        cut = backbone.cut(block, task.rows, [None], lambda other: beside(basis, other), notify)
        return tune(task, basis, backbone, cut, options, {"strategy": self.name, "block": block}, notify)

    def first(self, backbone: Backbone) -> str:
        """The first block that learns."""
        if isinstance(self.blocks, str):
            return self.blocks
        names = tunable(self.name, backbone).blocks()
        if not 1 <= self.blocks <= len(names):
            raise RequestError(
                f"{self.blocks} blocks seen; expected 1 to {len(names)}; the source's blocks, first to last: "
                f"{', '.join(names)}"
            )
        return names[-self.blocks]
