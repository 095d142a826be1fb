"""Low-rank pairs as inputs of their source's own network, which all tasks of one set of layers then share.

A row comes with the number of its pairs among those of its batch, so that rows of many tasks run together.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from threading import get_ident
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from graftwork.backbones.learnt import LORA_A, LORA_B, Pair, apply_learnt, grouped, strung
from graftwork.errors import ArtefactError

_CLOSE = 1e-3
"""Largest difference, relative to the features' size, between pairs beside a network and merged ones."""
_WRONG = (RuntimeError, ValueError, IndexError, AttributeError, TypeError, KeyError)
"""What a layer raises that does not run as a layer of its own."""


class Adapted(nn.Module):
    """(*inputs, whose, numbers) -> features of `network`, the pairs of each row added to its layers.

    whose: (rows,) int64, which of `numbers` (backbones, all numbers) are the row's; see `learnt.strung`.
    Raises ArtefactError for pairs that are none of the network's.
    """

    def __init__(self, network: nn.Module, pairs: Sequence[Pair], source: str) -> None:
        super().__init__()
        self.network = network
        self.groups = [
            (sum(rank for _, rank, _, _ in group), int(group[0][2]), [int(out) for *_, out in group])
            for group in grouped(pairs)
        ]
        # by thread: rows run through one network at once, each on a thread of its own
        self._given: dict[int, list[tuple[Tensor, Tensor]]] = {}
        self._made: dict[int, tuple[int, Tensor, Sequence[Tensor]]] = {}
        layers = dict(network.named_modules())
        for number, group in enumerate(grouped(pairs)):
            for place, (name, _, into, out) in enumerate(group):
                layer = layers.get(name.removesuffix(".weight"))
                if not isinstance(layer, nn.Linear) or (layer.in_features, layer.out_features) != (into, out):
                    raise ArtefactError(
                        f"what was tuned holds {name!r} from {into} to {out} numbers, which is no layer "
                        f"of source {source!r}; it belongs to another, or to another version of its library"
                    )
                layer.register_forward_hook(partial(self._add, number, place))

    def forward(self, *inputs: Tensor) -> Tensor:
        *own, whose, numbers = inputs
        mine, start, thread = numbers[whose], 0, get_ident()
        given = self._given[thread] = []
        for rank, into, outs in self.groups:
            middle, end = start + rank * into, start + rank * (into + sum(outs))
            down = mine[:, start:middle].reshape(-1, rank, into)
            up = mine[:, middle:end].reshape(-1, sum(outs), rank)
            given.append((down.transpose(1, 2), up.transpose(1, 2)))
            start = end
        try:
            features: Tensor = self.network(*own)
        finally:
            del self._given[thread]
            self._made.pop(thread, None)
        return features

    def _add(
        self, number: int, place: int, layer: nn.Linear, inputs: tuple[Tensor], output: Tensor
    ) -> Tensor:
        thread = get_ident()
        made = self._made.get(thread)
        if made is None or made[0] != number or made[1] is not inputs[0]:
            changes = self._changes(number, inputs[0]).split_with_sizes(self.groups[number][2], -1)
            made = self._made[thread] = number, inputs[0], changes
        return output + made[2][place]

    def _changes(self, number: int, x: Tensor) -> Tensor:
        """What the pairs of a group add: layers with the same input have it by one product, not one each."""
        down, up = self._given[get_ident()][number]
        if (
            x.ndim == 3 and x.shape[0] == down.shape[0]
        ):  # as it mostly is: shapes cost a compiled network time
            return torch.bmm(torch.bmm(x, down), up)
        # a row's inputs follow each other, whatever parts the network has cut it into
        rows = x.reshape(down.shape[0], -1, x.shape[-1])
        return torch.bmm(torch.bmm(rows, down), up).reshape(*x.shape[:-1], up.shape[2])


def fits(network: nn.Module, pairs: Sequence[Pair], row: Sequence[NDArray[Any]], source: str) -> bool:
    """Whether pairs beside this network do what merged ones do, each for its own row; it is changed.

    row: the network's inputs for one row. Tried with large pairs, so that none of them can go unseen.
    """
    rng = np.random.default_rng(0)
    drawn = [_drawn(rng, pairs) for _ in range(2)]
    inputs = tuple(torch.from_numpy(np.concatenate([array, array])) for array in row)
    numbers = torch.from_numpy(np.concatenate([strung(learnt) for learnt in drawn]))
    state = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.inference_mode():
        merged = []
        for learnt in drawn:
            network.load_state_dict(state)
            apply_learnt(network, learnt, source)
            merged.append(network(*(one[:1] for one in inputs)))
        network.load_state_dict(state)
        try:
            beside = Adapted(network, pairs, source)(*inputs, torch.arange(2), numbers)
        except (*_WRONG, ArtefactError):
            return False
        wanted = torch.cat(merged)
        return bool((beside - wanted).abs().max() <= _CLOSE * wanted.abs().max().clamp(min=1e-6))


def _drawn(rng: np.random.Generator, pairs: Sequence[Pair]) -> Mapping[str, NDArray[np.float32]]:
    found = {}
    for name, rank, into, out in pairs:
        found[f"{name}{LORA_A}"] = (rng.normal(size=(rank, into)) / np.sqrt(into)).astype(np.float32)
        found[f"{name}{LORA_B}"] = (rng.normal(size=(out, rank)) / np.sqrt(rank)).astype(np.float32)
    return found
