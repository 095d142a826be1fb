"""`full`: every weight learns, from the fitted probe on (Kumar et al. 2022, "LP-FT").

Texts go through in batches of about one length, pictures with channels last, both in bfloat16 where the
machine has it.
"""

from dataclasses import dataclass, field

from graftwork.backbones.base import Backbone
from graftwork.model import Model
from graftwork.records import Notify
from graftwork.rows import Kind
from graftwork.strategies.base import Task
from graftwork.strategies.options import Options, defaults, settled
from graftwork.strategies.tuning import tunable, tune


@dataclass(frozen=True)
class Full:
    """options: what is left open there follows from the data's kind and size (see `options.defaults`)."""

    options: Options = field(default_factory=Options)
    name: str = "full"
    transfers: bool = True
    quick: bool = False

    def basis(self, kind: Kind, source: Backbone | None) -> Backbone | None:
        """The source itself; raises RequestError where its network cannot learn, before any work is done."""
        tunable(self.name, source)
        return source

    def fit(self, task: Task, basis: Backbone | None, notify: Notify) -> Model:
        """Raises RequestError for a source that cannot learn, or rows with nothing to learn from."""
        backbone = tunable(self.name, basis)
        assert basis is not None
        options = settled(self.options, defaults(self.name, task.kind, len(task.codes)))
        cut = backbone.cut(None, task.rows, [None], lambda other: other, notify)
        return tune(task, basis, backbone, cut, options, {"strategy": self.name}, notify)
