"""Partial tuning: the last blocks learn from stored activations, views are kept, wrong cuts are refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny
from graftwork.backbones import open_backbone
from graftwork.backbones.base import Backbone, Tunable, plain
from graftwork.errors import RequestError
from graftwork.records import silent
from graftwork.rows import Contents, Rows
from graftwork.sources import find
from graftwork.store import remember
from graftwork.strategies.base import Task
from graftwork.strategies.options import Options
from graftwork.strategies.partial import Partial, seen_as
from graftwork.training import Checkpoints

QUICK = Options(epochs=2, rate=3e-3, precision="f32", balance="none", views=1)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return open_backbone(find(str(tiny.resnet(tmp_path_factory.mktemp("source")))), None, runtime="torch")


def pictures(count: int, **given: Any) -> Task:
    """Pictures that are brighter in class 1."""
    codes = np.arange(count) % 2
    found = [
        tiny.encoded(picture.point(lambda value, lift=90 * code: min(255, value // 2 + lift)))
        for picture, code in zip(tiny.pictures(count), codes, strict=True)
    ]
    rows = Rows([f"picture {i}" for i in range(count)], {"image": Contents("image", found)})
    zeros = np.zeros(count, dtype=bool)
    whole = Task(rows, codes, ("dark", "bright"), np.arange(count), zeros, np.ones(count), "accuracy", 0)
    return replace(whole, **given)


def held(count: int, last: int) -> Any:
    return np.arange(count) >= count - last


def test_only_the_blocks_asked_for_and_what_follows_them_change(encoder: Backbone) -> None:
    task = pictures(48)
    model = Partial(blocks=1, options=QUICK).fit(task, encoder, silent)
    assert model.settings["block"] == plain(encoder).blocks()[-1]  # type: ignore[attr-defined]
    learnt = model.backbone.state().arrays
    assert learnt and all(name.startswith(model.settings["block"]) for name in learnt)
    assert model.settings["bytes"] == sum(array.nbytes for array in learnt.values())


def test_a_fit_repeats_itself_and_another_seed_gives_another(encoder: Backbone) -> None:
    task = pictures(48)
    recipe = Partial(blocks=1, options=replace(QUICK, views=2, augment="light"))
    one, two, other = (recipe.fit(replace(task, seed=seed), encoder, silent) for seed in (3, 3, 4))
    assert one.backbone.fingerprint == two.backbone.fingerprint != other.backbone.fingerprint
    for name, value in one.head.state()[2].items():
        assert np.array_equal(value, two.head.state()[2][name])


def test_what_a_block_gets_is_stored_and_a_name_does_as_well_as_a_number(
    encoder: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAFT_HOME", str(tmp_path))
    task, basis = pictures(32), remember(encoder)
    names = plain(encoder).blocks()  # type: ignore[attr-defined]
    heard: list[str] = []
    by_number = Partial(blocks=1, options=QUICK).fit(task, basis, lambda said: heard.append(said.stage))
    assert "frozen layers" in heard
    heard.clear()
    by_name = Partial(blocks=names[-1], options=QUICK).fit(task, basis, lambda said: heard.append(said.stage))
    assert "frozen layers" not in heard
    assert by_name.backbone.fingerprint == by_number.backbone.fingerprint


@pytest.mark.parametrize("blocks", [0, 3, "stages.7.layers.0"])
def test_a_cut_that_does_not_exist_is_refused_and_the_blocks_are_listed(
    encoder: Backbone, blocks: int | str
) -> None:
    with pytest.raises(RequestError) as caught:
        Partial(blocks=blocks, options=QUICK).fit(pictures(8), encoder, silent)
    for name in plain(encoder).blocks():  # type: ignore[attr-defined]
        assert name.removeprefix("encoder.encoder.") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_views_are_kept_beside_the_rows_themselves_and_drawn_while_learning(encoder: Backbone) -> None:
    task = pictures(12)
    assert isinstance(encoder, Tunable)
    options = Options(augment="light", views=3)
    seen = seen_as(options, encoder, task)
    assert seen[0] is None and len(seen) == 3
    cut = encoder.cut(encoder.blocks()[-1], task.rows, seen, lambda other: other)
    index = np.arange(12)
    plain_rows = cut.examples.batch(index)[0]
    drawn = cut.examples.batch(index, torch.Generator().manual_seed(0))[0]
    same = (plain_rows == drawn).all(1)
    assert 0 < int(same.sum()) < 12


def test_nothing_is_distorted_where_nobody_wants_it(encoder: Backbone) -> None:
    task = pictures(4)
    for options in (Options(augment="none", views=4), Options(augment="light", views=1)):
        assert seen_as(options, encoder, task) == [None]  # type: ignore[arg-type]


def test_labels_of_a_side_are_not_mirrored(encoder: Backbone) -> None:
    options = Options(augment="light", views=2)
    keys = []
    for labels in (("dark", "bright"), ("turn left", "turn right")):
        view = seen_as(options, encoder, pictures(4, labels=labels))[1]  # type: ignore[arg-type]
        assert view is not None
        keys.append(view.key["mirror"])
    assert keys == [True, False]


def test_the_last_training_on_all_rows_goes_on_from_its_checkpoint(encoder: Backbone, tmp_path: Path) -> None:
    task = pictures(60, validation=held(60, 20), checkpoints=Checkpoints(tmp_path))
    recipe = Partial(blocks=1, options=replace(QUICK, epochs=4, refit=True))
    once = recipe.fit(task, encoder, silent)
    kept = len(list(tmp_path.iterdir()))
    heard: list[str] = []
    again = recipe.fit(task, encoder, lambda said: heard.append(said.stage))
    assert "training" not in heard
    assert len(list(tmp_path.iterdir())) == kept == (2 if once.settings["refit_epochs"] else 1)
    assert again.backbone.fingerprint == once.backbone.fingerprint
