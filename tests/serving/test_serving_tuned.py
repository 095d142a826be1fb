"""Tuned networks are served too: those of equal tensors share one, all answer as they do by themselves."""

import gc
import weakref
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

import tiny
import tiny_tasks
from graftwork import artefact
from graftwork.backbones import open_backbone
from graftwork.backbones.base import Backbone, Tunable
from graftwork.backbones.learnt import LORA_A, LORA_B
from graftwork.heads import LinearHead
from graftwork.model import Model
from graftwork.rows import Rows, Texts
from graftwork.serving.fanout import answer
from graftwork.serving.tasks import Tasks
from graftwork.sources import find
from graftwork.unknown import Familiarity

Learnt = Mapping[str, np.ndarray]
VALUE = "encoder.encoder.layer.1.attention.self.value.weight"
ROWS = Rows([f"row {i}" for i in range(4)], {"text": Texts(["the good film", "not very fine", "好", "plot"])})


@pytest.fixture
def encoder(tmp_path: Path) -> Backbone:
    return open_backbone(find(str(tiny.bert(tmp_path / "source"))), None, runtime="torch")


def tensors(encoder: Backbone, strategy: str, seed: int = 0) -> Learnt:
    """What a strategy might have tuned: low-rank changes, the last block, or everything."""
    rng = np.random.default_rng(seed)
    if strategy == "lora":
        pair = {LORA_A: (2, 16), LORA_B: (16, 2)}
        return {VALUE + end: rng.normal(size=shape).astype(np.float32) for end, shape in pair.items()}
    assert isinstance(encoder, Tunable)
    block = encoder.blocks()[-1] if strategy == "partial" else ""
    named = encoder.network().named_parameters()
    return {
        name: (one.detach().numpy() + 0.1 * rng.normal(size=tuple(one.shape))).astype(np.float32)
        for name, one in named if name.startswith(block)
    }  # fmt: skip


def save(folder: Path, backbone: Backbone, seed: int = 0) -> Path:
    """An artefact of a random head on it."""
    rng = np.random.default_rng(seed)
    labels = ("bad", "good", "neither")
    head = LinearHead.of(labels, rng.normal(size=(16, 3)), rng.normal(size=3))
    known = Familiarity.fit(rng.normal(size=(100, 16)).astype(np.float32), rng.integers(0, 3, 100))
    return artefact.save(
        Model(backbone, head, known), folder, strategy="tuned", result={}, versions={}, created="", report="",
        probe=ROWS,
    )  # fmt: skip


def tuned(encoder: Backbone, learnt: Learnt) -> Backbone:
    assert isinstance(encoder, Tunable)
    return encoder.tuned(dict(learnt), None)


@pytest.mark.parametrize("strategy", ["lora", "partial", "full"])
def test_a_tuned_task_answers_as_its_model_beside_one_that_is_not(
    tmp_path: Path, encoder: Backbone, strategy: str
) -> None:
    tasks = Tasks(10**9)
    folders = {
        "plain": save(tmp_path / "plain.graft", encoder),
        "tuned": save(tmp_path / "tuned.graft", tuned(encoder, tensors(encoder, strategy))),
    }
    found = {name: tasks.get(folder) for name, folder in folders.items()}
    assert found["plain"].fingerprint != found["tuned"].fingerprint
    for name, task in found.items():
        features = tasks.backbone(task.network).features(ROWS).matrix
        ((probabilities, unknown),) = answer([(task, np.arange(4))], features)
        wanted = artefact.load(folders[name])[0].answer(ROWS)
        np.testing.assert_allclose(probabilities, wanted.probabilities, rtol=1e-12)
        assert np.array_equal(unknown, wanted.unknown)


def test_tasks_of_equal_tensors_share_one_network_and_others_do_not(
    tmp_path: Path, encoder: Backbone
) -> None:
    tasks, learnt = Tasks(10**9), tensors(encoder, "partial")
    alike = [save(tmp_path / f"{i}.graft", tuned(encoder, learnt), seed=i) for i in range(3)]
    other = save(tmp_path / "other.graft", tuned(encoder, tensors(encoder, "partial", seed=1)))
    first, *further = (tasks.get(folder) for folder in alike)
    assert {task.fingerprint for task in further} == {first.fingerprint}
    assert tasks.counted() == {first.fingerprint: 3}
    assert tasks.get(other).fingerprint != first.fingerprint


def test_a_tuned_network_that_is_dropped_leaves_nothing_in_memory(tmp_path: Path, encoder: Backbone) -> None:
    tasks = Tasks(10**9)
    task = tasks.get(save(tmp_path / "a.graft", tuned(encoder, tensors(encoder, "full"))))
    kept = weakref.ref(next(iter(tasks.backbone(task.fingerprint).state().arrays.values())))
    before = tasks.backbone(task.fingerprint).features(ROWS).matrix
    tasks.drop(task.fingerprint)
    from graftwork.backbones import engine

    engine._runners.clear()
    gc.collect()
    assert kept() is None
    assert np.array_equal(tasks.backbone(task.fingerprint).features(ROWS).matrix, before)


def test_tensors_that_are_not_the_ones_spoken_of_are_refused(tmp_path: Path, encoder: Backbone) -> None:
    tasks, learnt = Tasks(10**9), dict(tensors(encoder, "lora"))
    tasks.get(save(tmp_path / "good.graft", tuned(encoder, learnt)))
    bad = save(tmp_path / "bad.graft", tuned(encoder, learnt))
    learnt[VALUE + LORA_A] = 2 * learnt[VALUE + LORA_A]
    tiny_tasks.replace_file(bad, "backbone.safetensors", learnt)
    with pytest.raises(artefact.RequestError, match="are others than its configuration names"):
        tasks.get(bad)
