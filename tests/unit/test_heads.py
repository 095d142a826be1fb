"""Heads answer one row at a time, refuse other widths, and are built again from their state."""

import json
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from graftwork import registry
from graftwork.errors import FeatureWidth
from graftwork.heads import CentroidHead, LinearHead, MLPHead, temperature
from graftwork.model import Head, softmax

LABELS = ("a", "b", "c")
RNG = np.random.default_rng(0)
ROWS = RNG.standard_normal((40, 6)).astype(np.float32)


def a_linear_head() -> LinearHead:
    return LinearHead.of(LABELS, RNG.standard_normal((6, 3)), RNG.standard_normal(3), 0.7)


def a_centroid_head(metric: str) -> CentroidHead:
    scale = RNG.uniform(0.5, 2, 6)
    return CentroidHead.of(LABELS, metric, RNG.standard_normal(6), scale, RNG.standard_normal((3, 6)), 0.2)


def an_mlp_head() -> MLPHead:
    shapes = {"centre": 6, "hidden": (6, 5), "hidden_bias": 5, "out": (5, 3), "out_bias": 3}
    arrays = {name: RNG.standard_normal(shape) for name, shape in shapes.items()}
    return MLPHead.of(LABELS, {**arrays, "scale": RNG.uniform(0.5, 2, 6)}, 1.3)


MAKERS: list[Callable[[], LinearHead | CentroidHead | MLPHead]] = [
    a_linear_head,
    lambda: a_centroid_head("cosine"),
    lambda: a_centroid_head("distance"),
    an_mlp_head,
]


@pytest.mark.parametrize("make", MAKERS)
def test_registered_object_builds_the_same_head_again(make: Callable[[], Head]) -> None:
    head = make()
    name, config, arrays = head.state()
    again: Head = registry.get("heads", name)(head.labels, json.loads(json.dumps(config)), arrays)
    np.testing.assert_array_equal(again.logits(ROWS), head.logits(ROWS))
    assert again.logits(ROWS).dtype == np.float64


@pytest.mark.parametrize("make", MAKERS)
def test_a_row_is_answered_the_same_in_any_batch(make: Callable[[], Head]) -> None:
    head = make()
    many = np.concatenate([ROWS] * 60)
    alone = np.concatenate([head.logits(ROWS[[i]]) for i in range(len(ROWS))])
    np.testing.assert_allclose(head.logits(many)[-len(ROWS) :], alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("make", MAKERS)
def test_another_width_is_refused(make: Callable[[], Head]) -> None:
    with pytest.raises(FeatureWidth, match="width 6, these have 4"):
        make().logits(ROWS[:, :4])


@pytest.mark.parametrize("make", MAKERS)
def test_more_labels_leave_the_known_ones_as_they_were(
    make: Callable[[], LinearHead | CentroidHead | MLPHead],
) -> None:
    head = make()
    wider = head.over(("z", "b", "a", "y", "c"))
    logits = wider.logits(ROWS)
    np.testing.assert_allclose(logits[:, [2, 1, 4]], head.logits(ROWS), rtol=1e-12)
    probabilities = softmax(logits)
    assert (probabilities[:, [0, 3]] < 1e-12).all() and (probabilities[:, [0, 3]] > 0).all()
    name, config, arrays = wider.state()
    again: Head = registry.get("heads", name)(wider.labels, json.loads(json.dumps(config)), arrays)
    np.testing.assert_array_equal(again.logits(ROWS), logits)


def test_linear_head_is_the_affine_map_over_the_temperature() -> None:
    weights, bias = RNG.standard_normal((6, 3)), RNG.standard_normal(3)
    expected = (ROWS @ weights + bias) / 0.5
    np.testing.assert_allclose(LinearHead.of(LABELS, weights, bias, 0.5).logits(ROWS), expected, atol=1e-5)


def test_centroid_head_prefers_the_nearest_centroid() -> None:
    centroids = RNG.standard_normal((3, 6))
    near = (centroids + 0.01).astype(np.float32)
    for metric in ("cosine", "distance"):
        head = CentroidHead.of(LABELS, metric, np.zeros(6), np.ones(6), centroids)
        assert head.logits(near).argmax(1).tolist() == [0, 1, 2]
    by_hand = -0.5 * ((ROWS[:, None] - centroids) ** 2).sum(2)
    logits = head.logits(ROWS)
    np.testing.assert_allclose(logits - logits[:, :1], by_hand - by_hand[:, :1], atol=1e-5)


def test_a_row_of_zeros_has_an_answer() -> None:
    head = CentroidHead.of(LABELS, "cosine", np.zeros(6), np.ones(6), np.eye(3, 6))
    assert np.isfinite(head.logits(np.zeros((1, 6), np.float32))).all()


def _loss(logits: NDArray[np.float64], codes: NDArray[np.int64], heat: float) -> float:
    return float(-np.log(softmax(logits / heat)[np.arange(len(codes)), codes]).mean())


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_temperature_is_where_the_log_loss_is_lowest(scale: float) -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 3, 400)
    logits = scale * (rng.standard_normal((400, 3)) + 1.5 * np.eye(3)[codes])
    heat, loss = temperature(logits, codes, np.ones(400))
    best = minimize_scalar(
        lambda t: _loss(logits, codes, scale * np.exp(t)), bounds=(-4, 4), method="bounded"
    )
    assert loss == pytest.approx(best.fun, abs=1e-3)
    assert heat == pytest.approx(scale * np.exp(best.x), rel=0.05)


def test_temperature_counts_rows_by_their_weight() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 2, 300)
    logits = rng.standard_normal((300, 2)) + np.eye(2)[codes]
    repeats = rng.integers(1, 4, 300)
    many = np.repeat(np.arange(300), repeats)
    weighted, loss = temperature(logits, codes, repeats.astype(np.float64))
    repeated, same = temperature(logits[many], codes[many], np.ones(len(many)))
    # the doubt that keeps certain rows finite counts rows, so the two differ by a little
    assert weighted == pytest.approx(repeated, rel=0.05) and loss == pytest.approx(same, abs=5e-3)


def test_temperature_stays_finite_where_all_rows_are_right_or_all_wrong() -> None:
    codes = np.arange(12) % 3
    right, loss = temperature(np.eye(3)[codes], codes, np.ones(12))
    assert 0.01 < right < 1.0 and 0.0 < loss < 0.3
    _, wrong_loss = temperature(-np.eye(3)[codes], codes, np.ones(12))
    assert wrong_loss == pytest.approx(np.log(3), abs=0.05)
    assert temperature(np.zeros((12, 3)), codes, np.ones(12)) == (1.0, pytest.approx(np.log(3)))
