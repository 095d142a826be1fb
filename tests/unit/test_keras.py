"""Keras applications: the same numbers as Keras, from every kind of weights file, and nothing but weights."""

import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny
import tiny_keras
import toys
from graftwork import artefact, sources
from graftwork.backbones import keras as family
from graftwork.backbones import open_backbone, restore
from graftwork.errors import ArtefactError, MissingExtra, RequestError, UnknownName, WorkError
from graftwork.model import Model
from graftwork.rows import Rows
from graftwork.sources import keras as schemes

pytestmark = pytest.mark.skipif(find_spec("keras") is None, reason="the extra keras is not installed")
NET = "MobileNet"
"""The smallest to build."""
VALUES = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("facts")


@pytest.fixture(autouse=True)
def brief(home: Path, facts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keras is asked about an architecture once for all tests, and few rows decide on a path."""
    for name in ("keras-facts", "keras-files"):
        (facts / name).mkdir(exist_ok=True)
        (home / name).symlink_to(facts / name)
    monkeypatch.setattr("graftwork.backbones.engine.SAMPLE", 2)


@pytest.fixture(scope="module")
def bare() -> Any:
    """MobileNet without a classifier, as it is in the files."""
    return tiny_keras.model(NET, include_top=False, input_shape=(224, 224, 3))


@pytest.fixture(scope="module")
def other() -> Any:
    return tiny_keras.model("MobileNetV2", include_top=False, input_shape=(224, 224, 3))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, bare: Any) -> dict[str, Path]:
    """MobileNet, with a classifier of 5 classes and without, in every layout."""
    place = tmp_path_factory.mktemp("weights")
    found = {}
    layouts = {
        "top": ("new.weights.h5", "whole.h5"),
        "bare": ("new.weights.h5", "legacy.h5", "archive.keras"),
    }
    for top, wanted in layouts.items():
        made = tiny_keras.model(NET, classes=5) if top == "top" else bare
        for layout in wanted:
            found[f"{top} {layout}"] = tiny_keras.save(made, place / top / layout)
    return found


@pytest.fixture
def rows() -> Rows:
    return tiny.image_rows(2)


def open_file(path: Path, **asked: Any) -> Any:
    rows = tiny.image_rows(2)
    return open_backbone(sources.find(f"keras:{NET}@{path}"), rows, runtime="torch", **asked)


def run(path: Path, values: Any = VALUES, net: str = NET, pooling: str = "avg") -> Any:
    """The network's answer in torch, without a choice of path before it."""
    import torch

    source = sources.find(f"keras:{net}@{path}")
    framing = {"height": 224, "width": 224, "resize": None, "resample": 2, "fit": False, "fill": [0, 0, 0]}
    config = {"pooling": pooling, "preprocessing": {"framing": framing}}
    with torch.inference_mode():
        return family.Application(source, config)._build()(torch.from_numpy(values)).numpy()


def pixels(backbone: Any, rows: Rows) -> Any:
    return np.stack([backbone.framing.apply(rows.column.read(i)) for i in range(len(rows))])


def test_features_are_what_keras_itself_predicts(files: dict[str, Path], bare: Any) -> None:
    places = tiny_keras.predicted(bare, NET, VALUES).reshape(49, 1024)
    for pooling, wanted in (("flatten", places.ravel()), ("avg", places.mean(0)), ("max", places.max(0))):
        (found,) = run(files["bare new.weights.h5"], pooling=pooling)
        np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max(), err_msg=pooling)
        assert wanted.std() > 0


