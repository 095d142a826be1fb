"""Low-rank pairs as inputs of the source's network: one network for all, the numbers of merged ones."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import tiny
import tiny_audio
from graftwork.backbones import converted, engine, open_backbone, restore, texts
from graftwork.backbones.adapters import Adapted, fits
from graftwork.backbones.base import BackboneState
from graftwork.backbones.learnt import (
    KEY,
    LORA_A,
    LORA_B,
    PAIRS,
    check_learnt,
    digest_of_learnt,
    grouped,
    pairs_of,
    strung,
)
from graftwork.backbones.pretrained import Pretrained
from graftwork.backbones.quiet import quiet
from graftwork.backbones.served import NOTHING, Added, beside
from graftwork.errors import ArtefactError
from graftwork.rows import Rows
from graftwork.sources import find
from graftwork.strategies.lora import targets

Learnt = dict[str, NDArray[np.float32]]
Made = Callable[[Path], Path]
KINDS: dict[str, Made] = {
    "text": tiny.bert,
    "image": tiny.vit,
    "audio": lambda place: tiny_audio.waves(place, "wav2vec2"),
}


def opened(kind: str, folder: Path, runtime: str | None = "torch") -> Pretrained:
    found = open_backbone(find(str(KINDS[kind](folder))), None, runtime=runtime)
    assert isinstance(found, Pretrained)
    return found


def rows_of(kind: str) -> Rows:
    if kind == "audio":
        return tiny_audio.rows(0.3, 0.5, 0.7, 4.5)
    return tiny.image_rows(5) if kind == "image" else tiny.text_rows(12)


def pairs(backbone: Pretrained, seed: int = 0, rank: int = 2, scale: float = 0.5) -> Learnt:
    """What `lora` might have learnt beside every projection of attention."""
    rng, network, found = np.random.default_rng(seed), backbone.network(), {}
    for name in targets(network, backbone.blocks(), "attention", "this source"):
        out, into = network.get_parameter(f"{name}.weight").shape
        found[f"{name}.weight{LORA_A}"] = (scale * rng.normal(size=(rank, into))).astype(np.float32)
        found[f"{name}.weight{LORA_B}"] = (scale * rng.normal(size=(out, rank))).astype(np.float32)
    return found


def merged(backbone: Pretrained, learnt: Learnt) -> Pretrained:
    """As it was saved before pairs could be inputs: the same tensors, no word of pairs."""
    state = backbone.tuned(learnt, None).state()
    config = {name: said for name, said in state.config.items() if name != PAIRS}
    found = restore(BackboneState(state.family, config, state.arrays, state.source))
    assert isinstance(found, Pretrained)
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("runtime", ["torch", None])
def test_pairs_beside_a_network_give_the_numbers_of_merged_ones(
    kind: str, runtime: str | None, tmp_path: Path, settled_home: Path
) -> None:
    backbone, rows = opened(kind, tmp_path, runtime), rows_of(kind)
    for seed in range(2):
        learnt = pairs(backbone, seed)
        found, wanted = backbone.tuned(learnt, rows), merged(backbone, learnt)
        assert PAIRS in found.config and found.running.key != wanted.running.key
        assert found.fingerprint != wanted.fingerprint
        numbers = found.features(rows).matrix
        assert np.abs(numbers - backbone.features(rows).matrix).max() > 0.05
        assert engine.cosines(numbers, wanted.features(rows).matrix).min() > 0.99
        if found.config["precision"] == "f32":
            np.testing.assert_allclose(numbers, wanted.features(rows).matrix, atol=2e-4)


def test_all_that_adapt_the_same_layers_share_one_conversion_and_one_network(
    tmp_path: Path, settled_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone, rows = opened("text", tmp_path, None), rows_of("text")
    first = backbone.tuned(pairs(backbone), rows)
    assert first.config["runtime"] == "openvino"
    before = {path for path in settled_home.rglob("network.bin")}

    def never(*_: object) -> None:
        raise AssertionError("converted once more")

    monkeypatch.setattr(converted, "_convert", never)
    others = [backbone.tuned(pairs(backbone, seed), rows) for seed in range(1, 4)]
    features = [one.features(rows).matrix for one in [first, *others]]
    assert all(not np.array_equal(features[0], one) for one in features[1:])
    assert {path for path in settled_home.rglob("network.bin")} == before
    assert {one.shared for one in others} == {first.shared} != {backbone.shared}
    assert len({one.fingerprint for one in [first, *others]}) == 4
    assert backbone.shared == backbone.fingerprint and backbone.added is NOTHING


@pytest.mark.parametrize("runtime", ["torch", None])
def test_rows_of_several_run_together_and_no_bit_of_them_changes(
    runtime: str | None, tmp_path: Path, settled_home: Path
) -> None:
    backbone = opened("text", tmp_path, runtime)
    tuned = [backbone.tuned(pairs(backbone, seed), None) for seed in range(3)]
    rng = np.random.default_rng(0)
    ids = rng.integers(1, 10, (9, 8))
    added = [tuned[i % 3].added for i in range(9)]
    inputs = beside((ids, np.ones_like(ids)), added)
    assert inputs[2].tolist() == [0, 1, 2] * 3 and inputs[3].shape == (3, added[0].nbytes // 4)
    config = tuned[0].config
    runner = engine.runner(tuned[0].running, config["runtime"], config["precision"])

    def run(*arrays: NDArray[np.generic]) -> NDArray[np.float32]:
        out = np.empty((len(arrays[0]), 16), np.float32)
        engine.collect(runner, [(np.arange(len(out)), arrays)], out, lambda _: None, "x")
        return out

    together = run(*inputs)
    for i in range(9):
        row = ids[i : i + 1]
        alone = run(*beside((row, np.ones_like(row)), [added[i]]))
        assert np.array_equal(together[i], alone[0])


def test_what_is_saved_opens_with_its_pairs_and_older_ones_merged(tmp_path: Path, settled_home: Path) -> None:
    backbone, rows = opened("text", tmp_path, None), rows_of("text")
    tuned = backbone.tuned(pairs(backbone), rows)
    again = restore(tuned.state())
    assert again.fingerprint == tuned.fingerprint and again.shared == tuned.shared  # type: ignore[attr-defined]
    assert np.array_equal(again.features(rows).matrix, tuned.features(rows).matrix)
    old = merged(backbone, pairs(backbone))
    assert old.shared == old.fingerprint and old.added is NOTHING and old.running.passing
    assert old.recipe.key[KEY] == old.config[KEY] and "pairs" not in old.recipe.key


def test_layers_and_looks_and_other_tensors_stay_merged(tmp_path: Path, settled_home: Path) -> None:
    backbone, rows = opened("text", tmp_path), rows_of("text")
    learnt = pairs(backbone)
    layered = backbone.layered(backbone.blocks()[:1], None)
    assert PAIRS not in layered.tuned(learnt, None).config
    assert PAIRS not in backbone.tuned(learnt, None).layered(backbone.blocks()[:1], None).config
    assert PAIRS not in backbone.tuned(learnt, rows, settle=False).config
    name, value = next(iter(backbone.network().named_parameters()))
    assert PAIRS not in backbone.tuned({**learnt, name: value.detach().numpy()}, None).config
    assert PAIRS not in backbone.tuned(learnt, None).tuned({}, None).config


def test_a_configuration_of_other_pairs_is_refused(tmp_path: Path, settled_home: Path) -> None:
    state = opened("text", tmp_path).tuned(pairs(opened("text", tmp_path)), None).state()
    listed = state.config[PAIRS]
    for wrong in ([], listed[1:], [[*listed[0][:3], 99], *listed[1:]], {}):
        config = {**state.config, PAIRS: wrong}
        with pytest.raises(ArtefactError, match="holds other pairs than its configuration lists"):
            restore(BackboneState(state.family, config, state.arrays, state.source))
    strange = {f"nowhere.weight{end}": state.arrays[listed[0][0] + end] for end in (LORA_A, LORA_B)}
    from graftwork.backbones.learnt import digest_of_learnt

    config = {**state.config, PAIRS: pairs_of(strange), KEY: digest_of_learnt(strange)}
    found = restore(BackboneState(state.family, config, strange, state.source))
    with pytest.raises(ArtefactError, match="no layer of source"):
        found.features(rows_of("text"))


class Turned(nn.Module):
    """Steps before rows, as some networks have them; `plain` uses a weight without its layer."""

    def __init__(self, turned: bool, plain: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.turned, self.plain = nn.Linear(4, 4), turned, plain

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.transpose(0, 1) if self.turned else x
        x = x @ self.layer.weight.T if self.plain else self.layer(x)
        return x.transpose(0, 1).flatten(1) if self.turned else x.flatten(1)


@pytest.mark.parametrize(("turned", "plain"), [(False, False), (True, False), (False, True)])
def test_a_network_that_cannot_take_pairs_row_by_row_is_found_out(turned: bool, plain: bool) -> None:
    row = [np.random.default_rng(0).normal(size=(1, 3, 4)).astype(np.float32)]
    listed = [["layer.weight", 2, 4, 4]]
    assert fits(Turned(turned, plain), listed, row, "s") == (not turned and not plain)


class Windows(nn.Module):
    """Cuts each row into two windows, which its layer takes for rows, and is pooled."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.layer(x.reshape(-1, x.shape[1] // 2, 4))
        return hidden.reshape(x.shape).mean(1)


