"""`lora`: two small matrices beside each projection of a transformer learn; all of its own weights stay.

Hu et al. 2021, "LoRA". Training goes through peft; what is served is the source's network with the matrices
as inputs (see adapters.py), which all tasks that adapt the same layers share.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from graftwork.backbones.base import Backbone, Cut
from graftwork.backbones.learnt import LORA_A, LORA_B
from graftwork.errors import MissingExtra, RequestError
from graftwork.model import Model
from graftwork.records import Notify
from graftwork.rows import Kind
from graftwork.strategies.base import Task
from graftwork.strategies.options import Options, defaults, settled
from graftwork.strategies.tuning import tunable, tune
from graftwork.training import seeded

_ADAPTER = "default"
"""peft's own name for the one pair of matrices that a layer has."""


@dataclass(frozen=True)
class Lora:
    """rank: rows of A and columns of B. alpha: their product counts alpha / rank times. dropout: share of
    their inputs left out while learning. modules: the projections of attention, or every linear layer of
    the blocks. options: what is left open there follows from the data (see `options.defaults`).
    """

    rank: int = 8
    alpha: int = 16
    dropout: float = 0.0
    modules: Literal["attention", "all"] = "attention"
    options: Options = field(default_factory=Options)
    name: str = "lora"
    transfers: bool = True
    quick: bool = False

    def basis(self, kind: Kind, source: Backbone | None) -> Backbone | None:
        """The source itself; before any work is done, raises RequestError where its network cannot learn,
        MissingExtra where peft is not installed.
        """
        tunable(self.name, source)
        _require_peft()
        return source

    def fit(self, task: Task, basis: Backbone | None, notify: Notify) -> Model:
        """Raises RequestError for a network without attention or a rank beyond its layers, MissingExtra."""
        backbone = tunable(self.name, basis)
        assert basis is not None
        source = backbone.state().source
        said = "this source" if source is None else f"source {source.name!r}"
        names = targets(backbone.network(), backbone.blocks(), self.modules, said)
        options = settled(self.options, defaults(self.name, task.kind, len(task.codes)))
        cut = backbone.cut(None, task.rows, [None], lambda other: other, notify)
        cut = self.adapted(cut, [f"{cut.prefix}{name}" for name in names], task.seed)
        shape = {"rank": self.rank, "alpha": self.alpha, "dropout": self.dropout, "modules": self.modules}
        model = tune(task, basis, backbone, cut, options, {"strategy": self.name, **shape}, notify, matrices)
        return replace(model, settings={**model.settings, **shape, "layers": len(names)})

    def adapted(self, cut: Cut, names: Sequence[str], seed: int) -> Cut:
        """The cut with a pair of matrices beside each of these layers; the pairs alone may learn.

        Their product is zero at first: the network answers as it did. Its tensors' names change.
        """
        _require_peft()
        from peft import LoraConfig, inject_adapter_in_model

        narrow = min(min(cut.network.get_parameter(f"{name}.weight").shape) for name in names)
        if self.rank >= narrow:
            raise RequestError(
                f"rank={self.rank} seen; the narrowest layer it would adapt has {narrow} columns or rows, so "
                "that nothing would be saved; set a rank below that, or take strategy full"
            )
        config = LoraConfig(
            r=self.rank, lora_alpha=self.alpha, lora_dropout=self.dropout, bias="none",
            target_modules=list(names),
        )  # fmt: skip
        with seeded(seed):
            network = inject_adapter_in_model(config, cut.network, adapter_name=_ADAPTER)
        network.eval()
        learnable = frozenset(name for name, one in network.named_parameters() if one.requires_grad)
        return replace(cut, network=network, learnable=learnable)


def targets(
    network: nn.Module, blocks: Sequence[str], modules: Literal["attention", "all"], source: str
) -> tuple[str, ...]:
    """Names of the linear layers in the blocks' attention, or in the blocks, in the network's order.

    Raises RequestError where the blocks have no attention of linear layers. source: as messages name it.
    """
    inside = tuple(f"{block}." for block in blocks)
    attention = tuple(
        f"{name}."
        for name, module in network.named_modules()
        if "attention" in type(module).__name__.lower() and f"{name}.".startswith(inside)
    )
    layers = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    projections = tuple(name for name in layers if name.startswith(attention))
    if not projections:
        raise RequestError(
            f"{source} has no attention of linear layers, beside which strategy 'lora' puts its matrices; "
            "try --strategy partial or full"
        )
    return (
        projections if modules == "attention" else tuple(name for name in layers if name.startswith(inside))
    )


def matrices(network: nn.Module, cut: Cut, before: Mapping[str, Tensor]) -> dict[str, NDArray[np.float32]]:
    """The pairs of a network that `Lora.adapted` gave, by the backbone's own names, B holding the scale.

    None where no pair changes anything.
    """
    found: dict[str, NDArray[np.float32]] = {}
    for name, module in network.named_modules():
        if not hasattr(module, "lora_A"):
            continue
        target = f"{name}.weight".removeprefix(cut.prefix)
        down, up = (getattr(module, part)[_ADAPTER].weight.detach().cpu() for part in ("lora_A", "lora_B"))
        found[target + LORA_A] = np.array(down.float().numpy())
        found[target + LORA_B] = np.array((up * module.scaling[_ADAPTER]).float().numpy())
    # all or none: tasks that adapt the same layers share a network, also where some pair has not moved
    return found if any(array.any() for name, array in found.items() if name.endswith(LORA_B)) else {}


def _require_peft() -> None:
    try:
        import peft  # noqa: F401
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "peft":
            raise
        raise MissingExtra("strategy 'lora'", "tune") from error
