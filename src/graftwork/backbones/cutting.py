"""A network parted before one of its blocks: what comes before can be kept, what follows can learn."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from graftwork.errors import RequestError, nearest

_CLOSE = 1e-3
"""Largest difference, relative to the features' size, between a parted network and the whole."""


def blocks(network: nn.Module) -> tuple[str, ...]:
    """Names of the network's blocks in the order in which they run; none where it has no such order.

    They are the members of its largest list of layers; where these are stages, the members of the
    stages' own lists.
    """
    lists = list(_outermost(network))
    if not lists:
        return ()
    name, largest = max(lists, key=lambda one: _size(one[1]))
    stages = [_stage(member, f"{name}.{key}") for key, member in largest.named_children()]
    inner = [member for stage in stages if stage is not None for member in stage[1].children()]
    if None not in stages and len({type(member) for member in inner}) == 1:
        return tuple(
            f"{place}.{key}" for stage in stages if stage is not None
            for place, members in [stage] for key, _ in members.named_children()
        )  # fmt: skip
    return tuple(f"{name}.{key}" for key, _ in largest.named_children())


def known_block(names: Sequence[str], block: str, source: str) -> str:
    """The full name of the block called `block`: whole, or from its end; raises RequestError."""
    fitting = [name for name in names if name == block or name.endswith(f".{block}")]
    if len(fitting) == 1:
        return fitting[0]
    if not names:
        raise RequestError(
            f"source {source!r} has no blocks that run one after the other; strategy full tunes it as a whole"
        )
    short = short_names(names)
    listed = ", ".join(short)
    if fitting:
        raise RequestError(f"source {source!r} has several blocks {block!r}; name one of: {listed}")
    close = nearest(block, short)
    hint = f"; did you mean {close!r}?" if close else ";"
    raise RequestError(f"source {source!r} has no block {block!r}{hint} its blocks, first to last: {listed}")


def short_names(names: Sequence[str]) -> list[str]:
    """The blocks' names without what all of them begin with, but for the last word of that."""
    parts = [name.split(".") for name in names]
    alike = 0
    while all(len(one) > alike + 2 and one[: alike + 2] == parts[0][: alike + 2] for one in parts):
        alike += 1
    return [".".join(one[alike:]) for one in parts]


