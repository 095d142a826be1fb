"""`scratch`: learns from the rows alone, few or many, pictures or texts, and says how it went."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from graftwork import registry
from graftwork.backbones import restore
from graftwork.backbones.compact import Compact, Preparation, weights
from graftwork.errors import RequestError, Unreadable
from graftwork.networks import Block, CompactConfig, CompactNet
from graftwork.pretraining import write
from graftwork.records import Progress, silent
from graftwork.rows import Column, Contents, Rows, Texts
from graftwork.sources import Source
from graftwork.strategies import scratch
from graftwork.strategies.base import Task
from graftwork.strategies.scratch import Scratch, suited
from graftwork.training import Plan, Training

LABELS = ("bar", "slab")
SMALL = CompactConfig(1, 16, 8, 1, (Block(16, 2, 2),), 24)


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test waits for the clock: the number of steps ends the training."""
    monkeypatch.setattr(scratch, "STEPS", {"image": 1, "text": 1})
    monkeypatch.setattr(scratch, "SECONDS", 600.0)


def png(pixels: np.ndarray) -> bytes:
    out = BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def drawing(label: int, rng: np.random.Generator) -> bytes:
    """An upright bar, or a lying one, somewhere on a black ground."""
    pixels = rng.integers(0, 20, (16, 16), dtype=np.uint8)
    y, x = rng.integers(1, 5, 2)
    high, wide = (10, 2) if label == 0 else (2, 10)
    pixels[y : y + high, x : x + wide] = 230
    return png(pixels)


def task_of(column: Column, codes: np.ndarray, **changed: object) -> Task:
    n = len(codes)
    values: dict[str, object] = {
        "rows": Rows([f"row {i}" for i in range(n)], {"field": column}),
        "codes": codes.astype(np.int64),
        "labels": LABELS,
        "groups": np.arange(n),
        "validation": np.zeros(n, dtype=bool),
        "weights": np.ones(n),
        "metric": "accuracy",
        "seed": 0,
        "seconds": None,
    }
    return Task(**{**values, **changed})  # type: ignore[arg-type]


def drawings(n: int, seed: int = 0, **changed: object) -> Task:
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % 2
    return task_of(Contents("image", [drawing(code, rng) for code in codes]), codes, **changed)


def texts(n: int, words: tuple[str, str] = ("good tasty", "bad cold"), seed: int = 0) -> Task:
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % 2
    noise = ["the", "meal", "was", "and", "so"]
    lines = [" ".join([*rng.permutation(noise)[:3], rng.choice(words[c].split())]) for c in codes]
    return task_of(Texts(lines), codes)


def accuracy(model: object, task: Task) -> float:
    answers = model.answer(task.rows)  # type: ignore[attr-defined]
    return float(np.mean(answers.probabilities.argmax(1) == task.codes))


def test_thirty_drawings_are_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    # with every seed tried; after 30 steps the running statistics are not yet those of the network
    monkeypatch.setattr(scratch, "STEPS", {"image": 60})
    model = Scratch().fit(drawings(30), None, silent)
    assert accuracy(model, drawings(60, seed=1)) >= 0.9
    assert model.labels == LABELS


def test_few_texts_are_learnt_with_and_without_spaces() -> None:
    assert accuracy(Scratch().fit(texts(40), None, silent), texts(60, seed=1)) >= 0.9
    rng = np.random.default_rng(0)
    codes = np.arange(60) % 2
    lines = [
        "".join(rng.permutation(list("今天的外卖我们点了"))) + ("很好吃" if c else "太难吃") for c in codes
    ]
    chinese = task_of(Texts(lines), codes)
    assert accuracy(Scratch().fit(chinese, None, silent), chinese) >= 0.95


