"""The torch module around a Keras model: Keras on torch is torch, but for some habits undone here."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from graftwork.backbones.cutting import Parted, known_block


class KerasNetwork(nn.Module):
    """(rows, height, width, 3) bytes -> (rows, width) features; maps are flattened channels last.

    Its batch normalisation keeps its statistics and its dropout is off, in train mode as well: Keras
    asks the call, not the module. blocks: the weights by block, under names that are the same in every
    process. preprocess: None where the model takes what it is given.
    """

    def __init__(
        self,
        keras: Any,
        model: Any,
        preprocess: Callable[[Tensor], Tensor] | None,
        blocks: "Mapping[str, Block] | None" = None,
    ) -> None:
        super().__init__()
        self.keras = keras
        self.preprocess = preprocess
        self._model = (model,)  # not as a module: its own names count what the process built before
        found = {} if blocks is None else blocks
        self.blocks = nn.ModuleDict({name: nn.ParameterDict(one.weights) for name, one in found.items()})

    @property
    def model(self) -> Any:
        return self._model[0]

    def forward(self, pixels: Tensor) -> Tensor:
        # Keras moves every tensor to its default device, a GPU where there is one: the caller decides
        with self.keras.device(str(pixels.device)), _Plain():
            inputs = pixels.float()
            if self.preprocess is not None:
                inputs = self.preprocess(inputs)
            features: Tensor = self.model(inputs, training=False)
            return features.flatten(1)


class _Suffix(nn.Module):
    """What entered a block, flattened -> features."""

    def __init__(self, network: KerasNetwork, shape: Sequence[int]) -> None:
        super().__init__()
        self.network, self.shape = network, tuple(shape)

    def forward(self, hidden: Tensor) -> Tensor:
        features: Tensor = self.network(hidden.reshape(len(hidden), *self.shape))
        return features


@dataclass(frozen=True)
class Block:
    """entering: the Keras tensor that alone leads into the block. weights: by name, the model's own."""

    entering: Any
    weights: Mapping[str, nn.Parameter]


def blocks(model: Any) -> dict[str, Block]:
    """A functional Keras model's blocks by name, in the order in which they run.

    One begins at each layer with a matrix or kernel into which a single tensor leads, and nothing else
    leads past it; it is called as that layer is.
    """
    nodes = [
        node for depth in sorted(model._nodes_by_depth, reverse=True) for node in model._nodes_by_depth[depth]
    ]
    used = {id(tensor): i for i, node in enumerate(nodes) for tensor in node.arguments.keras_tensors}
    used |= {id(tensor): len(nodes) for tensor in model.outputs}
    found: dict[str, Block] = {}
    before: dict[str, nn.Parameter] = {}
    alive: list[Any] = []
    counts: Counter[str] = Counter()
    current = before
    for i, node in enumerate(nodes):
        name = _name(node.operation, counts)
        weights = _weights(node.operation, name)
        alive = [tensor for tensor in alive if used.get(id(tensor), -1) >= i]
        if len(alive) == 1 and any(one.ndim > 1 for one in weights.values()):
            current = {}
            found[name] = Block(alive[0], current)
        current.update(weights)
        alive += node.outputs
    if found:
        first = next(iter(found))
        found[first] = Block(found[first].entering, {**before, **found[first].weights})
    return found


def parted(keras: Any, model: Any, block: str, source: str) -> Parted:
    """See `cutting.part`."""
    found = blocks(model)
    name = known_block(full_names(found), block, source).partition(".")[2]
    late = {one: found[one] for one in list(found)[list(found).index(name) :]}
    with keras.device("cpu"):
        network = KerasNetwork(keras, keras.Model(found[name].entering, model.output), None, late)
    names = frozenset(one for one, weight in network.named_parameters() if weight.requires_grad)
    shape = tuple(int(size) for size in found[name].entering.shape[1:])
    return Parted(_Suffix(network, shape).eval(), f"blocks.{name}", names, shape)


def before(keras: Any, model: Any, preprocess: Callable[[Tensor], Tensor], block: str) -> KerasNetwork:
    """The network up to `block` (its full name): pixels -> what enters it, flattened."""
    found = blocks(model)
    name = block.partition(".")[2]
    early = {one: found[one] for one in list(found)[: list(found).index(name)]}
    with keras.device("cpu"):
        return KerasNetwork(keras, keras.Model(model.input, found[name].entering), preprocess, early).eval()


def full_names(found: Mapping[str, Block]) -> tuple[str, ...]:
    """The blocks as a KerasNetwork has them."""
    return tuple(f"blocks.{name}" for name in found)


def _name(layer: Any, counts: "Counter[str]") -> str:
    """The layer's name; one that Keras made up, counting all of the process, is counted within the model."""
    plain = re.sub(r"_\d+$", "", layer.name)
    if plain.replace("_", "") != type(layer).__name__.lower():
        return str(layer.name)
    counts[plain] += 1
    return f"{plain}_{counts[plain]}"


def _weights(layer: Any, name: str) -> dict[str, nn.Parameter]:
    variables = getattr(layer, "weights", [])
    return {f"{name}_{variable.name}": variable.value for variable in variables}


_PLAIN: dict[Any, Any] = {
    torch.subtract: torch.sub,
    torch.divide: torch.div,
    torch.true_divide: torch.div,
    torch.multiply: torch.mul,
}
"""Keras writes these by their second names, for which OpenVINO has no rule."""


class _Plain(TorchFunctionMode):
    """Every operation by its first name."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _PLAIN.get(func, func)(*args, **(kwargs or {}))