class Prefix(nn.Module):
    """The network up to `block`: the same inputs -> what enters the block, flattened, float32."""

    def __init__(self, network: nn.Module, block: str) -> None:
        super().__init__()
        self.network = network
        self.block = block
        # one hook for good: rows run on several threads at once, which must not change the hooks meanwhile
        self._hook = network.get_submodule(block).register_forward_pre_hook(self._stop, with_kwargs=True)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.entering(*inputs).flatten(1).float()

    def entering(self, *inputs: Tensor) -> Tensor:
        """What enters the block, in its own shape."""
        try:
            self.network(*inputs)
        except _Reached as reached:
            return reached.hidden
        raise RequestError(f"nothing enters block {self.block}: it does not run as a whole; choose another")

    def release(self) -> None:
        """Leave the network as it was; this runs no more."""
        self._hook.remove()

    def _stop(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden = args[0] if args else kwargs.get("hidden_states")
        if hidden is None:
            raise RequestError(
                f"block {self.block!r} takes what enters it by a name of its own ({', '.join(kwargs)}): "
                "the network cannot be parted there; take strategy full or lora"
            )
        raise _Reached(hidden)


class _Reached(Exception):
    def __init__(self, hidden: Tensor) -> None:
        self.hidden = hidden


class Suffix(nn.Module):
    """The network from `block` on: (what entered the block, flattened, *its other inputs) -> features.

    The frozen blocks before are gone. The stem still runs, and stays in eval mode whatever the rest is
    in: its statistics must not follow what is thrown away. blank: what it runs on in the place of the
    first input, which is then not given, (1, ...); None where that is needed.
    """

    blank: Tensor | None

    def __init__(
        self, network: nn.Module, block: str, shape: Sequence[int], blank: Tensor | None, late: frozenset[str]
    ) -> None:
        super().__init__()
        self.network, self.block, self.shape = network, block, tuple(shape)
        self.register_buffer("blank", blank, persistent=False)
        self._hidden: Tensor | None = None
        self._frozen = [module for name, module in network.named_modules() if _frozen(name, module, late)]
        network.get_submodule(block).register_forward_pre_hook(self._inject, with_kwargs=True)

    def forward(self, hidden: Tensor, *inputs: Tensor) -> Tensor:
        self._hidden = hidden.reshape(len(hidden), *self.shape)
        if self._hidden.ndim == 4:
            self._hidden = self._hidden.contiguous(memory_format=torch.channels_last)
        try:
            features: Tensor = self.network(*(() if self.blank is None else (self.blank,)), *inputs)
        finally:
            self._hidden = None
        return features

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def _inject(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        assert self._hidden is not None, "a Suffix runs by its own forward alone"
        if args:
            return (self._hidden, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": self._hidden}


@dataclass(frozen=True)
class Parted:
    """suffix: (what enters the block, flattened, *other inputs) -> features; its `network` is what learns.

    late: names in `network` of the parameters that the features depend on and what enters the block does
    not. shape: of what enters the block, one row's (-1: its own length). others: how many of the
    network's inputs, the last ones, the suffix takes besides.
    """

    suffix: nn.Module
    block: str
    late: frozenset[str]
    shape: tuple[int, ...]
    others: int = 0


def part(
    network: nn.Module,
    block: str,
    example: Sequence[Tensor],
    blanks: Sequence[Tensor],
    steps: int | None,
    source: str,
) -> Parted:
    """The network from `block` on, checked against the whole; it is changed in place.

    example: inputs of one row. blanks: inputs (1, ...) that may stand for the first, small ones first.
    steps: how many the example has where rows differ in length, else None. Raises RequestError where the
    block does not exist, or where what follows needs more than what enters it (attention biases handed
    from block to block, skips past it, weights shared by all blocks).
    """
    network.eval()
    block = known_block(blocks(network), block, source)
    whole, entering, late = _traced(network, block, example)
    shape = tuple(entering.shape[1:])
    given = shape if steps is None else (-1, *shape[1:])
    _drop_before(network, block, _forms(network, example))
    alike = steps is None or shape[0] == steps
    for blank in [*blanks, None] if alike else []:
        suffix = Suffix(network, block, given, blank, late)
        inputs = (entering.flatten(1).float(), *example[blank is not None :])
        if _agrees(suffix, inputs, whole):
            return Parted(suffix, block, late, given, len(inputs) - 1)
        _remove_hooks(network.get_submodule(block))
    raise RequestError(
        f"source {source!r} cannot be parted before its block {block}: what follows needs more than that "
        "block's input; choose another block, or strategy full or lora"
    )


def _agrees(suffix: Suffix, inputs: Sequence[Tensor], whole: Tensor) -> bool:
    """Whether two rows at once come out as the one row did in the whole network."""
    try:
        with torch.no_grad():
            found = suffix(*(torch.cat([one, one]) for one in inputs))
            return bool((found - whole).abs().max() <= _CLOSE * whole.abs().max().clamp(min=1e-6))
    except _WRONG:
        return False


_WRONG = (RuntimeError, ValueError, IndexError, AttributeError, TypeError, KeyError)
"""What a network raises that is run without its first blocks, where it needs more of them."""


def _traced(
    network: nn.Module, block: str, example: Sequence[Tensor]
) -> tuple[Tensor, Tensor, frozenset[str]]:
    """(features, what enters the block, names of the parameters that only the features depend on)."""
    named = {name: one for name, one in network.named_parameters() if one.requires_grad}
    with torch.enable_grad():
        prefix = Prefix(network, block)
        try:
            entering = prefix.entering(*example)
        finally:
            prefix.release()
        features = network(*example)
        late = _used(features, named) - _used(entering, named)
    return features.detach(), entering.detach(), late


def _used(result: Tensor, named: Mapping[str, nn.Parameter]) -> frozenset[str]:
    """Names of the parameters that `result` depends on."""
    if not result.requires_grad:
        return frozenset()
    # kept: some networks use in one run what they computed in another
    slopes = torch.autograd.grad(result.sum(), list(named.values()), retain_graph=True, allow_unused=True)
    return frozenset(name for name, slope in zip(named, slopes, strict=True) if slope is not None)


def _forms(network: nn.Module, example: Sequence[Tensor]) -> dict[str, int | None]:
    """How many members each block's answer has; None where it is a tensor by itself."""
    found: dict[str, int | None] = {}

    def note(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, answer: Any) -> None:
            found[name] = len(answer) if isinstance(answer, tuple | list) else None

        return hook

    hooks = [network.get_submodule(name).register_forward_hook(note(name)) for name in blocks(network)]
    try:
        with torch.no_grad():
            network(*example)
    finally:
        for one in hooks:
            one.remove()
    return found


def _drop_before(network: nn.Module, block: str, forms: Mapping[str, int | None]) -> None:
    """Put a pass in the place of every block before `block`."""
    for name in blocks(network):
        if name == block:
            return
        parent, _, key = name.rpartition(".")
        old = network.get_submodule(name)
        setattr(network.get_submodule(parent), key, _Pass(old, forms.get(name)))


class _Pass(nn.Module):
    """Gives what it takes, in the form in which `block` answers, and has that block's plain settings."""

    def __init__(self, block: nn.Module, members: int | None) -> None:
        super().__init__()
        plain = {name: value for name, value in vars(block).items() if isinstance(value, str | int | float)}
        vars(self).update({name: value for name, value in plain.items() if name != "training"})
        self._members = members

    def forward(self, hidden_states: Any = None, *args: Any, **kwargs: Any) -> Any:
        if self._members is None:
            return hidden_states
        return (hidden_states, *[None] * (self._members - 1))


def _frozen(name: str, module: nn.Module, late: frozenset[str]) -> bool:
    """Whether the module has parameters of its own, none of them late."""
    own = [f"{name}.{one}".lstrip(".") for one, _ in module.named_parameters(recurse=False)]
    return bool(own) and late.isdisjoint(own)


def _remove_hooks(module: nn.Module) -> None:
    module._forward_pre_hooks.clear()
    module._forward_pre_hooks_with_kwargs.clear()


def _stage(member: nn.Module, place: str) -> tuple[str, nn.Module] | None:
    """The layers of a stage: itself where it is a list, else the largest of its lists; None without any."""
    if isinstance(member, nn.ModuleList):
        return place, member
    return max(_outermost(member, place), key=lambda one: _size(one[1]), default=None)


def _size(module: nn.Module) -> int:
    return sum(one.numel() for one in module.parameters())


def _outermost(module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Lists of at least two layers (or of one, in a stage), not inside another such list."""
    for key, child in module.named_children():
        place = f"{name}.{key}" if name else key
        if isinstance(child, nn.ModuleList | nn.Sequential) and len(child):
            yield place, child
        else:
            yield from _outermost(child, place)
