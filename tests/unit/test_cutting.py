"""A network parted before a block: what comes before and what follows are the whole, and learn apart."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

import tiny_networks
from graftwork.backbones import cutting
from graftwork.errors import RequestError

NAMES = [*tiny_networks.IMAGES, *tiny_networks.TEXTS]
REFUSED = ("albert", "xlnet")
"""All blocks of the one share their weights; the other lays time before rows."""
DEEP = 6
"""Of networks with many blocks so many are tried."""


def part(network: nn.Module, block: str, name: str) -> cutting.Parted:
    example = tuple(one[:1] for one in tiny_networks.inputs(name))
    blanks = (
        [] if name in tiny_networks.TEXTS else [torch.zeros(1, tiny_networks.SIDE, tiny_networks.SIDE, 3)]
    )
    steps = tiny_networks.TOKENS if name in tiny_networks.TEXTS else None
    return cutting.part(network, block, example, blanks, steps, name)


def some(names: tuple[str, ...]) -> list[str]:
    return [names[i] for i in sorted({round(k * (len(names) - 1) / (DEEP - 1)) for k in range(DEEP)})]


def entering(network: nn.Module, block: str, inputs: tuple[Tensor, ...]) -> Tensor:
    prefix = cutting.Prefix(network, block)
    with torch.no_grad():
        hidden: Tensor = prefix(*inputs)
    prefix.release()
    return hidden


def ask(parted: cutting.Parted, hidden: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
    with torch.no_grad():
        features: Tensor = parted.suffix(hidden, *inputs[len(inputs) - parted.others :])
    return features


@contextmanager
def shifted(value: nn.Parameter, noise: Tensor) -> Iterator[None]:
    before = value.data
    value.data = before + noise
    yield
    value.data = before


@pytest.mark.parametrize("name", [name for name in NAMES if name not in REFUSED])
def test_what_follows_a_block_gives_what_the_whole_network_gives(name: str) -> None:
    network, inputs = tiny_networks.network(name), tiny_networks.inputs(name, 3)
    with torch.no_grad():
        whole = network(*inputs)
    names = cutting.blocks(network)
    assert len(names) > 1
    for block in some(names):
        parted = part(copy.deepcopy(network), block, name)
        found = ask(parted, entering(network, parted.block, inputs), inputs)
        assert (found - whole).abs().max() <= 1e-4 * whole.abs().max(), block


@pytest.mark.parametrize("name", ["resnet", "convnext", "swin", "vit", "bert", "deberta", "mpnet"])
def test_what_may_learn_changes_the_features_and_not_what_is_kept(name: str) -> None:
    network, inputs = tiny_networks.network(name), tiny_networks.inputs(name)
    block = cutting.blocks(network)[1]
    parted = part(copy.deepcopy(network), block, name)
    hidden = entering(network, block, inputs)
    before = ask(parted, hidden, inputs)
    late = dict(parted.suffix.network.named_parameters())
    dead = []
    for place, (one, value) in enumerate(network.named_parameters()):
        noise = 0.3 * torch.randn(value.shape, generator=torch.Generator().manual_seed(place))
        with shifted(value, noise):
            kept = torch.equal(entering(network, block, inputs), hidden)
        assert kept or one not in parted.late, one
        if one in parted.late:
            with shifted(late[one], noise):
                dead += [one] if torch.equal(ask(parted, hidden, inputs), before) else []
    # a key's bias adds the same to all of a query's scores
    assert parted.late and all("k" in one and one.endswith("bias") for one in dead), dead


@pytest.mark.parametrize("name", ["resnet", "bert"])
def test_every_parameter_lies_before_or_after_the_cut(name: str) -> None:
    network = tiny_networks.network(name)
    names = cutting.blocks(network)
    late = [part(copy.deepcopy(network), block, name).late for block in names]
    assert all(later < earlier for earlier, later in pairwise(late))
    for block, found in zip(names, late, strict=True):
        assert {one for one in found if one.startswith(f"{block}.")} == {
            one for one, _ in network.named_parameters() if one.startswith(f"{block}.")
        }


def test_stages_are_parted_at_their_own_layers() -> None:
    names = cutting.short_names(cutting.blocks(tiny_networks.network("convnext")))
    assert names == ["stages.0.layers.0", "stages.1.layers.0", "stages.1.layers.1", "stages.2.layers.0",
                     "stages.3.layers.0"]  # fmt: skip
    assert cutting.short_names(["a.b.layer.0", "a.b.layer.1"]) == ["layer.0", "layer.1"]


def test_the_stem_keeps_its_statistics_while_the_rest_learns() -> None:
    network = tiny_networks.network("resnet")
    parted = part(copy.deepcopy(network), cutting.blocks(network)[1], "resnet")
    hidden = entering(network, parted.block, tiny_networks.inputs("resnet"))
    before = {name: value.clone() for name, value in parted.suffix.network.state_dict().items()}
    parted.suffix.train()(hidden)
    after = parted.suffix.network.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and not any("embedder" in name for name in changed)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_parted_is_refused_in_one_line(name: str) -> None:
    network = tiny_networks.network(name)
    with pytest.raises(RequestError, match="cannot be parted before its block") as said:
        part(network, cutting.blocks(network)[-1], name)
    assert "\n" not in str(said.value) and "strategy full or lora" in str(said.value)


def test_what_hands_a_second_value_past_the_cut_is_refused() -> None:
    class Skipping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

        def forward(self, row: Tensor) -> Tensor:
            first = self.layers[0](row)
            last: Tensor = self.layers[2](self.layers[1](first).relu()) + first
            return last

    torch.manual_seed(0)
    with pytest.raises(RequestError, match="choose another block"):
        cutting.part(Skipping(), "2", [torch.randn(1, 4)], [], None, "net")


def test_an_unknown_block_is_answered_by_the_blocks_there_are() -> None:
    network = tiny_networks.network("resnet")
    with pytest.raises(RequestError) as said:
        part(network, "stages.1.layer.1", "resnet")
    assert "did you mean 'stages.1.layers.1'? its blocks, first to last: stages.0.layers.0, " in str(
        said.value
    )
    with pytest.raises(RequestError, match=r"has several blocks 'layers.1'; name one of: stages.0.layers.0"):
        part(network, "layers.1", "resnet")
    with pytest.raises(RequestError, match="has no blocks that run one after the other; strategy full"):
        cutting.known_block(cutting.blocks(nn.Linear(2, 2)), "x", "net")


def test_a_block_is_known_by_the_end_of_its_name() -> None:
    names = cutting.blocks(tiny_networks.network("bert"))
    assert (
        cutting.known_block(names, "layer.2", "bert") == names[2] == cutting.known_block(names, names[2], "b")
    )


def test_a_block_that_takes_its_input_by_another_name_is_refused_in_one_line() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, states: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.layer(states)
            return found

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([Block(), Block()])

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            for one in self.layers:
                values = one(states=values)
            return values

    with pytest.raises(RequestError, match=r"block 'layers\.1' .*strategy full or lora"):
        cutting.part(Network(), "layers.1", [torch.zeros(1, 4)], [], None, "a source")
