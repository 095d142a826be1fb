"""`full`: every weight learns, from the fitted probe on (Kumar et al. 2022, "LP-FT")."""

from dataclasses import dataclass, field

from graftwork.backbones.base import Backbone
from graftwork.model import Model
from graftwork.records import Notify
from graftwork.rows import Kind
from graftwork.strategies.base import Task
from graftwork.strategies.tuning import Options, settled, tunable, tune

DEFAULTS = Options(
    epochs=3,
    batch=32,
    rate=1e-4,
    decay=0.01,
    layer_decay=0.9,
    warmup=0.1,
    smoothing=0.0,
    still=True,
    clip=1.0,
    precision="auto",
)


@dataclass(frozen=True)
class Full:
    options: Options = field(default_factory=Options)
    name: str = "full"
    transfers: bool = True
    quick: bool = False

    def basis(self, kind: Kind, source: Backbone | None) -> Backbone | None:
        return source

    def fit(self, task: Task, basis: Backbone | None, notify: Notify) -> Model:
        backbone = tunable(self.name, basis)
        assert basis is not None
        cut = backbone.cut(None, task.rows, [None], lambda other: other, notify)
        options = settled(self.options, DEFAULTS)
        return tune(task, basis, backbone, cut, options, {"strategy": self.name}, notify)
