import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from graftwork import artefact
from graftwork.backbones import restore
from graftwork.backbones.compact import Compact, Preparation
from graftwork.backbones.logmel import LogMel
from graftwork.errors import Unreadable
from graftwork.examples import LARGEST_RECORDING, light
from graftwork.model import Model
from graftwork.records import silent
from graftwork.rows import Contents
from graftwork.sounds import RATE as HEARD
from graftwork.sounds import encode, look
from graftwork.strategies import kernel_ridge
from graftwork.strategies.base import Task
from graftwork.strategies.classical import Classical, inner_folds
from graftwork.strategies.scratch import STEPS, Scratch, suited
from tiny_sounds import RATE, glides, rows_of

LABELS = ("rising", "level", "falling")


def task(per_class: int, seed: int = 0, **given: object) -> Task:
    contents, codes = glides(per_class, seed)
    n = len(codes)
    plain = Task(rows_of(contents), codes, LABELS, np.arange(n), np.zeros(n, bool), np.ones(n), "accuracy", 0)
    return replace(plain, **given)  # type: ignore[arg-type]


def accuracy(model: Model, per_class: int = 10) -> float:
    contents, codes = glides(per_class, seed=99)
    return float((model.answer(rows_of(contents)).probabilities.argmax(1) == codes).mean())


def test_classical_learns_recordings_from_their_log_mel_statistics() -> None:
    model = Classical().fit(task(8), None, silent)
    assert isinstance(model.backbone, LogMel) and Classical().basis("audio", None) == LogMel()
    assert accuracy(model) > 0.95
    assert model.settings["model"] == "log-mel statistics + kernel ridge"
    json.dumps(model.settings)


def test_speakers_are_never_parted_while_tuning(monkeypatch: pytest.MonkeyPatch) -> None:
    speakers = np.arange(24) // 6
    seen = []

    def watched(one: Task, rows: np.ndarray) -> object:
        split = inner_folds(one, rows)
        seen.extend(split)
        return split

    monkeypatch.setattr(kernel_ridge, "inner_folds", watched)
    Classical().fit(task(8, groups=speakers), None, silent)
    assert seen and all(not set(speakers[train]) & set(speakers[held]) for train, held in seen)


def test_classical_and_scratch_name_a_recording_that_cannot_be_read() -> None:
    rows = rows_of([*glides(2)[0][:5], b"RIFF"])
    for strategy in (Classical(), Scratch()):
        with pytest.raises(Unreadable, match="row 5 is"):
            strategy.fit(task(2, rows=rows), None, silent)


def test_scratch_looks_at_spectrograms_and_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STEPS, "audio", 80)
    given = task(8, seconds=600.0)  # as many steps on a slow machine as on a quick one
    config, preparation = suited(given.rows)
    assert (config.channels, config.size, preparation) == (1, 64, Preparation("sound"))
    model = Scratch().fit(given, None, silent)
    assert model.backbone.kind == "audio" and isinstance(model.backbone, Compact)
    assert accuracy(model) > 0.6  # by chance: 0.33


def test_a_network_for_sounds_is_another_than_the_same_for_pictures() -> None:
    given = task(1, seconds=0.1)
    backbone = Scratch().fit(given, None, silent).backbone
    assert isinstance(backbone, Compact)
    again = restore(backbone.state())
    assert again.kind == "audio" and again.fingerprint == backbone.fingerprint
    assert np.array_equal(again.features(given.rows).matrix, backbone.features(given.rows).matrix)
    assert replace(backbone, preparation=Preparation("whole")).fingerprint != backbone.fingerprint


def save(model: Model, folder: Path, contents: list[bytes]) -> Path:
    return artefact.save(
        model, folder, strategy="x", result={}, versions={}, created="", report="", probe=rows_of(contents)
    )


@pytest.mark.parametrize("strategy", [Classical(), Scratch()], ids=["classical", "scratch"])
def test_saved_models_of_recordings_load_and_answer_with_the_same_bits(
    tmp_path: Path, strategy: Classical | Scratch
) -> None:
    model = strategy.fit(task(4, seconds=0.5), None, silent)
    contents, _ = glides(3, seed=5)
    folder = save(model, tmp_path / "a.graft", contents[:4])
    loaded, manifest = artefact.load(folder)
    assert manifest.kind == "audio"
    expected = model.answer(rows_of(contents))
    found = loaded.answer(rows_of(contents))
    assert np.array_equal(found.probabilities, expected.probabilities)
    assert np.array_equal(found.features.matrix, expected.features.matrix)


def test_an_artefact_keeps_the_beginning_of_a_long_recording(tmp_path: Path) -> None:
    model = Classical().fit(task(4), None, silent)
    long = encode(0.1 * np.random.default_rng(0).normal(size=44_100 * 40), 44_100)
    short = glides(1)[0][0]
    folder = save(model, tmp_path / "a.graft", [long, short])
    kept = folder / "probe" / "row-0"
    assert len(long) > LARGEST_RECORDING > kept.stat().st_size
    with kept.open("rb") as file:
        assert look(file).seconds == pytest.approx(10)
    assert (folder / "probe" / "row-1").read_bytes() == short
    artefact.load(folder)


def test_texts_and_pictures_are_kept_whole() -> None:
    content = bytes(LARGEST_RECORDING + 1)
    assert light(Contents("image", [content]), 0) == content


def test_made_up_recordings_can_be_heard_and_differ() -> None:
    rows = artefact.synthetic_rows("audio", 6)
    assert rows.kind == "audio" and len(rows) == 6
    found = LogMel().features(rows)
    assert not found.unreadable and len(np.unique(found.matrix, axis=0)) == 6
    with rows.column.open(0) as file:
        assert look(file).rate == HEARD != RATE


def test_real_digits_of_speakers_never_heard_are_told_better_than_by_the_reference(real_data: Path) -> None:
    from graftwork.datasets import load

    data = load(real_data / "spoken_digits" / "metadata.csv", group="speaker")
    assert data.groups is not None
    # a third of the rows, for speed; theo and yweweler are held out
    rows = np.arange(0, len(data), 3)
    held = np.isin([name.split("_")[1] for name in data.rows.names], ["theo", "yweweler"])
    learnt, asked = data.take(rows[~held[rows]]), data.take(rows[held[rows]])
    assert learnt.groups is not None
    n = len(learnt)
    given = Task(
        learnt.rows, learnt.target.codes, data.labels, learnt.groups,
        np.zeros(n, bool), np.ones(n), "accuracy", 0,
    )  # fmt: skip
    model = Classical().fit(given, None, silent)
    answers = model.answer(asked.rows).probabilities.argmax(1)
    assert (answers == asked.target.codes).mean() > 0.6
