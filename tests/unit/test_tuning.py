"""What tuning strategies share: what learns how fast, what is held, what is kept, what is refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import tiny
import tiny_onnx
import tiny_vectors
from graftwork.backbones import open_backbone
from graftwork.backbones.base import Backbone, Cut, Tunable
from graftwork.backbones.compact import Compact, Preparation
from graftwork.errors import RequestError
from graftwork.model import Model
from graftwork.networks import compact_config
from graftwork.records import silent
from graftwork.rows import Rows, Texts
from graftwork.sources import find
from graftwork.strategies import tuning
from graftwork.strategies.averaging import averaged, mixed, state_of
from graftwork.strategies.base import Task
from graftwork.strategies.options import SHARED, Options, defaults, settled
from graftwork.strategies.tuning import (
    checked,
    held_out,
    layers_of,
    tunable,
    tune,
)
from graftwork.training import Checkpoints, Fed, Layers, Plan, Training, train
from toys import ToyBackbone

QUICK = Options(epochs=3, rate=3e-3, precision="f32", balance="none", layer_decay=0.9)
NOTHING = Fed(lambda index: torch.zeros(len(index), 2))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return open_backbone(find(str(tiny.bert(tmp_path_factory.mktemp("source")))), None, runtime="torch")


def a_task(texts: list[str], codes: NDArray[np.int64], **given: Any) -> Task:
    n = len(texts)
    rows = Rows([f"text {i}" for i in range(n)], {"text": Texts(texts)})
    labels = tuple(f"label {c}" for c in range(int(codes.max()) + 1))
    whole = Task(rows, codes, labels, np.arange(n), np.zeros(n, bool), np.ones(n), "accuracy", 0)
    return replace(whole, **given)


def opinions(count: int, seed: int = 0, **given: Any) -> Task:
    """Texts with "good" or "bad" among words that say nothing."""
    rng = np.random.default_rng(seed)
    codes = np.arange(count) % 2
    said = [
        " ".join(rng.permutation([*rng.choice(["the", "a", "film", "was", "plot"], 6), ("good", "bad")[c]]))
        for c in codes
    ]
    return a_task(said, codes, **given)


def marked(count: int, held: slice) -> NDArray[np.bool_]:
    found = np.zeros(count, dtype=bool)
    found[held] = True
    return found


def fitted(
    task: Task,
    encoder: Backbone,
    options: Options = QUICK,
    spoil: Callable[[nn.Module], object] | None = None,
) -> Model:
    backbone = tunable("full", encoder)
    cut = backbone.cut(None, task.rows, [None], lambda other: other)
    if spoil is not None:
        spoil(cut.network)
    options = settled(options, defaults("full", task.kind, len(task.codes)))
    return tune(task, encoder, backbone, cut, options, {"strategy": "full"}, silent)


# --- options


def test_what_is_given_goes_before_what_suits() -> None:
    suits = defaults("partial", "image", 1_000)
    found = settled(Options(epochs=2, gradual=True, mixup=0.0), suits)
    assert (found.epochs, found.gradual, found.mixup) == (2, True, 0.0)
    assert found.rate == suits.rate


@pytest.mark.parametrize("strategy", ["partial", "full", "lora"])
@pytest.mark.parametrize("kind", ["image", "text", "audio"])
def test_every_option_has_a_default_but_patience(strategy: str, kind: Any) -> None:
    found = vars(defaults(strategy, kind, 1_000))
    assert [name for name, value in found.items() if value is None] == ["patience"]


def test_few_rows_are_seen_more_often_and_keep_the_statistics_of_the_source() -> None:
    few, many, most = (defaults("partial", "image", rows) for rows in (40, 2_000, 200_000))
    assert few.epochs is not None and many.epochs is not None
    assert few.epochs > many.epochs
    assert few.still and many.still and not most.still
    assert [few.views, many.views, most.views] == [4, 4, 1]


def test_a_compact_network_is_shown_its_rows_framed_as_it_sees_them(encoder: Backbone) -> None:
    ink = Compact(compact_config(1, 32), Preparation("ink"), {})
    assert [tunable("full", one).frame for one in (encoder, ink)] == ["whole", "ink"]


# --- layers


def test_layers_after_the_blocks_learn_as_fast_as_the_head_and_earlier_ones_slower() -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Linear(2, 2)
            self.blocks = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
            self.norm = nn.LayerNorm(2)

    network = Network()
    names = frozenset(name for name, _ in network.named_parameters())
    layers = layers_of(Cut(None, network, NOTHING, names), ("blocks.0", "blocks.1"), 0.5)
    rates = {name: group.rate for group in layers for name in group.names}
    assert rates == {
        "features.stem.weight": 0.125, "features.stem.bias": 0.125,
        "features.blocks.0.weight": 0.25, "features.blocks.0.bias": 0.25,
        "features.blocks.1.weight": 0.5, "features.blocks.1.bias": 0.5,
        "features.norm.weight": 1.0, "features.norm.bias": 1.0,
        "head.weight": 1.0, "head.bias": 1.0,
    }  # fmt: skip
    assert [group.rate for group in layers] == sorted(group.rate for group in layers)


@pytest.mark.parametrize("make", [tiny.resnet, tiny.vit, tiny.bert], ids=lambda make: make.__name__)
def test_each_parameter_of_a_cut_is_in_one_group_exactly(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    backbone = open_backbone(find(str(make(tmp_path))), None, runtime="torch")
    assert isinstance(backbone, Tunable)
    rows = tiny.text_rows(3) if backbone.kind == "text" else tiny.image_rows(3)
    for block in (None, backbone.blocks()[-1]):
        cut = backbone.cut(block, rows, [None], lambda other: other)
        named = [name for group in layers_of(cut, backbone.blocks(), 0.7) for name in group.names]
        assert len(named) == len(set(named))
        parameters = {name for name, _ in cut.network.named_parameters()}
        wanted = {f"features.{name}" for name in cut.learnable & parameters}
        assert set(named) == wanted | {"head.weight", "head.bias"}


def test_the_pull_towards_the_source_leaves_the_head_alone() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    before = state_of(network)
    layers = (Layers(frozenset({"0.weight"})), Layers(frozenset({"1.weight"}), pulled=False))
    values = torch.rand(4, 2, generator=torch.Generator().manual_seed(0))
    # pulled all the way back after every step
    plan = Plan(epochs=1, rate=0.1, pull=1e9)
    train(network, Fed(lambda index: values[index]), np.arange(4) % 2, plan, layers=layers)
    after = state_of(network)
    assert torch.equal(after["0.weight"], before["0.weight"])
    assert not torch.equal(after["1.weight"], before["1.weight"])


# --- held rows


def test_the_users_validation_rows_are_held() -> None:
    held, remark = held_out(opinions(40, validation=marked(40, slice(30, 40))))
    assert held.sum() == 10 and remark is None


def test_few_rows_hold_none_out_and_say_so(encoder: Backbone) -> None:
    model = fitted(opinions(24), encoder, replace(QUICK, patience=1))
    assert model.settings["held_rows"] == 0
    assert "too few" in model.settings["remark"]
    assert model.settings["kept_epoch"] == model.settings["epochs"] == 3
    assert model.settings["stopped_by"] == "epochs"


def test_validation_rows_that_lack_a_class_still_choose_but_stop_nothing(encoder: Backbone) -> None:
    task = opinions(60)
    validation = np.zeros(60, dtype=bool)
    validation[np.flatnonzero(task.codes == 0)[:10]] = True
    model = fitted(replace(task, validation=validation), encoder, replace(QUICK, patience=1, epochs=4))
    assert model.settings["held_rows"] == 10
    assert "'label 1'" in model.settings["remark"]
    assert model.settings["stopped_by"] == "epochs" and model.settings["epochs"] == 4


# --- training


def test_tuning_learns_what_a_probe_cannot_and_repeats_itself(encoder: Backbone) -> None:
    task = opinions(120, validation=marked(120, slice(90, 120)))
    one, two = (fitted(task, encoder, replace(QUICK, epochs=8)) for _ in range(2))
    answers = one.answer(task.rows).probabilities
    assert np.array_equal(answers, two.answer(task.rows).probabilities)
    assert (answers.argmax(1) == task.codes)[task.validation].mean() > 0.9
    curve = one.settings["training_curve"]
    assert [number for number, _, _ in curve] == list(range(1, 9))
    assert all(training is not None and held is not None for _, training, held in curve)
    assert curve[-1][1] < curve[0][1]


@pytest.mark.parametrize(("count", "keep"), [(40, "loss"), (100, "score")])
def test_few_held_rows_tell_epochs_apart_by_their_loss(
    encoder: Backbone, count: int, keep: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: list[Plan] = []

    def noted(network: Any, examples: Any, codes: Any, plan: Plan, **named: Any) -> Training:
        plans.append(plan)
        return train(network, examples, codes, plan, **named)

    monkeypatch.setattr(tuning, "train", noted)
    task = opinions(count + 20, validation=marked(count + 20, slice(20, None)))
    fitted(task, encoder, replace(QUICK, epochs=1))
    assert [plan.keep for plan in plans] == [keep]


@pytest.mark.parametrize("refit", [False, True])
def test_held_rows_teach_only_where_a_last_training_is_asked_for(
    encoder: Backbone, refit: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []

    def noted(*given: Any, **named: Any) -> Training:
        held.append(int(named["held"].sum()))
        return train(*given, **named)

    monkeypatch.setattr(tuning, "train", noted)
    task = opinions(120, validation=marked(120, slice(80, 120)))
    model = fitted(task, encoder, replace(QUICK, epochs=8, refit=refit))
    assert model.settings["kept_epoch"] > 0
    assert held == ([40, 0] if refit else [40])
    assert model.settings["refit_epochs"] == (model.settings["kept_epoch"] if refit else 0)


def test_the_training_on_all_rows_is_another_one_however_long_the_first_went_on(
    encoder: Backbone, tmp_path: Path
) -> None:
    task = opinions(120, validation=marked(120, slice(80, 120)))
    options = replace(QUICK, epochs=2, refit=True, average=False)
    kept = fitted(replace(task, checkpoints=Checkpoints(tmp_path)), encoder, options)
    assert kept.settings["kept_epoch"] == 2
    assert kept.backbone.fingerprint == fitted(task, encoder, options).backbone.fingerprint


@pytest.mark.parametrize("changed", [{"layer_decay": 0.5}, {"augment": "light"}])
def test_other_rates_or_distortions_are_another_training(
    encoder: Backbone, tmp_path: Path, changed: Any
) -> None:
    task = opinions(120, checkpoints=Checkpoints(tmp_path))
    one, other = (fitted(task, encoder, replace(QUICK, **said)) for said in ({}, changed))
    assert one.backbone.fingerprint != other.backbone.fingerprint


def test_a_start_that_nothing_improves_on_is_kept_and_the_backbone_is_the_source(encoder: Backbone) -> None:
    task = opinions(60, validation=marked(60, slice(40, 60)))
    model = fitted(task, encoder, replace(QUICK, rate=0.0, decay=0.0, refit=True))
    assert model.settings["kept_epoch"] == 0
    assert model.backbone.fingerprint == encoder.fingerprint
    assert model.settings["tensors"] == 0


def test_a_loss_that_is_no_number_leaves_the_start_where_no_row_tells_epochs_apart(
    encoder: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoilt(*given: Any, **named: Any) -> Training:
        return replace(train(*given, **named), stopped="trouble", trouble="the loss was nan at step 4")

    monkeypatch.setattr(tuning, "train", spoilt)
    model = fitted(opinions(24), encoder, QUICK)
    assert "at step 4" in model.settings["trouble"] and model.settings["epochs"] == 3
    assert model.settings["kept_epoch"] == 0 and "the start was kept" in model.settings["remark"]
    assert model.backbone.fingerprint == encoder.fingerprint


@pytest.mark.parametrize("method", ["weights", "logits"])
def test_a_start_that_is_fitted_again_on_all_rows_is_balanced_as_it_was(
    encoder: Backbone, method: Any
) -> None:
    codes = (np.arange(120) % 6 == 0).astype(np.int64)
    task = replace(opinions(120, validation=marked(120, slice(80, 120))), codes=codes)
    options = replace(QUICK, rate=0.0, decay=0.0, refit=True)
    plain, made_up = (
        fitted(task, encoder, replace(options, balance=one)).answer(task.rows).probabilities
        for one in ("none", method)
    )
    assert made_up[:, 1].mean() > 1.5 * plain[:, 1].mean()


def test_a_loss_that_is_no_number_ends_the_training_and_the_best_so_far_is_kept(encoder: Backbone) -> None:
    steps = iter(range(1, 1_000))

    def spoilt(module: nn.Module, inputs: Any, found: torch.Tensor) -> torch.Tensor:
        return found * float("nan") if module.training and next(steps) == 5 else found

    task = opinions(64, validation=marked(64, slice(32, 64)))
    options = replace(QUICK, batch=16, refit=True)
    model = fitted(task, encoder, options, lambda network: network.register_forward_hook(spoilt))
    assert "nan at step 5 (epoch 3)" in model.settings["trouble"]
    assert model.settings["stopped_by"] == "trouble"
    assert model.settings["refit_epochs"] == 0
    assert np.isfinite(model.answer(task.rows).probabilities).all()


def test_a_label_that_no_row_carries_is_answered_as_all_but_impossible(encoder: Backbone) -> None:
    task = replace(opinions(40), labels=("label 0", "label 1", "never"))
    answers = fitted(task, encoder).answer(task.rows).probabilities
    assert answers.shape == (40, 3)
    assert answers[:, 2].max() < 1e-6


def test_where_logits_are_shifted_while_learning_the_start_answers_without_the_shift(
    encoder: Backbone,
) -> None:
    task = opinions(80)
    kept = np.flatnonzero((task.codes == 0) | (np.arange(80) % 8 == 1))
    few = task.part(kept)
    plain_start, shifted = (
        fitted(few, encoder, replace(QUICK, rate=0.0, decay=0.0, epochs=1, balance=method)).head
        for method in ("none", "logits")
    )
    shares = np.log(np.bincount(few.codes) / len(few.codes))
    moved = plain_start.state()[2]["bias"] - shifted.state()[2]["bias"]
    assert moved == pytest.approx(shares, abs=1e-5)


# --- averaging


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.layer(inputs)
        return found


def line(weight: float) -> Line:
    network = Line()
    with torch.no_grad():
        network.layer.weight.copy_(torch.tensor([[-weight], [weight]]))
        network.layer.bias.copy_(torch.tensor([0.0, -0.5]))
    return network


@pytest.mark.parametrize(("after", "wanted"), [(-9.0, 0.25), (9.0, 1.0)])
def test_a_mix_is_taken_only_where_held_rows_clearly_prefer_it(after: float, wanted: float) -> None:
    rows = 40
    codes = np.arange(rows) % 2
    places = torch.from_numpy(2.0 * codes - 0.9).float()[:, None]
    examples = Fed(lambda index: places[index])
    task = a_task(["a"] * rows, codes)
    start, network = state_of(line(9.0)), line(after)
    share = averaged(network, start, examples, task, np.arange(rows), "f32")
    assert share == wanted
    mixture = share * after + (1 - share) * 9.0
    assert float(network.layer.weight[1, 0].detach()) == pytest.approx(mixture)


def test_counters_are_not_mixed() -> None:
    network = nn.BatchNorm1d(2)
    start = state_of(network)
    end = {**start, "num_batches_tracked": torch.tensor(7), "running_mean": torch.ones(2)}
    mixed(network, start, end, 0.5)
    assert int(network.num_batches_tracked) == 7  # type: ignore[arg-type]
    assert network.running_mean.tolist() == [0.5, 0.5]  # type: ignore[union-attr]


# --- refusals


def a_cut(network: nn.Module) -> Cut:
    return Cut(None, network, NOTHING, frozenset())


def test_no_source_to_tune_is_said_in_a_line() -> None:
    with pytest.raises(RequestError, match="no source was given") as caught:
        tunable("partial", None)
    assert "\n" not in str(caught.value)


def test_sources_that_give_features_only_are_refused(tmp_path: Path) -> None:
    words = tiny_vectors.ENGLISH
    path = tiny_vectors.word2vec(tmp_path / "words.txt", words, tiny_vectors.vectors(len(words)))
    vectors = open_backbone(find(str(path)), None)
    onnx = open_backbone(find(str(tiny_onnx.pictures(tmp_path / "net.onnx"))), None)
    for basis in (ToyBackbone(), vectors, onnx):
        with pytest.raises(RequestError, match="probe or mlp") as caught:
            tunable("partial", basis)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("codes", "labels", "said"),
    [
        ([0, 0, 0], 2, "3 rows of one class"),
        ([0, 1], 5, "2 rows of 5 classes"),
        ([0, 1, 2], 3, "one row of each class"),
    ],
)
def test_rows_that_cannot_be_tuned_on_are_refused(codes: list[int], labels: int, said: str) -> None:
    task = a_task(["a"] * len(codes), np.array(codes), labels=tuple(map(str, range(labels))))
    with pytest.raises(RequestError, match=said) as caught:
        checked(task, SHARED, a_cut(nn.Linear(2, 2)), "partial")
    assert "\n" not in str(caught.value)


def test_batches_of_one_row_are_refused_where_batch_normalisation_learns_its_statistics() -> None:
    task, options = opinions(8), replace(SHARED, batch=1, still=False)
    with pytest.raises(RequestError, match="batch=2"):
        checked(task, options, a_cut(nn.BatchNorm1d(2)), "partial")
    checked(task, replace(options, still=True), a_cut(nn.BatchNorm1d(2)), "partial")
    checked(task, options, a_cut(nn.Linear(2, 2)), "partial")


def test_token_numbers_are_not_mixed(encoder: Backbone) -> None:
    with pytest.raises(RequestError, match="token numbers cannot be mixed"):
        fitted(opinions(8), encoder, replace(QUICK, mixup=0.2))
