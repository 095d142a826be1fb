"""Contrastive tuning on few labels: it pulls classes together, repeats itself, refuses what it cannot do."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

import tiny
from graftwork import registry
from graftwork.backbones import open_backbone
from graftwork.backbones.base import Backbone, labelled_matrix
from graftwork.errors import RequestError
from graftwork.records import Progress, silent
from graftwork.report.course import MEANINGS
from graftwork.rows import Rows, Texts
from graftwork.sources import find
from graftwork.strategies.base import Task
from graftwork.strategies.contrastive import ByLength, Contrastive, Pairs
from graftwork.strategies.setting import configured, known_settings
from graftwork.training import Checkpoints
from graftwork.training.dealing import dealt
from toys import ToyBackbone

QUICK = Contrastive(steps=8, rate=5e-3, precision="f32", calibrate=False)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return open_backbone(find(str(tiny.bert(tmp_path_factory.mktemp("source")))), None, runtime="torch")


def a_task(texts: list[str], codes: NDArray[np.int64], seed: int = 0, **given: Any) -> Task:
    n = len(texts)
    rows = Rows([f"text {i}" for i in range(n)], {"text": Texts(texts)})
    labels = tuple(f"label {c}" for c in range(int(codes.max()) + 1))
    plain = Task(rows, codes, labels, np.arange(n), np.zeros(n, bool), np.ones(n), "accuracy", seed)
    return replace(plain, **given)


def opinions(count: int, seed: int = 0) -> Task:
    """Texts with "good" or "bad" among words that say nothing."""
    rng = np.random.default_rng(seed)
    codes = np.arange(count) % 2
    said = [
        " ".join(rng.permutation([*rng.choice(["the", "a", "film", "was", "plot"], 4), ("good", "bad")[c]]))
        for c in codes
    ]
    return a_task(said, codes)


def nearness(backbone: Backbone, task: Task) -> float:
    """Mean cosine of pairs of one class minus that of pairs of two."""
    unit = F.normalize(torch.from_numpy(labelled_matrix(backbone, task.rows)), dim=1).numpy()
    cosines, same = unit @ unit.T, task.codes[:, None] == task.codes[None]
    off = ~np.eye(len(same), dtype=bool)
    return float(cosines[same & off].mean() - cosines[~same].mean())


def test_rows_of_one_class_come_to_lie_together_also_those_it_has_not_seen(encoder: Backbone) -> None:
    fresh = opinions(60, seed=1)
    model = replace(QUICK, steps=60, rate=1e-2).fit(opinions(24), encoder, silent)
    assert nearness(model.backbone, fresh) > nearness(encoder, fresh) + 0.3
    answers = model.answer(fresh.rows).probabilities.argmax(1)
    assert (answers == fresh.codes).mean() > 0.9
    assert json.loads(json.dumps(model.settings)) == model.settings
    assert model.settings["stopped_by"] == "epochs" and model.settings["trouble"] is None


def test_same_seed_gives_the_same_weights_and_another_seed_others(encoder: Backbone) -> None:
    states = [QUICK.fit(replace(opinions(12), seed=s), encoder, silent).backbone.state() for s in (1, 1, 2)]
    digests = [state.config["learnt"] for state in states]
    assert digests[0] == digests[1] != digests[2]


def test_the_table_of_tokens_stays_as_it_is_unless_asked(encoder: Backbone) -> None:
    few = replace(QUICK, steps=2)
    plain = few.fit(opinions(8), encoder, silent).backbone.state().arrays
    whole = replace(few, embeddings=True).fit(opinions(8), encoder, silent).backbone.state().arrays
    assert plain and not any("word_embeddings" in name for name in plain)
    assert any("word_embeddings" in name for name in whole)


def test_an_interrupted_run_ends_as_one_that_was_not(encoder: Backbone, tmp_path: Path) -> None:
    whole = QUICK.fit(opinions(12), encoder, silent)
    task = replace(opinions(12), checkpoints=Checkpoints(tmp_path, every_s=0.0))

    def stop(said: Progress) -> None:
        if said.stage == "training" and said.done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        QUICK.fit(task, encoder, stop)
    again = QUICK.fit(task, encoder, silent)
    assert again.backbone.fingerprint == whole.backbone.fingerprint


def test_a_loss_that_is_no_number_leaves_the_source_as_it_was(
    encoder: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoilt(self: Pairs, features: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        return features.sum() * torch.nan

    monkeypatch.setattr(Pairs, "__call__", spoilt)
    model = QUICK.fit(opinions(12), encoder, silent)
    assert model.backbone.fingerprint == encoder.fingerprint
    assert "the loss was nan at step 1" in model.settings["trouble"]


def test_what_was_set_is_in_the_record_by_the_names_that_set_it(encoder: Backbone) -> None:
    model = replace(QUICK, clip=None).fit(opinions(12), encoder, silent)
    options = model.settings["options"]
    assert set(options) == set(known_settings(QUICK)) and set(options) <= set(MEANINGS)
    assert options["steps"] == QUICK.steps and options["clip"] is None
    assert configured("contrastive", options) == replace(QUICK, clip=None)


def test_probabilities_are_those_of_rows_it_has_not_seen(encoder: Backbone) -> None:
    # labels that mean nothing: an encoder that has seen the rows tells them apart all the same
    rng = np.random.default_rng(0)
    task, fresh = (replace(opinions(n), codes=rng.integers(0, 2, n)) for n in (24, 60))
    wild = replace(QUICK, steps=25, rate=1e-2)
    sure, honest = (
        replace(wild, calibrate=calibrate).fit(task, encoder, silent).answer(fresh.rows).probabilities.max(1)
        for calibrate in (False, True)
    )
    assert honest.mean() < 0.55 < sure.mean()


@pytest.mark.parametrize(
    ("codes", "said"),
    [([0, 0, 0, 0], "rows of one class seen"), ([0, 1, 2, 3], "each class has one row")],
)
def test_rows_without_pairs_are_refused_in_one_line(encoder: Backbone, codes: list[int], said: str) -> None:
    task = a_task([f"good {i}" for i in range(4)], np.array(codes))
    with pytest.raises(RequestError, match=said) as caught:
        QUICK.fit(task, encoder, silent)
    assert "\n" not in str(caught.value)


def test_sources_that_cannot_learn_are_refused_in_one_line() -> None:
    for basis, said in ((None, "no source was given"), (ToyBackbone(), "its network cannot learn")):
        with pytest.raises(RequestError, match=said):
            Contrastive().fit(opinions(8), basis, silent)
    with pytest.raises(RequestError, match="at least one step of two rows"):
        Contrastive(steps=0)


def test_many_labels_are_learnt_in_balanced_batches_and_it_says_what_it_is_for(encoder: Backbone) -> None:
    said: list[Progress] = []
    few = Contrastive(steps=4, batch=16, precision="f32")
    model = few.fit(opinions(90), encoder, said.append)
    assert any("up to about 32 labels a class" in one.note for one in said)
    assert model.settings["epochs"] * 6 >= 4


def test_validation_rows_calibrate_and_are_not_learnt_from(encoder: Backbone) -> None:
    task = opinions(24)
    held = np.arange(24) >= 16
    spoilt = np.where(held, 1 - task.codes, task.codes)
    both = [
        replace(QUICK, steps=3).fit(replace(task, codes=codes, validation=held), encoder, silent)
        for codes in (task.codes, spoilt)
    ]
    assert both[0].backbone.fingerprint == both[1].backbone.fingerprint
    np.testing.assert_array_equal(*(model.head.arrays["weights"] for model in both))
    assert both[0].settings["temperature"] < both[1].settings["temperature"]


def test_pictures_can_be_pulled_too(tmp_path: Path) -> None:
    source = open_backbone(find(str(tiny.resnet(tmp_path))), None, runtime="torch")
    rows = tiny.image_rows(12)
    codes = np.arange(12) % 2
    task = Task(rows, codes, ("a", "b"), np.arange(12), np.zeros(12, bool), np.ones(12), "accuracy", 0)
    model = Contrastive(steps=8, rate=5e-3, precision="f32").fit(task, source, silent)
    assert nearness(model.backbone, task) > nearness(source, task)


def test_pairs_cost_nothing_where_classes_are_points_at_right_angles() -> None:
    loss = Pairs(torch.tensor([0, 0, 1, 1]))
    apart = torch.tensor([[2.0, 0], [1, 0], [0, 3], [0, 1]])
    assert float(loss(apart, torch.arange(4))) == pytest.approx(0.0, abs=1e-6)
    # of the twelve ordered pairs, the eight of two classes are at cosine 1 instead of 0
    assert float(loss(torch.ones(4, 2), torch.arange(4))) == pytest.approx(8 / 12)


def test_parts_by_length_give_what_the_whole_batch_gives(encoder: Any) -> None:
    network = encoder.network()
    inputs = encoder.examples(tiny.text_rows(11)).batch(np.arange(11))
    with torch.no_grad():
        torch.testing.assert_close(ByLength(network)(*inputs), network(*inputs), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("rows", "classes", "batch"), [(300, 3, 24), (300, 50, 24), (400, 2, 16)])
def test_batches_of_pairs_hold_several_rows_of_each_of_their_classes(
    rows: int, classes: int, batch: int
) -> None:
    codes = np.random.default_rng(0).permutation(np.arange(rows) % classes)
    for index in dealt(np.arange(rows), codes, None, batch, "paired", 0, 1):
        counts = np.bincount(codes[index])
        counts = counts[counts > 0]
        assert 2 <= len(counts) and len(index) <= batch and counts.min() > 1


def test_it_is_registered() -> None:
    made: Callable[[], Contrastive] = registry.get("strategies", "contrastive")
    assert made().name == "contrastive"
