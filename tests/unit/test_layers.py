"""Strategy `layers`: several layers in one run, one linear head on all of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny
import toys
from graftwork.backbones import open_backbone, restore
from graftwork.backbones.base import Backbone, Layered
from graftwork.errors import RequestError
from graftwork.heads import LinearHead
from graftwork.model import softmax
from graftwork.records import silent
from graftwork.sources import find
from graftwork.store import Stored
from graftwork.strategies.base import Task
from graftwork.strategies.layers import Layers, fit_layers, stacked

ROWS = 60


def task_of(codes: Any, labels: tuple[str, ...] = ("a", "b", "c"), rows: Any = None) -> Task:
    count = len(codes)
    rows = tiny.text_rows(count) if rows is None else rows
    return Task(
        rows,
        np.asarray(codes),
        labels,
        np.arange(count),
        np.zeros(count, bool),
        np.ones(count),
        "accuracy",
        0,
    )


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Any:
    source = find(str(tiny.bert(tmp_path_factory.mktemp("models") / "bert")))
    return open_backbone(source, tiny.text_rows(30), runtime="torch")


def halves(rng: Any) -> tuple[Any, Any]:
    """Features of which the first half tells class 0 from the rest, the second class 2 from the rest."""
    codes = np.arange(120) % 3
    left = np.stack([codes == 0, rng.normal(size=120)], 1) + 0.4 * rng.normal(size=(120, 2))
    right = np.stack([codes == 2, rng.normal(size=120)], 1) + 0.4 * rng.normal(size=(120, 2))
    return np.concatenate([left, right], 1).astype(np.float32), codes


def test_layers_that_know_different_things_are_weighted_into_one_linear_head() -> None:
    features, codes = halves(np.random.default_rng(0))
    task = task_of(codes)
    head, settings = fit_layers(features, (("early", 2), ("features", 2)), task)
    assert isinstance(head, LinearHead) and head.width == 4
    both = (head.logits(features).argmax(1) == codes).mean()
    for columns in (slice(0, 2), slice(2, 4)):
        alone, _ = fit_layers(np.ascontiguousarray(features[:, columns]), (("features", 2),), task)
        assert both > (alone.logits(features[:, columns]).argmax(1) == codes).mean() + 0.1
    assert [one["layer"] for one in settings["layers"]] == ["early", "features"]
    assert all(one["weight"] > 0.3 for one in settings["layers"])
    assert settings["log_loss"] < min(one["log_loss"] for one in settings["layers"])


def test_a_layer_of_noise_gets_next_to_no_weight() -> None:
    rng = np.random.default_rng(1)
    codes = np.arange(150) % 3
    known = np.eye(3)[codes] + 0.3 * rng.normal(size=(150, 3))
    features = np.concatenate([rng.normal(size=(150, 5)), known], 1).astype(np.float32)
    _, settings = fit_layers(features, (("noise", 5), ("features", 3)), task_of(codes))
    noise, own = (one["weight"] for one in settings["layers"])
    assert own > 0.7 and noise * settings["layers"][0]["width"] >= 0
    assert settings["log_loss"] <= settings["layers"][1]["log_loss"] + 1e-3


def test_weights_are_at_the_optimum_and_never_negative() -> None:
    rng = np.random.default_rng(2)
    codes = np.arange(90) % 3
    logits = np.stack([2 * np.eye(3)[codes], -np.eye(3)[codes]]) + rng.normal(size=(2, 90, 3))
    weights, loss = stacked(logits, codes, np.ones(90))
    assert weights[1] == 0 and weights[0] > 0

    def smoothed(scale: float) -> float:
        likely = np.log(softmax(scale * logits[0]))
        doubt = 2 / 92
        return float(-((1 - doubt) * likely[np.arange(90), codes] + doubt * likely.mean(1)).mean())

    assert smoothed(weights[0]) <= min(smoothed(0.95 * weights[0]), smoothed(1.05 * weights[0]))
    assert loss == pytest.approx(-np.log(softmax(weights[0] * logits[0]))[np.arange(90), codes].mean())


def test_one_row_a_class_and_absent_classes_still_give_a_head() -> None:
    features = np.random.default_rng(3).normal(size=(3, 4)).astype(np.float32)
    head, settings = fit_layers(features, (("early", 2), ("features", 2)), task_of([0, 1, 2]))
    assert np.isfinite(head.logits(features)).all() and settings["log_loss"] is None
    whole, codes = halves(np.random.default_rng(4))
    head, _ = fit_layers(whole, (("early", 2), ("features", 2)), task_of(codes, ("a", "b", "c", "never")))
    assert head.labels == ("a", "b", "c", "never") and softmax(head.logits(whole))[:, 3].max() < 1e-6


def test_layers_are_pooled_as_the_network_pools_in_one_run(bert: Any) -> None:
    rows = tiny.text_rows(12)
    layered = bert.layered(["layer.0"], rows)
    assert layered.parts == (("encoder.encoder.layer.0", 16), ("features", 16)) and layered.width == 32
    assert layered.fingerprint != bert.fingerprint and isinstance(layered, Layered)
    found = layered.features(rows).matrix
    assert np.allclose(found[:, 16:], bert.features(rows).matrix, atol=1e-5)
    ids, mask = bert.examples(rows).batch(np.array([4]))
    network = bert.network()
    with torch.no_grad():
        hidden = network.encoder(ids, mask, output_hidden_states=True).hidden_states[1]
    mean = hidden[0, mask[0] > 0].mean(0)  # of the tokens, not of what they are padded with
    assert np.allclose(found[4, :16], mean / mean.norm(), atol=1e-5)
    assert np.array_equal(restore(layered.state()).features(rows).matrix, found)
    assert restore(layered.state()).fingerprint == layered.fingerprint


def test_pictures_blocks_are_averaged_over_their_positions(tmp_path: Path) -> None:
    rows = tiny.image_rows(6)
    backbone: Any = open_backbone(find(str(tiny.resnet(tmp_path / "resnet"))), rows)
    layered = backbone.layered(["stages.0.layers.0"], rows)
    assert [width for _, width in layered.parts] == [8, 16] and layered.features(rows).matrix.shape == (6, 24)
    exact = open_backbone(find(str(tmp_path / "resnet")), rows, runtime="torch")
    assert isinstance(exact, Layered)
    wanted = exact.layered(["stages.0.layers.0"], rows).features(rows).matrix
    assert np.abs(layered.features(rows).matrix - wanted).max() < 0.03 * np.abs(wanted).max()


def test_fit_keeps_the_layers_beside_the_sources_own_features(bert: Any, tmp_path: Path) -> None:
    rows = tiny.text_rows(ROWS)
    codes = np.array(["good" in str(rows.column.read(i)) for i in range(ROWS)]).astype(np.int64)
    task = task_of(codes, ("no", "yes"), rows)
    basis: Backbone = Stored(bert, tmp_path)
    model = Layers(blocks=1).fit(task, basis, silent)
    assert isinstance(model.backbone, Stored) and model.backbone.width == 32
    assert model.backbone.features(rows).extraction.computed == 0
    again = Layers(blocks=1).fit(task, bert, silent)
    assert np.array_equal(again.answer(rows).probabilities, model.answer(rows).probabilities)
    assert [one["width"] for one in model.settings["layers"]] == [16, 16]


def test_sources_without_layers_are_refused_in_one_line(bert: Any) -> None:
    with pytest.raises(RequestError, match="gives one layer's features only; try --strategy probe"):
        Layers().basis("text", toys.ToyBackbone())
    with pytest.raises(RequestError, match="no source was given"):
        Layers().basis("text", None)
    with pytest.raises(RequestError, match="blocks=0 and 2 blocks in the source seen"):
        Layers(blocks=0).asked(bert)
    with pytest.raises(RequestError, match=r"its blocks, first to last: layer\.0, layer\.1"):
        bert.layered(["layer.9"], None)
