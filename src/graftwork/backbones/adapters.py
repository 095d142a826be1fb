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
            (int(group[0][2]), [int(rank) for _, rank, *_ in group], [int(out) for *_, out in group])
            for group in grouped(pairs)
        ]
        # by thread: rows run through one network at once, each on a thread of its own
        self._given: dict[int, list[tuple[Tensor, list[Tensor]]]] = {}
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
        given: list[tuple[Tensor, list[Tensor]]] = []
        for into, ranks, outs in self.groups:
            sizes = [sum(ranks) * into, *(out * rank for rank, out in zip(ranks, outs, strict=True))]
            down, *ups = mine[:, start : start + sum(sizes)].split_with_sizes(sizes, 1)
            shaped = [
                up.reshape(-1, out, rank).transpose(1, 2)
                for up, rank, out in zip(ups, ranks, outs, strict=True)
            ]
            given.append((down.reshape(-1, sum(ranks), into).transpose(1, 2), shaped))
            start += sum(sizes)
        self._given[thread] = given
        try:
            features: Tensor = self.network(*own)
        finally:
            del self._given[thread]
            self._made.pop(thread, None)
        return features

    def _add(
        self, number: int, place: int, layer: nn.Linear, inputs: tuple[Tensor], output: Tensor
    ) -> Tensor:
        thread, x = get_ident(), inputs[0]
        down, ups = self._given[thread][number]
        # as it mostly is: to work out shapes costs a compiled network time
        plain = x.ndim == 3 and x.shape[0] == down.shape[0]
        made = self._made.get(thread)
        if made is None or made[0] != number or made[1] is not x:
            # a row's inputs follow each other, whatever parts the network has cut it into
            rows = x if plain else x.reshape(down.shape[0], -1, layer.in_features)
            # of layers with the same input at once
            parts = torch.bmm(rows, down).split_with_sizes(self.groups[number][1], 2)
            made = self._made[thread] = number, x, parts
        change = torch.bmm(made[2][place], ups[place])
        return output + (change if plain else change.reshape(output.shape))


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
