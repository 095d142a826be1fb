"""Tuning every weight: from the probe on, to what the probe cannot learn; repeatable, refused in one line."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import tiny
from graftwork import registry
from graftwork.backbones import open_backbone
from graftwork.backbones.base import Backbone, plain
from graftwork.errors import RequestError
from graftwork.records import Progress, silent
from graftwork.rows import Rows, Texts
from graftwork.sources import find
from graftwork.strategies.base import Task
from graftwork.strategies.full import Full
from graftwork.strategies.options import Options
from graftwork.strategies.probe import Probe
from graftwork.training import Checkpoints
from toys import ToyBackbone

QUICK = Full(Options(epochs=2, batch=16, rate=5e-3, precision="f32", average=False))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return open_backbone(find(str(tiny.bert(tmp_path_factory.mktemp("source")))), None, runtime="torch")


def orders(count: int, seed: int = 0) -> Task:
    """Texts of the same words, of which two come in this order or in that: means of words tell little."""
    rng = np.random.default_rng(seed)
    codes = np.arange(count) % 2
    texts = []
    for code in codes:
        words = [*rng.choice(["the", "a", "film", "was", "plot"], 3)]
        first, second = sorted(rng.permutation(5)[:2])
        words.insert(first, ("good", "bad")[code])
        words.insert(second + 1, ("bad", "good")[code])
        texts.append(" ".join(words))
    return a_task(texts, codes)


def a_task(texts: list[str], codes: NDArray[np.int64], **given: Any) -> Task:
    n = len(texts)
    rows = Rows([f"text {i}" for i in range(n)], {"text": Texts(texts)})
    labels = tuple(f"label {c}" for c in range(int(codes.max()) + 1))
    plainly = Task(rows, codes, labels, np.arange(n), np.zeros(n, bool), np.ones(n), "accuracy", 0)
    return replace(plainly, **given)


def answers(strategy: Any, task: Task, basis: Backbone, fresh: Task) -> float:
    given = strategy.fit(task, basis, silent).answer(fresh.rows).probabilities
    return float((given.argmax(1) == fresh.codes).mean())


def test_it_learns_what_no_head_on_the_source_can(encoder: Backbone) -> None:
    task, fresh = orders(160), orders(100, seed=1)
    learnt = Full(Options(epochs=8, batch=16, rate=1e-2, layer_decay=1.0, precision="f32"))
    assert answers(learnt, task, encoder, fresh) > answers(Probe(), task, encoder, fresh) + 0.05


def test_it_starts_from_the_fitted_probe(encoder: Backbone) -> None:
    still = Full(Options(epochs=1, rate=1e-12, precision="f32", average=False, decay=0.0))
    task = orders(40)
    probe = Probe("logistic").fit(task, encoder, silent).answer(task.rows).probabilities
    tuned = still.fit(task, encoder, silent).answer(task.rows).probabilities
    np.testing.assert_allclose(tuned, probe, atol=1e-4)


def test_every_weight_learns_and_only_what_changed_is_kept(encoder: Any) -> None:
    model = QUICK.fit(orders(40), encoder, silent)
    learnt = set(plain(model.backbone).state().arrays)
    every = {name for name, _ in encoder.network().named_parameters() if "pooler" not in name}
    assert learnt == every
    assert json.loads(json.dumps(model.settings)) == model.settings


def test_same_seed_gives_the_same_weights_and_another_seed_others(encoder: Backbone) -> None:
    prints = [
        QUICK.fit(replace(orders(40), seed=seed), encoder, silent).backbone.fingerprint for seed in (1, 1, 2)
    ]
    assert prints[0] == prints[1] != prints[2]


def test_an_interrupted_run_ends_as_one_that_was_not(encoder: Backbone, tmp_path: Path) -> None:
    whole = QUICK.fit(orders(40), encoder, silent)
    task = replace(orders(40), checkpoints=Checkpoints(tmp_path, every_s=0.0))

    def stop(said: Progress) -> None:
        if said.stage == "training":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        QUICK.fit(task, encoder, stop)
    assert QUICK.fit(task, encoder, silent).backbone.fingerprint == whole.backbone.fingerprint


def test_rates_that_diverge_keep_the_best_so_far_and_say_at_which_step(encoder: Backbone) -> None:
    task = orders(40)
    held = np.arange(40) >= 32
    wild = Full(Options(epochs=3, batch=8, rate=1e30, precision="f32", clip=None, average=False))
    model = wild.fit(replace(task, validation=held), encoder, silent)
    assert "at step" in model.settings["trouble"] and model.settings["stopped_by"] == "trouble"
    assert np.isfinite(model.answer(task.rows).probabilities).all()


def test_pictures_are_tuned_with_channels_last(tmp_path: Path) -> None:
    source = open_backbone(find(str(tiny.resnet(tmp_path))), None, runtime="torch")
    codes = np.arange(24) % 2
    task = Task(
        tiny.image_rows(24), codes, ("a", "b"), np.arange(24), np.zeros(24, bool), np.ones(24), "accuracy", 0
    )
    formats: list[bool] = []
    plain_conv = torch.nn.Conv2d.forward

    def watched(self: torch.nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled():
            formats.append(x.is_contiguous(memory_format=torch.channels_last))
        return plain_conv(self, x)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.Conv2d, "forward", watched)
        model = QUICK.fit(task, source, silent)
    assert formats and all(formats)
    assert model.settings["tensors"] > 0


@pytest.mark.parametrize(
    ("texts", "codes", "said"),
    [
        (["good"] * 4, [0, 0, 0, 0], "rows of one class seen"),
        (["good", "bad"], [0, 1], "one row of each class seen"),
    ],
)
def test_rows_that_nothing_can_be_learnt_from_are_refused_in_one_line(
    encoder: Backbone, texts: list[str], codes: list[int], said: str
) -> None:
    with pytest.raises(RequestError, match=said) as caught:
        Full().fit(a_task(texts, np.array(codes)), encoder, silent)
    assert "\n" not in str(caught.value)


def test_sources_that_cannot_learn_are_refused_in_one_line() -> None:
    for basis, said in ((None, "no source was given"), (ToyBackbone(), "its network cannot learn")):
        with pytest.raises(RequestError, match=said):
            Full().fit(orders(8), basis, silent)


def test_it_is_registered() -> None:
    made: Callable[[], Full] = registry.get("strategies", "full")
    assert made().name == "full"
