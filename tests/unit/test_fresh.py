"""random:NAME: the same source with weights that learnt nothing, made once, whole or not at all."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import tiny
import tiny_audio
import tiny_keras
import tiny_onnx
import tiny_vectors
import toys
from graftwork import artefact, sources
from graftwork.backbones import fresh, open_backbone
from graftwork.errors import RequestError, WorkError
from graftwork.model import Model
from graftwork.rows import Rows
from graftwork.sources import Source


def _words(place: Path) -> Path:
    place.mkdir()
    known = [*tiny.WORDS, "n't", "é"]
    return tiny_vectors.glove(place / "vectors.txt", known, 3 + tiny_vectors.vectors(len(known), 20))


def _keras(place: Path) -> str:
    made = tiny_keras.model("MobileNet", include_top=False, input_shape=(224, 224, 3))
    return f"keras:MobileNet@{tiny_keras.save(made, place / 'net.weights.h5')}"


MAKERS: dict[str, Callable[[Path], Any]] = {
    "resnet": tiny.resnet,
    "vit": tiny.vit,
    "bert": tiny.bert,
    "wav2vec2": lambda place: tiny_audio.waves(place, "wav2vec2"),
    "conformer": lambda place: tiny_audio.waves(place, "conformer"),
    "ast": tiny_audio.ast,
    "whisper": tiny_audio.whisper,
    "glyphs": lambda place: "glyphs",
    "keras": _keras,
    "words": _words,
    "onnx": lambda place: tiny_onnx.pictures(place / "net.onnx"),
    "onnx external": lambda place: tiny_onnx.external(place / "net.onnx"),
}


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graftwork.backbones.engine.SAMPLE", 2)


def rows_for(source: Source) -> Rows:
    if source.kind == "audio":
        return tiny_audio.rows(1.0, 1.2, 0.9)
    return tiny.image_rows(3) if source.kind == "image" else tiny.text_rows(6)


def features(source: Source) -> Any:
    runtime = "torch" if source.family == "keras" else None
    return open_backbone(source, rows_for(source), runtime=runtime).features(rows_for(source)).matrix


@pytest.mark.parametrize("name", MAKERS)
def test_every_family_is_drawn_once_and_gives_features_that_learnt_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "onnx" in name:
        (tmp_path / "net").mkdir()
    trained = str(MAKERS[name](tmp_path / "net"))
    base, drawn = sources.find(trained), sources.find(f"random:{trained}@7")
    assert (drawn.kind, drawn.family, drawn.licence) == (base.kind, base.family, None)
    assert drawn.name == f"random:{trained}@7" and drawn.weights_sha256 != base.weights_sha256
    drawn.verify()
    found, known = features(drawn), features(base)
    assert np.isfinite(found).all() and found.shape == known.shape
    assert not np.allclose(found, known, rtol=0.1)
    assert found.std(0).mean() > 1e-3 * found.std() > 0  # rows differ
    assert 1e-4 < np.abs(found).mean() < 1e4
    monkeypatch.setattr(fresh, "_make", None)  # a second call makes nothing
    assert sources.find(f"random:{trained}@7").files == drawn.files


@pytest.mark.parametrize("name", ["resnet", "glyphs", "words", "onnx"])
def test_a_seed_gives_the_same_weights_again_and_another_seed_others(
    name: str, tmp_path: Path, home: Path
) -> None:
    if name == "onnx":
        (tmp_path / "net").mkdir()
    trained = str(MAKERS[name](tmp_path / "net"))
    first = sources.find(f"random:{trained}").weights_sha256
    assert sources.find(f"random:{trained}@1").weights_sha256 != first
    shutil.rmtree(home / "random")
    assert sources.find(f"random:{trained}@0").weights_sha256 == first


def test_a_keras_application_needs_no_weights_file_and_a_seed_gives_the_same_file(home: Path) -> None:
    first = sources.find("random:keras:MobileNet")
    assert first.options == {"architecture": "MobileNet", "size": 224, "scaled_twice": False}
    shutil.rmtree(home / "random")
    assert sources.find("random:keras:MobileNet").weights_sha256 == first.weights_sha256


def test_the_callers_own_random_numbers_go_on_undisturbed(tmp_path: Path) -> None:
    import torch

    folder = tiny.resnet(tmp_path / "net")
    torch.manual_seed(5)
    wanted = torch.rand(1)
    torch.manual_seed(5)
    sources.find(f"random:{folder}")
    assert torch.rand(1) == wanted


def test_what_prepares_the_input_is_the_sources_own(tmp_path: Path) -> None:
    folder = tiny.bert(tmp_path / "net")
    drawn = sources.find(f"random:{folder}")
    for file in ("config.json", "tokenizer.json", "modules.json", "1_Pooling/config.json"):
        assert (drawn.folder / file).read_bytes() == (folder / file).read_bytes()
    assert set(drawn.files) == set(sources.find(str(folder)).files)


def test_words_keep_their_vocabulary_and_spread(tmp_path: Path) -> None:
    from graftwork.backbones.vectors import load

    trained = sources.find(str(_words(tmp_path / "net")))
    drawn = sources.find(f"random:{trained.folder / trained.weights[0]}")
    assert list(load(drawn).words) == list(load(trained).words)
    before, after = np.asarray(load(trained).matrix), np.asarray(load(drawn).matrix)
    assert abs(after.mean() - before.mean()) < 0.2 and abs(after.std() / before.std() - 1) < 0.1


def test_batch_normalisation_gets_the_statistics_of_pictures(tmp_path: Path) -> None:
    drawn = sources.find(f"random:{tiny.resnet(tmp_path / 'net')}")
    arrays = load_file(drawn.folder / "model.safetensors")
    variances = [array for name, array in arrays.items() if name.endswith("running_var")]
    assert variances and all((array > 0).all() and array.std() > 0 for array in variances)


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "drawn.json"])
def test_a_damaged_folder_is_made_again(tmp_path: Path, file: str) -> None:
    name = f"random:{tiny.resnet(tmp_path / 'net')}"
    whole = sources.find(name)
    (whole.folder / file).write_bytes(b"damaged")
    again = sources.find(name)
    assert again.files == whole.files and again.folder == whole.folder
    again.verify()
    assert not list(again.folder.parent.glob(".*"))


def test_nothing_is_left_of_a_drawing_that_failed(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny.resnet(tmp_path / "net")

    def full(*given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(fresh._DRAWN, "images", full)  # type: ignore[arg-type]
    with pytest.raises(WorkError, match=r"random weights of 'net'.*No space left.*GRAFT_HOME") as caught:
        sources.find(f"random:{folder}")
    assert "\n" not in str(caught.value)
    assert not list((home / "random").iterdir())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("random:nowhere", "no source 'nowhere'"),
        ("random:random:glyphs", "random already"),
        ("random:keras:VGG61x", "no architecture"),
        ("random:", "no name after random:"),
    ],
)
def test_a_name_that_cannot_be_drawn_says_so_in_one_line(name: str, said: str) -> None:
    with pytest.raises(RequestError, match=said) as caught:
        sources.find(name)
    assert "\n" not in str(caught.value)


def test_a_family_without_drawing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny.resnet(tmp_path / "net")
    monkeypatch.delitem(fresh._DRAWN, "images")  # type: ignore[arg-type]
    with pytest.raises(RequestError, match=r"no random weights for .* of family 'images'.*audio, compact"):
        sources.find(f"random:{folder}")


def test_a_quantised_network_has_no_weights_to_draw(tmp_path: Path) -> None:
    import onnx
    from onnx import numpy_helper

    path = tiny_onnx.pictures(tmp_path / "net.onnx")
    network = onnx.load(path)
    for tensor in network.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.int8), tensor.name))
    onnx.save(network, path)
    whole = Source("net", "image", "onnx", tmp_path, {}, (), "local", options={"model": path.name})
    with pytest.raises(RequestError, match="no matrix of floating-point weights"):
        fresh._onnx(whole, tmp_path / "out", 0)


def test_an_artefact_on_random_weights_loads_also_where_they_must_be_drawn_again(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toys.register(monkeypatch)
    source = sources.find(f"random:{tiny.resnet(tmp_path / 'net')}")
    rows = tiny.image_rows(3)
    backbone = open_backbone(source, rows, runtime="torch")
    saved = _save(backbone, tmp_path / "m.graft", rows)
    shutil.rmtree(home / "random")
    loaded, manifest = artefact.load(tmp_path / "m.graft")
    assert manifest.source is not None and manifest.source.name == source.name
    assert np.array_equal(loaded.answer(rows).probabilities, saved.answer(rows).probabilities)


def _save(backbone: Any, folder: Path, rows: Rows) -> Model:
    weights = np.random.default_rng(0).normal(size=(backbone.width, 2))
    model = Model(backbone, toys.ToyHead(("a", "b"), weights), None, {"head": "toy"})
    artefact.save(
        model, folder, strategy="probe", result={"scores": {}}, versions={"graftwork": "0"},
        created="2026-01-01T00:00:00+00:00", report="<p>report</p>", probe=rows,
    )  # fmt: skip
    return model
