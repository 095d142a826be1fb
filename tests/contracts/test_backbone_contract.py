"""What every backbone promises, run over each of them."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import tiny
import tiny_audio
import tiny_onnx
from graftwork import registry
from graftwork.backbones import open_backbone, restore
from graftwork.backbones.base import Backbone
from graftwork.backbones.logmel import LogMel
from graftwork.records import Progress
from graftwork.rows import Kind, Rows
from graftwork.sources import find
from graftwork.store import Stored


def vectors(place: Path) -> Path:
    """Word vectors in word2vec's text form."""
    rng = np.random.default_rng(0)
    lines = [" ".join([word, *(f"{value:.4f}" for value in rng.normal(size=12))]) for word in tiny.WORDS]
    place.write_text(f"{len(lines)} 12\n" + "\n".join(lines) + "\n", "utf-8")
    return place


SOURCES: dict[str, Callable[[Path], Path]] = {
    "resnet": tiny.resnet,
    "vit": tiny.vit,
    "bert": tiny.bert,
    "onnx": lambda place: tiny_onnx.pictures(place / "net.onnx"),
    "wav2vec2": lambda place: tiny_audio.waves(place, "wav2vec2"),
    "words": lambda place: vectors(place.with_suffix(".txt")),
}


@dataclass
class Case:
    backbone: Backbone
    rows: Rows


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("models")
    return {name: build(place / name) for name, build in SOURCES.items()}


CASES = [
    "resnet openvino", "resnet torch", "vit openvino", "bert openvino", "bert torch", "glyphs", "onnx",
    "wav2vec2 torch", "words", "logmel",
]  # fmt: skip


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Case:
    name, _, runtime = request.param.partition(" ")
    if name == "logmel":
        return Case(LogMel(), rows_of("audio"))
    source = find(str(folders.get(name, name)))
    rows = rows_of(source.kind)
    return Case(open_backbone(source, rows, runtime=runtime or None), rows)


def rows_of(kind: Kind) -> Rows:
    if kind == "audio":
        return tiny_audio.rows(*np.linspace(0.2, 1.2, 30))
    return tiny.image_rows(30) if kind == "image" else tiny.text_rows(30)


def test_features_are_finite_float32_of_the_stated_width(case: Case) -> None:
    found = case.backbone.features(case.rows)
    assert found.matrix.shape == (30, case.backbone.width)
    assert found.matrix.dtype == np.float32 and np.isfinite(found.matrix).all()
    assert found.unreadable == {}
    assert (found.extraction.rows, found.extraction.computed) == (30, 30)
    assert found.extraction.runtime and found.extraction.precision


def test_a_row_has_the_same_bits_whatever_its_neighbours_and_place(case: Case) -> None:
    whole = case.backbone.features(case.rows).matrix
    order = np.random.default_rng(0).permutation(30)
    assert np.array_equal(case.backbone.features(case.rows.take(order)).matrix, whole[order])
    for i in (0, 13, 29):
        assert np.array_equal(case.backbone.features(case.rows.take(np.array([i]))).matrix[0], whole[i])


def test_different_rows_have_different_features(case: Case) -> None:
    assert len(np.unique(case.backbone.features(case.rows).matrix, axis=0)) > 20


def test_a_restored_backbone_gives_the_same_bits_and_fingerprint(case: Case) -> None:
    state = case.backbone.state()
    assert state.family in registry.names("backbones")
    assert json.loads(json.dumps(dict(state.config))) == dict(state.config)
    again = restore(state)
    assert again.fingerprint == case.backbone.fingerprint
    assert (again.kind, again.width) == (case.backbone.kind, case.backbone.width)
    assert np.array_equal(again.features(case.rows).matrix, case.backbone.features(case.rows).matrix)


def test_stored_features_equal_fresh_ones(case: Case, tmp_path: Path) -> None:
    stored = Stored(case.backbone, tmp_path)
    stored.features(case.rows.take(np.arange(7)))
    assert np.array_equal(stored.features(case.rows).matrix, case.backbone.features(case.rows).matrix)
    assert stored.features(case.rows).extraction.computed == 0


def test_progress_ends_with_all_rows(case: Case) -> None:
    heard: list[Progress] = []
    case.backbone.features(case.rows, heard.append)
    assert heard[-1].done == heard[-1].total == 30


def test_no_rows_at_all_give_an_empty_matrix(case: Case) -> None:
    found = case.backbone.features(case.rows.take(np.array([], dtype=np.int64)))
    assert found.matrix.shape == (0, case.backbone.width)


def test_fingerprints_are_stable_and_tell_backbones_apart(folders: dict[str, Path]) -> None:
    found = {
        name: [open_backbone(find(str(place)), None).fingerprint for _ in range(2)]
        for name, place in folders.items()
    }
    assert all(first == second for first, second in found.values())
    assert len({first for first, _ in found.values()}) == len(found)
