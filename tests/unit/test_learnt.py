"""What was tuned is put into its own network, or refused in one line before anything is changed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import tiny
from graftwork.backbones import engine, open_backbone, restore
from graftwork.backbones.base import BackboneState
from graftwork.backbones.learnt import KEY, LORA_A, LORA_B, apply_learnt, check_learnt, digest_of_learnt
from graftwork.backbones.pretrained import Pretrained
from graftwork.errors import ArtefactError
from graftwork.sources import find

Learnt = dict[str, NDArray[np.float32]]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5))


def pair(rank: int = 2, out: int = 5, into: int = 3) -> Learnt:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(rank, into)), rng.normal(size=(out, rank))
    return {f"0.weight{LORA_A}": a.astype(np.float32), f"0.weight{LORA_B}": b.astype(np.float32)}


def test_tensors_stand_in_for_the_networks_own_and_pairs_are_added() -> None:
    plain, tuned = network(), network()
    bias = np.arange(5, dtype=np.float32)
    apply_learnt(tuned, {"0.bias": bias, "1.num_batches_tracked": np.array(7, np.float32), **pair()}, "s")
    a, b = pair().values()
    np.testing.assert_allclose(tuned[0].weight.detach() - plain[0].weight.detach(), b @ a, atol=1e-6)
    assert np.array_equal(tuned[0].bias.detach(), bias)
    assert int(tuned[1].num_batches_tracked) == 7
    assert torch.equal(tuned[1].weight, plain[1].weight)


WRONG: dict[str, tuple[Learnt, str]] = {
    "another's name": ({"layer.0.bias": np.zeros(5, np.float32)}, r"'layer\.0\.bias'.*nothing"),
    "another's shape": ({"0.bias": np.zeros(6, np.float32)}, r"shape \(6,\).*shape \(5,\)"),
    "one number for all": ({"0.bias": np.zeros(1, np.float32)}, r"shape \(1,\).*shape \(5,\)"),
    "a pair too wide": (pair(into=4), r"shape \(5, 4\).*shape \(5, 3\)"),
    "a pair of no weight": (
        {
            f"2.weight{LORA_A}": np.zeros((1, 3), np.float32),
            f"2.weight{LORA_B}": np.zeros((5, 1), np.float32),
        },
        r"'2\.weight'.*nothing",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_belongs_to_another_network_changes_nothing(case: str) -> None:
    wrong, said = WRONG[case]
    tuned, before = network(), network().state_dict()
    with pytest.raises(ArtefactError, match=said):
        apply_learnt(tuned, {"1.bias": np.ones(5, np.float32), **wrong}, "birds")
    assert all(torch.equal(value, before[name]) for name, value in tuned.state_dict().items())


def without(name: str) -> Learnt:
    return {key: value for key, value in pair().items() if not key.endswith(name)}


DAMAGED: dict[str, tuple[Learnt, str]] = {
    "no number": ({"0.bias": np.array([0, np.nan], np.float32)}, "finite float32"),
    "an endless one": ({"0.bias": np.array([0, np.inf], np.float32)}, "finite float32"),
    "another type": ({"0.bias": np.zeros(5)}, "type float64"),
    "no B": (without(LORA_B), r"\(2, 3\) and none"),
    "no A": (without(LORA_A), r"none and \(5, 2\)"),
    "ranks that differ": (
        {**pair(2), f"0.weight{LORA_B}": pair(3)[f"0.weight{LORA_B}"]}, r"\(2, 3\) and \(5, 3\)",
    ),
    "a pair of cubes": (
        {name: array[..., None] for name, array in pair().items()}, r"expected \(rank, in\)"
    ),
    "a pair and the whole": ({**pair(), "0.weight": np.zeros((5, 3), np.float32)}, "matrices .* alone"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_tensors_are_refused_though_their_digest_is_right(case: str) -> None:
    learnt, said = DAMAGED[case]
    with pytest.raises(ArtefactError, match=said) as refused:
        check_learnt(learnt, {KEY: digest_of_learnt(learnt)}, "birds")
    assert "\n" not in str(refused.value)


def test_tensors_and_configuration_belong_together() -> None:
    check_learnt({}, {}, "birds")
    check_learnt(pair(), {KEY: digest_of_learnt(pair())}, "birds")
    for learnt, config, said in (
        ({}, {KEY: digest_of_learnt(pair())}, "comes with no tensors.*names some"),
        (pair(), {}, "comes with tensors.*names none"),
        (pair(1), {KEY: digest_of_learnt(pair())}, "are others than its configuration names"),
    ):
        with pytest.raises(ArtefactError, match=said):
            check_learnt(learnt, config, "birds")


def test_the_digest_tells_names_shapes_and_numbers_apart() -> None:
    one = np.arange(6, dtype=np.float32)
    several = [{"a": one}, {"b": one}, {"a": one.reshape(2, 3)}, {"a": one + 1}, {"a": one, "b": one}]
    assert len({digest_of_learnt(learnt) for learnt in several}) == len(several)
    assert digest_of_learnt({"a": one, "b": one}) == digest_of_learnt({"b": one, "a": one})


# --- in a backbone of a source


def encoder(folder: Path, runtime: str | None = "torch") -> Pretrained:
    found = open_backbone(find(str(tiny.bert(folder))), None, runtime=runtime)
    assert isinstance(found, Pretrained)
    return found


def a_change(backbone: Pretrained, step: float = 1.0) -> Learnt:
    name, value = next(
        (name, value)
        for name, value in backbone.network().named_parameters()
        if name.endswith("value.weight")
    )
    noise = np.random.default_rng(0).normal(0, step, value.shape)
    return {name: (value.detach().numpy() + noise).astype(np.float32)}


def test_a_tuned_backbone_answers_otherwise_and_can_be_taken_back(tmp_path: Path) -> None:
    backbone, rows = encoder(tmp_path), tiny.text_rows(6)
    tuned = backbone.tuned(a_change(backbone), rows)
    assert not np.allclose(tuned.features(rows).matrix, backbone.features(rows).matrix, atol=1e-3)
    assert tuned.fingerprint != backbone.fingerprint
    back = tuned.tuned({}, rows)
    assert back.fingerprint == backbone.fingerprint and KEY not in back.config
    assert np.array_equal(back.features(rows).matrix, backbone.features(rows).matrix)


def test_a_look_takes_a_path_that_needs_no_comparing_and_writes_nothing(tmp_path: Path, home: Path) -> None:
    backbone, rows = encoder(tmp_path, "openvino"), tiny.text_rows(6)
    before = {path for path in home.rglob("*") if path.is_file()}
    look = backbone.tuned(a_change(backbone), rows, settle=False)
    matrix = look.features(rows).matrix
    assert (look.config["runtime"], look.config["precision"]) == ("torch", "f32")
    assert {path for path in home.rglob("*") if path.is_file()} == before
    settled = look.tuned(look.learnt, rows)
    assert settled.config["runtime"] == "openvino" and settled.width == look.width
    assert engine.cosines(settled.features(rows).matrix, matrix).min() > 0.99


def test_tuned_networks_never_displace_a_sources_conversion_and_do_not_pile_up(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from graftwork.backbones import converted

    monkeypatch.setattr(converted, "KEPT_PASSING_BYTES", 60_000)
    monkeypatch.setattr(engine, "PASSING_FACTS", 3)
    backbone, rows = encoder(tmp_path, "openvino"), tiny.text_rows(6)
    own = set((home / "converted").iterdir())
    for step in range(5):
        backbone.tuned(a_change(backbone, 0.1 * (step + 1)), rows).features(rows)
    assert set((home / "converted").iterdir()) == own
    assert 1 <= len(list((home / "converted-tuned").iterdir())) < 4
    assert len(list((home / "parity-tuned").iterdir())) == 3
    assert len(engine._runners) <= engine.HELD


def test_a_saved_state_without_its_tensors_is_never_answered_by_the_source_alone(tmp_path: Path) -> None:
    backbone = encoder(tmp_path)
    state = backbone.tuned(a_change(backbone), None).state()
    assert restore(state).fingerprint != backbone.fingerprint
    with pytest.raises(ArtefactError, match="comes with no tensors"):
        restore(BackboneState(state.family, state.config, {}, state.source))
    other = a_change(backbone, 2.0)
    with pytest.raises(ArtefactError, match="are others than its configuration names"):
        restore(BackboneState(state.family, state.config, other, state.source))
    strange = {"embeddings.nowhere": np.ones(3, np.float32)}
    found = restore(
        BackboneState(state.family, {**state.config, KEY: digest_of_learnt(strange)}, strange, state.source)
    )
    with pytest.raises(ArtefactError, match="belongs to another source"):
        found.features(tiny.text_rows(2))
