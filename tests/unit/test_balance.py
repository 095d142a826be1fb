"""Unequal classes are made up for as asked, and only where that gains on rows not learnt from."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graftwork.errors import UnknownName
from graftwork.records import Metric
from graftwork.rows import Rows, Texts
from graftwork.strategies.balancing import chosen
from graftwork.strategies.base import Task
from graftwork.training.balance import balanced, log_shares
from graftwork.training.losses import Loss

NOTHING = np.zeros(100, bool)
CODES = np.repeat(np.arange(3), [80, 15, 5])


def task(codes: np.ndarray, metric: Metric, groups: np.ndarray | None = None) -> Task:
    rows = len(codes)
    return Task(
        Rows([f"{i}" for i in range(rows)], {"text": Texts([f"{i}" for i in range(rows)])}),
        codes, tuple("abc"), np.arange(rows) if groups is None else groups,
        np.zeros(rows, bool), np.ones(rows), metric, 0,
    )  # fmt: skip


def overlapping(sizes: tuple[int, ...], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows in four dimensions whose classes overlap, and their codes, shuffled."""
    rng = np.random.default_rng(seed)
    codes = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    middles = 1.1 * np.eye(len(sizes), 4)
    return (middles[codes] + rng.normal(size=(len(codes), 4))).astype(np.float32), codes


def test_weights_make_classes_weigh_the_same_and_keep_their_mean() -> None:
    found = balanced("weights", CODES, 3, np.ones(100), NOTHING)
    assert found.offsets is None and found.sampling == "plain"
    assert np.allclose(np.bincount(CODES, found.weights), 100 / 3)
    assert found.weights.mean() == pytest.approx(1)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=2, max_size=6).filter(lambda sizes: sum(sizes) > 0))
def test_every_class_there_is_weighs_the_same_whatever_the_sizes(sizes: list[int]) -> None:
    codes = np.repeat(np.arange(len(sizes)), sizes)
    weights = balanced("weights", codes, len(sizes), np.ones(len(codes)), np.zeros(len(codes), bool)).weights
    mass = np.bincount(codes, weights, len(sizes))[np.array(sizes) > 0]
    assert (
        np.isfinite(weights).all() and np.allclose(mass, mass[0]) and mass.sum() == pytest.approx(sum(sizes))
    )


def test_held_rows_do_not_count() -> None:
    held = np.arange(100) < 75
    found = balanced("logits", CODES, 3, np.ones(100), held)
    assert found.offsets is not None
    assert np.allclose(np.exp(found.offsets), [0.2, 0.6, 0.2])


def test_a_class_that_nobody_learns_has_finite_offsets() -> None:
    assert np.allclose(np.exp(log_shares(np.array([6.0, 0.0, 2.0]))), [0.6, 0.2, 0.2])


def test_sampling_leaves_weights_and_logits_alone() -> None:
    weights = np.linspace(0.5, 1.5, 100)
    found = balanced("sampling", CODES, 3, weights, NOTHING)
    assert found.sampling == "balanced" and found.offsets is None and np.array_equal(found.weights, weights)
    assert np.array_equal(balanced("none", CODES, 3, weights, NOTHING).weights, weights)


def test_another_method_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownName, match="weights"):
        balanced("weight", CODES, 3, np.ones(100), NOTHING)


def test_offsets_make_the_common_answer_that_of_equal_classes() -> None:
    # a network that knows nothing but the shares: with the offsets, all its logits are alike
    offsets = balanced("logits", CODES, 3, np.ones(100), NOTHING).offsets
    bias, codes = torch.zeros(3, requires_grad=True), torch.from_numpy(CODES)
    loss = Loss(codes, torch.ones(100), 0.0, torch.from_numpy(offsets).float())
    for _ in range(300):
        (slope,) = torch.autograd.grad(loss(bias.expand(100, 3), torch.arange(100)), bias)
        bias = (bias - 2 * slope).detach().requires_grad_()
    assert torch.allclose(bias.detach(), bias.detach().mean().expand(3), atol=1e-3)


def test_equal_classes_are_left_alone_without_a_look_at_the_features() -> None:
    codes = np.arange(90) % 3
    method, record = chosen(np.full((90, 2), np.nan, np.float32), task(codes, "accuracy"), np.zeros(90, bool))
    assert method == "none" and "equally large" in record["reason"]


@pytest.mark.parametrize("holding", [True, False])
def test_unequal_classes_are_made_up_for_where_the_metric_gains(holding: bool) -> None:
    features, codes = overlapping((300, 40, 40))
    held = np.arange(380) % 4 == 0 if holding else np.zeros(380, bool)
    method, record = chosen(features, task(codes, "balanced_accuracy"), held)
    assert method in ("weights", "logits") and record["method"] == method
    assert record["scores"][method] > record["scores"]["none"] + 0.05
    assert record["rows"] == (95 if holding else 380)
    assert json.loads(json.dumps(record)) == record


def test_where_plain_answers_are_best_nothing_is_made_up_for() -> None:
    features, codes = overlapping((300, 40, 40))
    method, record = chosen(features, task(codes, "accuracy"), np.arange(380) % 4 == 0)
    assert method == "none" and record["scores"]["none"] > record["scores"]["weights"]


def test_separable_classes_tie_and_stay_as_they_are() -> None:
    rng = np.random.default_rng(1)
    codes = np.repeat(np.arange(3), [60, 20, 10])
    features = (20 * np.eye(3)[codes] + 0.1 * rng.normal(size=(90, 3))).astype(np.float32)
    method, record = chosen(features, task(codes, "balanced_accuracy"), np.arange(90) % 3 == 0)
    assert method == "none" and set(record["scores"].values()) == {1.0}


def test_wide_features_and_a_class_that_is_not_learnt_are_judged_too() -> None:
    rng = np.random.default_rng(2)
    codes = rng.permutation(np.repeat(np.arange(3), [60, 12, 1]))
    features = (np.eye(3, 120)[codes] + 0.3 * rng.normal(size=(73, 120))).astype(np.float32)
    held = (np.arange(73) % 4 == 0) | (codes == 2)
    _, record = chosen(features, task(codes, "macro_f1"), held)
    assert record["rows"] == held.sum() and set(record["scores"]) == {"none", "logits", "weights"}


def test_rows_that_cannot_be_parted_are_left_alone() -> None:
    codes, groups = np.array([0, 0, 0, 1]), np.array([0, 0, 0, 1])
    method, record = chosen(np.eye(4, dtype=np.float32), task(codes, "accuracy", groups), np.zeros(4, bool))
    assert method == "none" and "too few rows" in record["reason"]


def test_the_choice_is_the_same_every_time() -> None:
    features, codes = overlapping((200, 30, 30), seed=3)
    one = task(codes, "macro_f1")
    assert chosen(features, one, np.zeros(260, bool)) == chosen(features, replace(one), np.zeros(260, bool))
