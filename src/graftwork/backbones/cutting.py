"""A network parted before one of its blocks: what comes before can be kept, what follows can learn."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from graftwork.errors import RequestError, nearest

SMALL = 32
"""Side of the blank picture that the stem of a convolutional network sees where its output is not used."""
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
    name, largest = max(lists, key=lambda one: sum(p.numel() for p in one[1].parameters()))
    stages = [next(_outermost(member, f"{name}.{key}"), None) for key, member in largest.named_children()]
    inner = [member for stage in stages if stage is not None for member in stage[1].children()]
    if None not in stages and len({type(member) for member in inner}) == 1:
        return tuple(
            f"{place}.{key}" for stage in stages if stage is not None
            for place, members in [stage] for key, _ in members.named_children()
        )  # fmt: skip
    return tuple(f"{name}.{key}" for key, _ in largest.named_children())


def known_block(network: nn.Module, block: str, source: str) -> str:
    """The full name of the block called `block`: whole, or from its end; raises RequestError."""
    names = blocks(network)
    fitting = [name for name in names if name == block or name.endswith(f".{block}")]
    if len(fitting) == 1:
        return fitting[0]
    close = nearest(block, names)
    hint = f"; did you mean {close!r}?" if close else ";"
    listed = ", ".join(names) or "none that run one after the other"
    raise RequestError(f"source {source!r} has no block {block!r}{hint} its blocks, first to last: {listed}")


class Prefix(nn.Module):
    """The network up to `block`: the same inputs -> what enters the block, flattened, float32."""

    def __init__(self, network: nn.Module, block: str) -> None:
        super().__init__()
        self.network = network
        self.block = block

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.entering(*inputs).flatten(1).float()

    def entering(self, *inputs: Tensor) -> Tensor:
        """What enters the block, in its own shape."""

        def stop(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            raise _Reached(args[0] if args else kwargs["hidden_states"])

        hook = self.network.get_submodule(self.block).register_forward_pre_hook(stop, with_kwargs=True)
        try:
            self.network(*inputs)
        except _Reached as reached:
            return reached.hidden
        finally:
            hook.remove()
        raise AssertionError(f"block {self.block} did not run")


class _Reached(Exception):
    def __init__(self, hidden: Tensor) -> None:
        self.hidden = hidden


class Suffix(nn.Module):
    """The network from `block` on: (what entered the block, flattened, *its other inputs) -> features.

    The frozen blocks before are gone; the stem still runs, on a blank picture where it sees pictures.
    """

    def __init__(
        self, network: nn.Module, block: str, shape: Sequence[int], blank: Sequence[int] | None
    ) -> None:
        super().__init__()
        self.network, self.block, self.shape = network, block, tuple(shape)
        self.blank = None if blank is None else tuple(blank)
        self._hidden: Tensor | None = None
        network.get_submodule(block).register_forward_pre_hook(self._inject, with_kwargs=True)

    def forward(self, hidden: Tensor, *inputs: Tensor) -> Tensor:
        self._hidden = hidden.reshape(len(hidden), *self.shape)
        if self._hidden.ndim == 4:
            self._hidden = self._hidden.contiguous(memory_format=torch.channels_last)
        if self.blank is not None:
            inputs = (hidden.new_zeros(len(hidden), *self.blank),)
        try:
            features: Tensor = self.network(*inputs)
        finally:
            self._hidden = None
        return features

    def _inject(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        assert self._hidden is not None, "a Suffix runs by its own forward alone"
        if args:
            return (self._hidden, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": self._hidden}


@dataclass(frozen=True)
class Parted:
    """suffix: what may learn. late: names in `network` of the parameters and buffers that it runs on.

    shape: of what enters the block, one row's (a text's own length where it is -1).
    """

    suffix: Suffix
    late: frozenset[str]
    shape: tuple[int, ...]


def part(build: Callable[[], nn.Module], block: str, example: Sequence[Tensor], source: str) -> Parted:
    """The network that `build` gives, from `block` on, checked against the whole on `example` inputs.

    Raises RequestError where the block does not exist, or where what follows needs more than what
    enters it (attention biases handed from block to block, skips past it).
    """
    network = build().eval()
    block = known_block(network, block, source)
    with torch.no_grad():
        whole = network(*example)
        late = _late(network, block, example)
        entering = Prefix(network, block).entering(*example)
        lengths = example[0].ndim == 2  # token numbers
        shape = tuple(entering.shape[1:])
        given = (-1, *shape[1:]) if lengths else shape
        blanks = [None] if lengths else [(SMALL, SMALL, 3), tuple(example[0].shape[1:])]
        _drop_before(network, block)
        for blank in blanks:
            suffix = Suffix(network, block, given, blank)
            try:
                found = suffix(entering.flatten(1).float(), *example)
            except (RuntimeError, ValueError, IndexError):
                _remove_hooks(network.get_submodule(block))
                continue
            if (found - whole).abs().max() <= _CLOSE * whole.abs().max().clamp(min=1e-6):
                return Parted(suffix, late, given)
            _remove_hooks(network.get_submodule(block))
    raise RequestError(
        f"source {source!r} cannot be parted before its block {block}: what follows needs more than that "
        "block's input; choose another block, or strategy full or lora"
    )


def _late(network: nn.Module, block: str, example: Sequence[Tensor]) -> frozenset[str]:
    """Parameters and buffers of modules that have not begun to run when the block begins."""
    early: set[str] = set()
    reached = False

    def note(name: str) -> Callable[[nn.Module, Any], None]:
        def hook(module: nn.Module, args: Any) -> None:
            nonlocal reached
            reached = reached or name == block
            if not reached:
                early.update(f"{name}.{own}".lstrip(".") for own in _own(module))

        return hook

    hooks = [module.register_forward_pre_hook(note(name)) for name, module in network.named_modules()]
    try:
        network(*example)
    finally:
        for one in hooks:
            one.remove()
    return frozenset(set(network.state_dict()) - early)


def _own(module: nn.Module) -> Iterator[str]:
    yield from (name for name, _ in module.named_parameters(recurse=False))
    yield from (name for name, _ in module.named_buffers(recurse=False))


def _drop_before(network: nn.Module, block: str) -> None:
    """Put a pass in the place of every block before `block`."""
    for name in blocks(network):
        if name == block:
            return
        parent, _, key = name.rpartition(".")
        setattr(network.get_submodule(parent), key, _Pass())


class _Pass(nn.Module):
    def forward(self, hidden_states: Any = None, *args: Any, **kwargs: Any) -> Any:
        return hidden_states


def _remove_hooks(module: nn.Module) -> None:
    module._forward_pre_hooks.clear()
    module._forward_pre_hooks_with_kwargs.clear()


def _outermost(module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Lists of at least two layers (or of one, in a stage), not inside another such list."""
    for key, child in module.named_children():
        place = f"{name}.{key}" if name else key
        if isinstance(child, nn.ModuleList | nn.Sequential) and len(child):
            yield place, child
        else:
            yield from _outermost(child, place)


@contextmanager
def learning(network: nn.Module, names: frozenset[str]) -> Iterator[None]:
    """Only the parameters of these names take gradients inside."""
    before = {name: one.requires_grad for name, one in network.named_parameters()}
    for name, one in network.named_parameters():
        one.requires_grad_(name in names)
    try:
        yield
    finally:
        for name, one in network.named_parameters():
            one.requires_grad_(before[name])