def test_windows_of_a_row_take_the_rows_pairs_also_where_it_is_traced() -> None:
    row = [np.random.default_rng(0).normal(size=(1, 6, 4)).astype(np.float32)]
    listed = [["layer.weight", 2, 4, 4]]
    assert fits(Windows(), listed, row, "s")
    rng = torch.Generator().manual_seed(0)
    x, numbers = torch.randn(5, 6, 4, generator=rng), torch.randn(3, 16, generator=rng)
    whose = torch.tensor([0, 2, 1, 1, 0])
    adapted = Adapted(Windows(), listed, "s").eval()
    example = (x[:2], torch.tensor([0, 0]), numbers[:1])
    with quiet():
        traced = torch.jit.trace(adapted, example, check_trace=False)  # type: ignore[no-untyped-call]
    with torch.inference_mode():
        together = traced(x, whose, numbers)
        for i in range(5):
            own = numbers[whose[i]][None]
            alone = adapted(x[i : i + 1], torch.tensor([0]), own)
            torch.testing.assert_close(together[i : i + 1], alone)


class Chain(nn.Module):
    """Layers side by side, of which one takes what the other gives."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.second(self.first(x)) + self.first(x)
        return hidden.mean(1)


def test_layers_side_by_side_need_not_have_the_same_input() -> None:
    row = [np.random.default_rng(0).normal(size=(1, 3, 4)).astype(np.float32)]
    listed = [["first.weight", 2, 4, 4], ["second.weight", 1, 4, 4]]
    assert len(grouped(listed)) == 1 and fits(Chain(), listed, row, "s")
    apart = [["a.query.weight", 2, 4, 4], ["a.value.weight", 2, 5, 4], ["b.query.weight", 2, 5, 4]]
    assert len(grouped(apart)) == 3


def test_a_network_without_its_pairs_is_as_it_was() -> None:
    network = Turned(False, False)
    learnt = {f"layer.weight{LORA_A}": np.ones((1, 4), np.float32)}
    learnt[f"layer.weight{LORA_B}"] = np.zeros((4, 1), np.float32)
    x = torch.randn(2, 3, 4)
    adapted = Adapted(network, pairs_of(learnt), "s")
    numbers = torch.from_numpy(strung(learnt))
    given = adapted(x, torch.zeros(2, dtype=torch.int64), numbers)
    assert torch.equal(given, Turned(False, False)(x)) and not adapted._given


def test_rows_that_bring_nothing_are_left_alone() -> None:
    row = (np.zeros((2, 3)),)
    assert beside(row, [NOTHING, NOTHING]) is row
    one = Added("a", np.ones((1, 4), np.float32))
    assert beside(row, [one, one])[2] is one.numbers


@pytest.mark.parametrize(("rank", "into"), [(0, 8), (9, 8), (9, 16)])
def test_a_rank_that_no_layer_has_is_refused(rank: int, into: int) -> None:
    learnt = {
        f"layer.weight{LORA_A}": np.ones((rank, into), np.float32),
        f"layer.weight{LORA_B}": np.ones((8, rank), np.float32),
    }
    with pytest.raises(ArtefactError, match="rank no more than in and out"):
        check_learnt(learnt, {KEY: digest_of_learnt(learnt)}, "this source")


def test_texts_that_bring_much_go_through_the_network_few_at_once(
    tmp_path: Path, settled_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = opened("text", tmp_path)
    tuned = backbone.tuned(pairs(backbone), None)
    inputs = tuned.sample_inputs(None)[0]
    monkeypatch.setattr(texts, "ADDED_A_BATCH", 3 * tuned.added.nbytes)
    assert tuned.together(inputs) == 3 < backbone.together(inputs)
    monkeypatch.setattr(texts, "ADDED_A_BATCH", 1)
    assert tuned.together(inputs) == 1
