"""Low-rank adaptation: what learns, what is stored, what is served, which networks it can take."""

import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import tiny
from graftwork.backbones import open_backbone, restore
from graftwork.backbones.base import Backbone, BackboneState, Cut, Tunable
from graftwork.backbones.learnt import LORA_A, LORA_B
from graftwork.errors import MissingExtra, RequestError
from graftwork.records import Progress, silent
from graftwork.rows import Rows, Texts
from graftwork.sources import find
from graftwork.strategies.base import Task
from graftwork.strategies.lora import Lora, matrices, targets
from graftwork.strategies.options import Options
from graftwork.training import Checkpoints

QUICK = Options(epochs=3, rate=2e-3, precision="f32", balance="none", average=False)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return open_backbone(find(str(tiny.bert(tmp_path_factory.mktemp("source")))), None, runtime="torch")


@pytest.fixture(scope="module")
def sights(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return open_backbone(find(str(tiny.vit(tmp_path_factory.mktemp("source")))), None, runtime="torch")


def opinions(count: int = 40, **given: Any) -> Task:
    """Texts with "good" or "bad" among words that say nothing."""
    rng, codes = np.random.default_rng(0), np.arange(count) % 2
    words = ["the", "a", "film", "was", "plot"]
    texts = [" ".join(rng.permutation([*rng.choice(words, 6), ("good", "bad")[code]])) for code in codes]
    rows = Rows([f"text {i}" for i in range(count)], {"text": Texts(texts)})
    none = np.zeros(count, dtype=bool)
    whole = Task(rows, codes, ("good", "bad"), np.arange(count), none, np.ones(count), "accuracy", 0)
    return replace(whole, **given)


def loss(probabilities: NDArray[np.float64], task: Task) -> float:
    return float(-np.log(probabilities[np.arange(len(probabilities)), task.codes]).mean())


def adapted(backbone: Backbone, rows: Rows, recipe: Lora) -> Cut:
    """The network with matrices of random numbers beside its attention."""
    assert isinstance(backbone, Tunable)
    cut = backbone.cut(None, rows, [None], lambda other: other)
    cut = recipe.adapted(cut, targets(cut.network, backbone.blocks(), recipe.modules, "this source"), 0)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in cut.network.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(0, 0.3)
    return cut


def peft_says(cut: Cut, count: int) -> NDArray[np.float32]:
    """What the network with its matrices apart gives for each row alone."""
    with torch.no_grad():
        rows = [cut.network(*cut.examples.batch(np.array([i]))) for i in range(count)]
    return torch.cat(rows).numpy()


@pytest.mark.parametrize("kind", ["text", "image"])
@pytest.mark.parametrize(
    "recipe", [Lora(rank=4), Lora(rank=3, alpha=5), Lora(rank=2, modules="all")], ids=str
)
def test_the_merged_network_answers_as_peft_does(
    encoder: Backbone, sights: Backbone, kind: str, recipe: Lora
) -> None:
    backbone, rows = (
        (encoder, tiny.text_rows(20)) if kind == "text" else (sights, tiny.image_rows(20))
    )  # fmt: skip
    assert isinstance(backbone, Tunable)
    cut = adapted(backbone, rows, recipe)
    wanted = peft_says(cut, len(rows))
    tuned = backbone.tuned(matrices(cut.network, cut, {}), rows)
    found = tuned.features(rows).matrix
    assert np.abs(found - backbone.features(rows).matrix).max() > 0.1
    np.testing.assert_allclose(found, wanted, atol=2e-5)


def test_before_it_has_learnt_the_network_answers_as_it_did_and_nothing_is_stored(encoder: Backbone) -> None:
    assert isinstance(encoder, Tunable)
    rows = tiny.text_rows(8)
    cut = encoder.cut(None, rows, [None], lambda other: other)
    cut = Lora().adapted(cut, targets(cut.network, encoder.blocks(), "attention", "this source"), 0)
    np.testing.assert_allclose(peft_says(cut, 8), encoder.features(rows).matrix, atol=1e-5)
    assert matrices(cut.network, cut, {}) == {}
    assert all("lora_" in name for name in cut.learnable)
    off = [name for name, one in cut.network.named_parameters() if name not in cut.learnable]
    assert off and not any(cut.network.get_parameter(name).requires_grad for name in off)


def test_only_pairs_of_the_rank_are_learnt_and_stored(encoder: Backbone) -> None:
    model = Lora(rank=3, options=QUICK).fit(opinions(), encoder, silent)
    learnt = model.backbone.state().arrays
    assert len(learnt) == 2 * 2 * 4  # both blocks, four projections
    assert model.settings["rank"] == 3 and model.settings["layers"] == 8
    for name, array in learnt.items():
        assert array.shape == ((3, 16) if name.endswith(LORA_A) else (16, 3))
        assert name.endswith((f".weight{LORA_A}", f".weight{LORA_B}"))
    own = dict(encoder.network().named_parameters())  # type: ignore[attr-defined]
    tuned = dict(model.backbone.network().named_parameters())  # type: ignore[attr-defined]
    changed = {name for name in own if not torch.equal(own[name], tuned[name])}
    assert changed == {name.removesuffix(LORA_A) for name in learnt if name.endswith(LORA_A)}


def test_it_learns_and_the_answers_survive_being_stored(encoder: Backbone) -> None:
    task = opinions()  # labels that no linear head can tell apart
    task = replace(task, codes=np.random.default_rng(1).permutation(task.codes))
    start = Lora(options=replace(QUICK, rate=0.0)).fit(task, encoder, silent)
    assert start.backbone.fingerprint == encoder.fingerprint  # nothing to store
    model = Lora(options=replace(QUICK, epochs=16, rate=2e-2)).fit(task, encoder, silent)
    answers = model.answer(task.rows)
    assert loss(answers.probabilities, task) < loss(start.answer(task.rows).probabilities, task) - 0.01
    again = restore(model.backbone.state())
    assert np.array_equal(again.features(task.rows).matrix, answers.features.matrix)
    assert again.fingerprint == model.backbone.fingerprint != encoder.fingerprint


def test_a_fit_repeats_itself_and_goes_on_from_a_checkpoint_bit_for_bit(
    encoder: Backbone, tmp_path: Path
) -> None:
    recipe = Lora(dropout=0.2, options=QUICK)
    wanted = recipe.fit(opinions(), encoder, silent)
    task, steps = opinions(checkpoints=Checkpoints(tmp_path, every_s=0.0)), 0

    def killed(progress: Progress) -> None:
        nonlocal steps
        if progress.stage == "training" and progress.done >= 4:
            steps = progress.done
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recipe.fit(task, encoder, killed)
    assert steps and list(tmp_path.iterdir())
    found = recipe.fit(task, encoder, silent)
    assert found.backbone.fingerprint == wanted.backbone.fingerprint
    assert np.array_equal(found.predict_proba(["good", "bad"]), wanted.predict_proba(["good", "bad"]))
    other = recipe.fit(opinions(seed=1), encoder, silent)
    assert other.backbone.fingerprint != wanted.backbone.fingerprint


def test_a_network_without_attention_is_told_what_to_use_instead(tmp_path: Path) -> None:
    resnet = open_backbone(find(str(tiny.resnet(tmp_path / "resnet"))), None, runtime="torch")
    task = replace(opinions(20), rows=tiny.image_rows(20))
    with pytest.raises(RequestError, match=r"'resnet' has no attention.*--strategy partial or full$"):
        Lora().fit(task, resnet, silent)


def test_a_rank_that_saves_nothing_is_refused(encoder: Backbone) -> None:
    with pytest.raises(RequestError, match=r"rank=16 seen; the narrowest layer .* has 16"):
        Lora(rank=16).fit(opinions(), encoder, silent)


def test_without_peft_the_extra_is_named(encoder: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtra, match=r"graftwork\[tune\]"):
        Lora().fit(opinions(), encoder, silent)


class SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.bias = nn.Linear(8, 8), nn.LayerNorm(8)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn, self.mlp = SelfAttention(), nn.Linear(8, 32)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Block() for _ in range(11)])
        self.pooler = SelfAttention()


def test_layers_are_found_by_looking_at_the_blocks() -> None:
    network, blocks = Network(), tuple(f"layers.{i}" for i in range(11))
    assert targets(network, blocks, "attention", "x") == tuple(f"{b}.attn.query" for b in blocks)
    both = tuple(name for b in blocks for name in (f"{b}.attn.query", f"{b}.mlp"))
    assert targets(network, blocks, "all", "x") == both
    assert targets(network, ("layers.1",), "all", "x") == ("layers.1.attn.query", "layers.1.mlp")


def test_the_stored_bytes_follow_from_rank_and_width_alone(encoder: Backbone) -> None:
    learnt = Lora(rank=2, options=QUICK).fit(opinions(), encoder, silent).backbone.state()
    assert isinstance(learnt, BackboneState)
    assert sum(array.nbytes for array in learnt.arrays.values()) == 8 * math.prod((2, 16 + 16, 4))
