"""The small network on frozen features: early stopping on rows set apart, deterministic, odd data."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from graftwork import registry
from graftwork.errors import RequestError
from graftwork.model import softmax
from graftwork.records import Progress, silent
from graftwork.rows import Rows, Texts
from graftwork.strategies.base import Task
from graftwork.strategies.mlp import MLP, set_apart


def a_task(codes: NDArray[np.int64], groups: NDArray[np.int64] | None = None, seed: int = 0) -> Task:
    names = [str(i) for i in range(len(codes))]
    return Task(
        Rows(names, {"text": Texts(names)}),
        codes,
        tuple(f"label {c}" for c in range(codes.max() + 1)),
        np.arange(len(codes)) if groups is None else groups,
        np.zeros(len(codes), dtype=bool),
        np.ones(len(codes)),
        "accuracy",
        seed,
    )


def rings(rows: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Two classes that no linear head can separate: a disc, and the ring around it."""
    rng = np.random.default_rng(seed)
    codes = np.arange(rows) % 2
    angle, radius = rng.uniform(0, 2 * np.pi, rows), 1 + 2 * codes + 0.3 * rng.standard_normal(rows)
    plane = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return (5 + plane).astype(np.float32), codes


def test_it_learns_what_a_linear_head_cannot() -> None:
    features, codes = rings(300)
    head, settings = MLP(units=32, rate=2e-2, epochs=25).fit_head(features, a_task(codes), silent)
    fresh, truth = rings(400, seed=1)
    assert (head.logits(fresh).argmax(1) == truth).mean() > 0.95
    assert json.loads(json.dumps(settings)) == settings
    name, config, arrays = head.state()
    again = registry.get("heads", name)(head.labels, config, arrays)
    np.testing.assert_array_equal(again.logits(fresh), head.logits(fresh))


def test_the_head_kept_is_that_of_the_best_epoch() -> None:
    # labels that mean nothing: the loss of the rows set apart soon rises
    rng = np.random.default_rng(0)
    features, codes = rng.standard_normal((100, 20)).astype(np.float32), rng.integers(0, 2, 100)
    head, settings = MLP(rate=1e-2).fit_head(features, a_task(codes), silent)
    assert settings["training_curve"][-1][2] > 1.1 * min(held for _, _, held in settings["training_curve"])
    apart = set_apart(a_task(codes))
    probabilities = softmax(head.logits(features[apart]) * settings["temperature"])
    loss = -np.log(probabilities[np.arange(apart.sum()), codes[apart]]).mean()
    assert min(held for _, _, held in settings["training_curve"]) == pytest.approx(loss, rel=1e-4)


def test_it_stops_early_and_reports_each_epoch() -> None:
    rng = np.random.default_rng(0)
    features, codes = rng.standard_normal((200, 20)).astype(np.float32), rng.integers(0, 2, 200)
    heard: list[Progress] = []
    _, settings = MLP().fit_head(features, a_task(codes), heard.append)
    assert len(heard) == len(settings["training_curve"]) < MLP().epochs
    assert settings["log_loss"] == pytest.approx(np.log(2), abs=0.1)


def test_same_seed_same_bits_and_the_callers_chance_is_left_alone() -> None:
    features, codes = rings(120)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, _ = MLP(epochs=4).fit_head(features, a_task(codes, seed=1), silent)
    assert torch.equal(before, torch.random.get_rng_state())
    again, _ = MLP(epochs=4).fit_head(features, a_task(codes, seed=1), silent)
    np.testing.assert_array_equal(first.logits(features), again.logits(features))
    other, _ = MLP(epochs=4).fit_head(features, a_task(codes, seed=2), silent)
    assert not np.array_equal(first.logits(features), other.logits(features))


def test_validation_rows_stop_the_training_where_there_are_any() -> None:
    codes = np.arange(40) % 2
    task = replace(a_task(codes), validation=np.arange(40) >= 30)
    np.testing.assert_array_equal(set_apart(task), np.arange(40) >= 30)
    # row 30 shares a group with a training row: it would leak
    groups = np.where(np.arange(40) == 30, 0, np.arange(40))
    assert not set_apart(replace(task, groups=groups))[30]
    everything = replace(task, validation=np.ones(40, dtype=bool))
    assert 5 <= set_apart(everything).sum() <= 10


def test_rows_set_apart_are_whole_groups_and_leave_every_class_behind() -> None:
    groups = np.repeat(np.arange(30), 3)
    codes = np.where(groups == 29, 0, 1 + groups % 3)  # the first class has one group, dealt first
    apart = set_apart(a_task(codes, groups))
    assert 9 <= apart.sum() <= 27
    assert all(len(set(apart[groups == g])) == 1 for g in range(30))
    assert set(codes[~apart]) == {0, 1, 2, 3}


def test_a_memory_map_is_trained_on_like_an_array(tmp_path: pytest.TempPathFactory) -> None:
    features, codes = rings(90)
    np.save(f"{tmp_path}/features.npy", features)
    mapped = np.load(f"{tmp_path}/features.npy", mmap_mode="r")
    first, _ = MLP(epochs=4).fit_head(features, a_task(codes), silent)
    second, _ = MLP(epochs=4).fit_head(mapped, a_task(codes), silent)
    np.testing.assert_array_equal(first.logits(features), second.logits(features))


@pytest.mark.parametrize(
    ("features", "codes"),
    [
        (np.full((20, 4), 3.0, np.float32), np.arange(20) % 2),
        (np.eye(3, 5, dtype=np.float32), np.arange(3)),
        (np.repeat(np.eye(2, 6, dtype=np.float32), 10, axis=0), np.repeat(np.arange(2), 10)),
        (1e10 * rings(30)[0], rings(30)[1]),
    ],
    ids=["constant features", "one row a class", "duplicates", "huge numbers"],
)
def test_odd_data_give_finite_answers(features: NDArray[np.float32], codes: NDArray[np.int64]) -> None:
    head, settings = MLP(epochs=4).fit_head(features, a_task(codes), silent)
    assert np.isfinite(head.logits(features)).all()
    json.dumps(settings, allow_nan=False)


def test_a_label_without_rows_is_answered_as_all_but_impossible() -> None:
    features, codes = rings(60)
    task = replace(a_task(codes), labels=("a", "b", "gone"))
    head, _ = MLP(epochs=4).fit_head(features, task, silent)
    assert (softmax(head.logits(features))[:, 2] < 1e-10).all()


def test_weights_make_rare_labels_count() -> None:
    features, codes = rings(400)
    features = features + np.random.default_rng(0).standard_normal(features.shape).astype(np.float32)
    keep = np.flatnonzero((codes == 0) | (np.arange(400) % 16 == 1))
    features, codes = features[keep], codes[keep]
    plain, _ = MLP(epochs=10).fit_head(features, a_task(codes), silent)
    balanced = replace(a_task(codes), weights=0.5 * len(codes) / np.bincount(codes)[codes])
    weighted, _ = MLP(epochs=10).fit_head(features, balanced, silent)
    rare = features[codes == 1]
    assert (weighted.logits(rare).argmax(1) == 1).mean() > (plain.logits(rare).argmax(1) == 1).mean() + 0.2


def test_a_network_without_a_source_says_what_to_do() -> None:
    with pytest.raises(RequestError, match="--source"):
        MLP().basis("image", None)