def test_head_on_backbone_is_the_very_network_that_was_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[CompactNet] = []
    real = scratch.train

    def spy(network: CompactNet, *args: object, **named: object) -> object:
        trained.append(network)
        return real(network, *args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(scratch, "train", spy)
    task = drawings(30)
    model = Scratch("none").fit(task, None, silent)
    backbone = model.backbone
    assert isinstance(backbone, Compact)
    pictures = scratch.read_pictures(task.rows, backbone.config, backbone.preparation, silent)
    with torch.inference_mode():
        expected = trained[0](torch.from_numpy(pictures) / 255).numpy()
    logits = model.head.logits(backbone.features(task.rows).matrix)
    assert np.allclose(logits, expected, atol=1e-4)


@pytest.mark.parametrize("task", [drawings(30), texts(30)], ids=["pictures", "texts"])
def test_same_seed_gives_the_same_model_and_it_can_be_restored(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch, "plan_for", lambda *_, seed, held: Plan(seed=seed, epochs=3, batch=16))
    first, again = (Scratch().fit(task, None, silent) for _ in range(2))
    assert first.backbone.fingerprint == again.backbone.fingerprint
    state = first.backbone.state()
    assert state.source is None
    restored = restore(state)
    matrix = first.backbone.features(task.rows).matrix
    assert np.array_equal(restored.features(task.rows).matrix, matrix)
    name, config, arrays = first.head.state()
    head = registry.get("heads", name)(first.labels, config, arrays)
    assert np.array_equal(head.logits(matrix), first.head.logits(matrix))


def test_settings_tell_how_training_went() -> None:
    said: list[Progress] = []
    settings = Scratch("strong").fit(drawings(30), None, said.append).settings
    assert settings["augment"] == "strong" and settings["held_rows"] == 0
    assert settings["epochs"] == len(settings["training_curve"]) == 30
    assert settings["training_curve"][-1][1] < settings["training_curve"][0][1]
    steps = [step for step in said if step.stage == "training"]
    assert steps[-1].done == steps[-1].total == 30
    assert "epoch 30 of 30, loss " in steps[-1].note and steps[-1].note.endswith(" rows/s")


def test_validation_rows_say_when_to_stop_and_are_not_learnt_from(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, np.ndarray] = {}
    monkeypatch.setattr(scratch, "train", lambda *args, held, **named: seen.update(held=held) or _nothing())
    validation = np.arange(40) >= 30
    Scratch().fit(drawings(40, validation=validation), None, silent)
    assert np.array_equal(seen["held"], validation)
    # many rows and no validation part: some are held out; few rows: every one is needed
    Scratch().fit(drawings(240), None, silent)
    assert 10 <= seen["held"].sum() <= 60
    Scratch().fit(drawings(40), None, silent)
    assert not seen["held"].any()


def _nothing() -> object:
    return Training((), 0, "epochs", 0.0)


def test_a_class_only_among_validation_rows_is_still_learnt() -> None:
    task = drawings(20, validation=np.arange(20) % 2 == 0)
    assert not scratch.held_rows(task).any()


def test_without_transfer_there_is_no_basis() -> None:
    assert Scratch().basis("image", None) is None
    assert Scratch().transfers is False
    assert isinstance(registry.get("strategies", "scratch")(), Scratch)


def compact_source(folder: Path) -> Source:
    torch.manual_seed(1)
    return write(folder, SMALL, Preparation("ink"), weights(CompactNet(SMALL, 2)), {}, "# toy\n", [])


def test_the_network_of_a_compact_source_is_trained_without_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch, "plan_for", lambda *_, seed, held: Plan(seed=seed, epochs=2, batch=16))
    source = compact_source(tmp_path / "toy")
    model = Scratch(like=source).fit(drawings(20), None, silent)
    assert isinstance(model.backbone, Compact)
    assert model.backbone.config == SMALL and model.backbone.source is None
    assert model.settings["like"] == "toy"


def test_a_source_of_another_family_is_refused(tmp_path: Path) -> None:
    source = compact_source(tmp_path / "toy")
    (tmp_path / "toy" / "config.json").write_text('{"model_type": "resnet"}')
    with pytest.raises(RequestError, match="no compact network"):
        Scratch(like=source).fit(drawings(20), None, silent)


def test_unreadable_row_is_named() -> None:
    codes = np.arange(4) % 2
    pictures = Contents("image", [drawing(0, np.random.default_rng(0))] * 3 + [b"rubbish"])
    with pytest.raises(Unreadable, match="row 3"):
        Scratch(like=None).fit(task_of(pictures, codes), None, silent)


@pytest.mark.parametrize(
    ("picture", "channels", "size", "frame"),
    [
        (np.pad(np.full((8, 4), 255, np.uint8), 6), 1, 32, "ink"),
        (255 - np.pad(np.full((60, 30), 255, np.uint8), 20), 1, 64, "ink"),
        (np.random.default_rng(0).integers(0, 255, (30, 30), dtype=np.uint8), 1, 32, "whole"),
        (np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8), 3, 64, "whole"),
    ],
    ids=["digit", "dark drawing", "grey texture", "photo"],
)
def test_network_suits_the_pictures(picture: np.ndarray, channels: int, size: int, frame: str) -> None:
    column = Contents("image", [png(picture)] * 3)
    config, preparation = suited(Rows(["a", "b", "c"], {"image": column}))
    assert (config.channels, config.size, preparation.frame) == (channels, size, frame)


def test_many_pictures_lie_in_a_file_and_not_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    task = drawings(12)
    in_memory = scratch.read_pictures(task.rows, SMALL, Preparation("ink"), silent)
    monkeypatch.setattr(scratch, "_IN_MEMORY", 100)
    mapped = scratch.read_pictures(task.rows, SMALL, Preparation("ink"), silent)
    assert isinstance(mapped, np.memmap)
    assert np.array_equal(mapped, in_memory)


def test_temperature_comes_from_the_held_rows() -> None:
    few, many = (Scratch().fit(drawings(n, validation=np.arange(n) >= 30), None, silent) for n in (30, 60))
    assert few.settings["temperature"] == 1.0
    assert many.settings["held_rows"] == 30
    assert many.settings["temperature"] != 1.0
    assert many.head.state()[1]["temperature"] == many.settings["temperature"]


def test_training_leaves_the_callers_random_numbers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "plan_for", lambda *_, seed, held: Plan(seed=seed, epochs=1, batch=16))
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    Scratch().fit(drawings(20), None, silent)
    assert torch.equal(torch.rand(3), expected)