def test_vgg16_flattened_is_the_textbook_recipe(tmp_path: Path, rows: Rows) -> None:
    made = tiny_keras.model("VGG16", include_top=False, input_shape=(224, 224, 3))
    path = tiny_keras.save(made, tmp_path / "vgg16.weights.h5")
    source = sources.find(f"keras:VGG16@{path}")
    backbone = open_backbone(source, rows, pooling="flatten")
    wanted = tiny_keras.predicted(made, "VGG16", pixels(backbone, rows))  # type: ignore[arg-type]
    features = backbone.features(rows)
    assert features.extraction.runtime == "openvino"
    found = features.matrix
    assert found.shape == wanted.shape == (2, 25_088)
    cosine = (found * wanted).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(wanted, axis=1)
    assert cosine.min() > 0.999  # bf16 where the machine has it


def test_every_architecture_prepares_its_input_as_its_own_function_does(rows: Rows) -> None:
    import torch

    from graftwork.backbones.keras_network import KerasNetwork

    values = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    modes = set()
    for name in schemes.architectures():
        prepare = family.preprocess_input(name)
        wanted = prepare(values.astype(np.float32))
        found = KerasNetwork(schemes.library(), _Same(), prepare)(torch.from_numpy(values))
        np.testing.assert_allclose(found.numpy(), wanted.reshape(2, -1), rtol=1e-5, atol=1e-4)
        modes.add(round(float(wanted.min()), 2))
    assert len(modes) == 4  # caffe, torch, tf, and networks that prepare inside


class _Same:
    """A model that gives back what it takes."""

    def __new__(cls) -> Any:
        import torch

        class Same(torch.nn.Module):
            def forward(self, values: Any, training: bool) -> Any:
                assert training is False
                return values

        return Same()


def test_weights_with_and_without_classifier_load_from_every_layout(files: dict[str, Path]) -> None:
    found = {name: run(path) for name, path in files.items()}
    for name, values in found.items():
        assert np.array_equal(values, found["bare new.weights.h5"]), name  # the classifier came last


def test_a_long_list_of_layers_is_read_from_the_pieces_that_keras_splits_it_into(
    files: dict[str, Path], tmp_path: Path
) -> None:
    import h5py

    path = tmp_path / "split.h5"
    path.write_bytes(files["bare legacy.h5"].read_bytes())
    with h5py.File(path, "r+") as file:
        names = file.attrs["layer_names"]
        del file.attrs["layer_names"]
        file.attrs["layer_names0"], file.attrs["layer_names1"] = names[:40], names[40:]
    assert np.array_equal(run(path), run(files["bare legacy.h5"]))


def test_of_an_archive_the_configuration_is_never_read(files: dict[str, Path], tmp_path: Path) -> None:
    hostile = tmp_path / "hostile.keras"
    with zipfile.ZipFile(files["bare archive.keras"]) as old, zipfile.ZipFile(hostile, "w") as new:
        new.writestr("config.json", json.dumps({"class_name": "Lambda", "config": "import os; os.abort()"}))
        new.writestr("metadata.json", "{")
        new.writestr("model.weights.h5", old.read("model.weights.h5"))
    assert np.array_equal(run(hostile), run(files["bare new.weights.h5"]))


def _nan(path: Path, content: bytes) -> None:
    import h5py

    path.write_bytes(content)
    with h5py.File(path, "r+") as file:
        arrays: list[Any] = []
        file.visititems(lambda name, one: arrays.append(one) if isinstance(one, h5py.Dataset) else None)
        arrays[7][...] = np.nan


def _shorter(path: Path, content: bytes) -> None:
    path.write_bytes(content[: len(content) // 2])


def _linked(path: Path, file: Path) -> None:
    import h5py

    path.write_bytes(file.read_bytes())
    with h5py.File(path, "r+") as opened:
        del opened["conv1"]
        opened["conv1"] = h5py.ExternalLink(str(file), "conv1")


@pytest.mark.parametrize("layout", ["new.weights.h5", "legacy.h5"])
@pytest.mark.parametrize("spoil", [_nan, _shorter, lambda path, content: path.write_bytes(b"no HDF5")])
def test_damaged_weights_are_refused_in_one_line(
    files: dict[str, Path], tmp_path: Path, spoil: Any, layout: str
) -> None:
    path = tmp_path / layout
    spoil(path, files[f"bare {layout}"].read_bytes())
    _refused(path)


@pytest.mark.parametrize("layout", ["other.weights.h5", "other legacy.h5"])
def test_weights_of_another_architecture_are_refused_in_one_line(
    other: Any, tmp_path: Path, layout: str
) -> None:
    _refused(tiny_keras.save(other, tmp_path / layout))


def test_an_archive_that_is_none_or_holds_no_weights_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "net.keras"
    for content in (b"no archive", b""):
        path.write_bytes(content)
        _refused(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
    _refused(path)


def _refused(path: Path) -> None:
    with pytest.raises(ArtefactError, match=NET) as caught:
        run(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    assert not re.search(r"\(\)|:\)|`\)|[a-z_.]+\(\)", str(caught.value)), "a sentence of Keras's is cut"


def test_weights_may_not_lead_to_other_files(files: dict[str, Path], tmp_path: Path) -> None:
    _linked(tmp_path / "linked.h5", files["bare legacy.h5"])
    with pytest.raises(ArtefactError, match=r"no 'conv1' of its own"):
        run(tmp_path / "linked.h5")


def test_keras_own_efficientnet_weights_scale_their_input_twice_as_keras_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = "EfficientNetB0"
    close = 1e-3  # of the largest: a deep network with random weights amplifies rounding
    module = sys.modules[schemes.architectures()[net].__module__]
    # its own first blocks alone: what scales the input lies before them
    monkeypatch.setattr(module, "DEFAULT_BLOCKS_ARGS", module.DEFAULT_BLOCKS_ARGS[:2])
    made = tiny_keras.model(net, include_top=False, input_shape=(224, 224, 3), pooling="avg")
    path = tiny_keras.save(made, tmp_path / "b0 legacy.h5")
    with monkeypatch.context() as patched, schemes.library().device("cpu"):
        patched.setattr(module.file_utils, "get_file", lambda *given, **named: str(path))
        theirs = module.EfficientNetB0(weights="imagenet", include_top=False, pooling="avg")
    plain = run(path, net=net)
    assert np.abs(plain - tiny_keras.predicted(made, net, VALUES)).max() < close * np.abs(plain).max()
    monkeypatch.setattr(module, "WEIGHTS_HASHES", {"b0": ("x", _md5(path))})
    wanted = tiny_keras.predicted(theirs, net, VALUES)
    assert np.abs(run(path, net=net) - wanted).max() < close * np.abs(wanted).max()
    assert np.abs(wanted - plain).max() > 0.01 * np.abs(plain).max()
    for layout in ("tuned.h5", "tuned.keras"):  # trained on from Keras's, saved anew
        tuned = sources.find(f"keras:{net}@{tiny_keras.save(theirs, tmp_path / layout)}")
        assert tuned.options["scaled_twice"]
    assert np.abs(run(tmp_path / layout, net=net) - wanted).max() < close * np.abs(wanted).max()
    random = tiny_keras.save(made, tmp_path / "random.keras")
    assert not sources.find(f"keras:{net}@{random}").options["scaled_twice"]


def test_a_restored_backbone_gives_the_same_bits(files: dict[str, Path], rows: Rows) -> None:
    backbone = open_file(files["top whole.h5"])
    state = backbone.state()
    assert json.loads(json.dumps(dict(state.config))) == dict(state.config)
    again = restore(state)
    assert again.fingerprint == backbone.fingerprint
    assert np.array_equal(again.features(rows).matrix, backbone.features(rows).matrix)


def test_an_artefact_answers_as_before_from_where_its_weights_lay_and_bundled_without_them(
    files: dict[str, Path], rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toys.register(monkeypatch)
    path = tmp_path / "net.weights.h5"
    path.write_bytes(files["bare new.weights.h5"].read_bytes())
    backbone = open_file(path)
    head = toys.ToyHead(("a", "b"), np.random.default_rng(0).normal(size=(backbone.width, 2)) / 99)
    model = Model(backbone, head, None, {"head": "toy"})
    for name in ("beside", "bundled"):
        artefact.save(
            model, tmp_path / name, strategy="probe", result={"scores": {}}, versions={"graftwork": "0"},
            created="2026-01-01T00:00:00+00:00", report="<p>report</p>", probe=rows, bundle=name == "bundled",
        )  # fmt: skip
    wanted = model.answer(rows).probabilities
    assert np.array_equal(artefact.load(tmp_path / "beside")[0].answer(rows).probabilities, wanted)
    path.unlink()
    assert np.array_equal(artefact.load(tmp_path / "bundled")[0].answer(rows).probabilities, wanted)
    with pytest.raises(
        RequestError, match=r"no source with weights.*put it back.*no weights file.*net\.weights"
    ):
        artefact.load(tmp_path / "beside")
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    (shelf / path.name).write_bytes(files["bare new.weights.h5"].read_bytes())
    monkeypatch.setenv("GRAFT_SOURCES", str(shelf))
    assert np.array_equal(artefact.load(tmp_path / "beside")[0].answer(rows).probabilities, wanted)


def test_fingerprints_tell_pooling_framing_and_weights_apart(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    settled = {"runtime": "torch", "precision": "f32", "width": 1024, "parity": {}}
    monkeypatch.setattr(family.Application, "settled", lambda self, *given: {**self.config, **settled})
    one, other = files["bare new.weights.h5"], files["top new.weights.h5"]
    asked: list[Any] = [(one, {}), (one, {"pooling": "max"}), (one, {"resize": "crop"}), (other, {})]
    found = [open_file(path, **options).fingerprint for path, options in asked]
    assert len(set(found)) == len(found)
    assert open_file(one, pooling="pooled", resize="stretch").fingerprint == found[0]
    monkeypatch.setattr(family, "library_version", lambda: "99.1.0")
    assert open_file(one).fingerprint != found[0]


def test_a_picture_is_stretched_unless_asked_otherwise(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(family.Application, "settled", lambda self, *given: self.config)
    content = tiny.encoded(tiny.pictures(1, low=60, high=61)[0].resize((120, 60)))
    path = files["bare new.weights.h5"]
    stretch, crop, fit = (open_file(path, resize=one).framing for one in (None, "crop", "fit"))
    assert stretch.apply(content).shape == crop.apply(content).shape == fit.apply(content).shape
    assert (fit.apply(content)[0] == [124, 116, 104]).all()
    # the middle of the wide picture: at its own proportions when cropped, half as wide when stretched
    assert not np.array_equal(stretch.apply(content), crop.apply(content))
    assert (stretch.resize, crop.resize, fit.fit) == ((224, 224), 224, True)


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("keras:VGG166", UnknownName, r"did you mean 'VGG16'.*known:.*ResNet50"),
        ("keras:", UnknownName, "known:"),
        ("keras:VGG16@/nowhere/x.h5", RequestError, r"no weights file '/nowhere/x\.h5'"),
        ("keras:NASNetMobile", RequestError, "torch backend"),
        ("keras:VGG16", RequestError, r"offline, and vgg16_weights\S+_notop\.h5 .*models.*keras:VGG16@FILE"),
    ],
)
def test_a_name_that_cannot_be_used_says_so_in_one_line(name: str, error: Any, said: str) -> None:
    with pytest.raises(error, match=said) as caught:
        sources.find(name)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_weights_and_weights_without_a_network_are_refused(
    files: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(RequestError, match=rf"name the architecture too.*keras:VGG16@{tmp_path}"):
        sources.find(str(tiny_keras.save(tiny_keras.model(NET), tmp_path / "x.weights.h5")))
    (tmp_path / "x.pkl").write_bytes(b"x")
    with pytest.raises(RequestError, match=r"x\.pkl is no weights file"):
        sources.find(f"keras:{NET}@{tmp_path / 'x.pkl'}")
    path = files["bare new.weights.h5"]
    with pytest.raises(RequestError, match="no pooling 'cls' for Keras"):
        open_file(path, pooling="cls")
    with pytest.raises(RequestError, match="no resize 'squash' for Keras"):
        open_file(path, resize="squash")


def test_what_keras_fetched_before_is_used_offline_if_it_is_whole(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    place = tmp_path / "models" / "mobilenet_notop.h5"
    place.parent.mkdir()
    place.write_bytes(files["bare legacy.h5"].read_bytes())
    announced = {"name": place.name, "hash": "0" * 32}
    monkeypatch.setattr(schemes, "_announced", lambda name: announced)
    with pytest.raises(RequestError, match="offline"):
        sources.find(f"keras:{NET}")  # its hash is not what Keras announces
    announced["hash"] = _md5(place)
    found = sources.find(f"keras:{NET}")
    assert (found.name, found.folder / found.weights[0]) == (f"keras:{NET}", place)


def _md5(path: Path) -> str:
    import hashlib

    return hashlib.md5(path.read_bytes()).hexdigest()


def test_weights_are_fetched_into_our_own_home_and_a_failure_says_why(
    home: Path, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: dict[str, Any] = {}

    def get_file(name: str, origin: str, **given: Any) -> str:
        print("Downloading")
        asked.update(given, origin=origin)
        place = Path(given["cache_dir"]) / given["cache_subdir"] / name
        place.parent.mkdir(parents=True)
        place.write_bytes(files["bare legacy.h5"].read_bytes())
        return str(place)

    monkeypatch.setattr(schemes.library().utils, "get_file", get_file)
    found = schemes.named(NET, offline=False)
    assert found.folder == home / "keras" / "models" and found.origin == "hub"
    assert asked["origin"].startswith("https://storage.googleapis.com/") and asked["file_hash"] is None
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""

    def fails(*given: Any, **named: Any) -> str:
        raise Exception("URL fetch failure on x: None -- no route\nto host")

    monkeypatch.setattr(schemes.library().utils, "get_file", fails)
    with pytest.raises(WorkError, match=r"VGG16 could not be fetched \(URL fetch.*put vgg16_\S+ into"):
        schemes.named("VGG16", offline=False)


def test_without_keras_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import PackageNotFoundError

    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(schemes, "version", absent)
    with pytest.raises(MissingExtra, match=r"graftwork\[keras\]"):
        sources.find("keras:VGG16")


@pytest.fixture
def other_home(tmp_path: Path) -> Iterator[dict[str, str]]:
    (tmp_path / ".keras").mkdir()
    settings = {"backend": "tensorflow", "image_data_format": "channels_first", "floatx": "float16"}
    (tmp_path / ".keras" / "keras.json").write_text(json.dumps(settings))
    yield {**os.environ, "HOME": str(tmp_path), "GRAFT_HOME": str(tmp_path.parent / "graft-home")}
    assert [path.name for path in (tmp_path / ".keras").iterdir()] == ["keras.json"]
    assert json.loads((tmp_path / ".keras" / "keras.json").read_text()) == settings


def test_the_users_own_keras_settings_are_neither_followed_nor_touched(other_home: dict[str, str]) -> None:
    code = (
        "import os, sys, graftwork.cli; assert 'keras' not in sys.modules;"
        "from graftwork.sources.keras import library; library();"
        "print(sys.modules['keras'].config.backend(), {'KERAS_BACKEND', 'KERAS_HOME'} & set(os.environ))"
    )
    clean = {name: value for name, value in other_home.items() if not name.startswith("KERAS")}
    done = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "torch set()"


def test_a_process_in_which_keras_runs_on_another_backend_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schemes.library().config, "image_data_format", lambda: "channels_first")
    with pytest.raises(RequestError, match=r"torch, channels_first, float32.*KERAS_BACKEND=torch"):
        schemes.library()
