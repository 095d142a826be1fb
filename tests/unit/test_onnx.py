"""ONNX files as frozen backbones, against plain onnxruntime on inputs prepared here."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto
from PIL import Image

import graftwork as gw
import tiny
import tiny_audio
import tiny_onnx
from graftwork import artefact, sounds
from graftwork.backbones import open_backbone, restore
from graftwork.backbones.onnx import Onnx
from graftwork.errors import ArtefactError, GraftworkError, MissingExtra, RequestError
from graftwork.rows import Contents, Rows
from graftwork.sources import find, huggingface, read

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def opened(path: Path, **options: Any) -> Onnx:
    backbone = open_backbone(find(str(path)), None, **options)
    assert isinstance(backbone, Onnx)
    return backbone


def plain(path: Path, output: str, **feeds: NDArray[Any]) -> NDArray[Any]:
    """The named output by onnxruntime alone."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = session.run([output], feeds)[0]
    assert isinstance(found, np.ndarray)
    return found


def framed(content: bytes, resize: int, crop: int) -> NDArray[np.uint8]:
    """The short side stretched to `resize`, the middle cut out."""
    picture = Image.open(BytesIO(content)).convert("RGB")
    width, height = picture.size
    short = min(picture.size)
    size = (resize, resize * height // width) if width == short else (resize * width // height, resize)
    picture = picture.resize(size, Image.Resampling.BILINEAR)
    left, top = (picture.width - crop) // 2, (picture.height - crop) // 2
    return np.asarray(picture.crop((left, top, left + crop, top + crop)))


def normalised(pixels: NDArray[np.uint8], mean: list[float], std: list[float]) -> NDArray[np.float32]:
    return np.asarray((pixels / 255 - np.array(mean)) / np.array(std), dtype=np.float32)


def contents(rows: Rows) -> list[bytes]:
    return [rows.column.read(i) for i in range(len(rows))]


# Pictures


@pytest.mark.parametrize("batch", ["N", 1, 4])
def test_a_bare_file_of_pictures_is_prepared_as_for_imagenet_and_says_so(tmp_path: Path, batch: Any) -> None:
    path = tiny_onnx.pictures(tmp_path / "net.onnx", shape=[batch, 3, 32, 32])
    rows = tiny.image_rows(6)
    backbone = opened(path)
    for found, content in zip(backbone.features(rows).matrix, contents(rows), strict=True):
        pixels = normalised(framed(content, 37, 32), MEAN, STD).transpose(2, 0, 1)[None]
        expected = plain(path, "embedding", pixels=np.repeat(pixels, 4 if batch == 4 else 1, 0))[0]
        np.testing.assert_allclose(found, expected, atol=2e-5)
    (remark,) = backbone.remarks(rows)
    assert "32 x 32" in remark and "ImageNet" in remark and "preprocessor_config.json" in remark


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.UINT8])
def test_inputs_are_given_in_the_networks_own_type_and_order(tmp_path: Path, dtype: int) -> None:
    path = tiny_onnx.pictures(tmp_path / "net.onnx", shape=[1, 32, 32, 3], dtype=dtype)
    rows = tiny.image_rows(4)
    found = opened(path).features(rows).matrix
    kinds = {TensorProto.FLOAT16: np.float16, TensorProto.DOUBLE: np.float64}
    for row, content in zip(found, contents(rows), strict=True):
        pixels: NDArray[Any] = framed(content, 37, 32)
        if dtype != TensorProto.UINT8:
            pixels = normalised(pixels, MEAN, STD).astype(kinds[dtype])
        np.testing.assert_allclose(
            row, plain(path, "embedding", pixels=pixels[None])[0], atol=5e-3, rtol=1e-4
        )


def test_a_preprocessor_beside_the_file_is_followed_and_open_axes_work(tmp_path: Path) -> None:
    path = tiny_onnx.maps(tmp_path / "model.onnx")
    tiny.write(tmp_path / "preprocessor_config.json", tiny.processor(40, 32))
    rows = tiny.image_rows(4)
    backbone = opened(tmp_path)
    assert not backbone.remarks(rows)
    for found, content in zip(backbone.features(rows).matrix, contents(rows), strict=True):
        pixels = normalised(framed(content, 40, 32), [0.5, 0.4, 0.3], [0.2, 0.3, 0.4])
        places = plain(path, "last_hidden_state", pixel_values=pixels.transpose(2, 0, 1)[None])
        np.testing.assert_allclose(found, places[0].mean((1, 2)), atol=2e-5)


def test_poolings_of_places_and_tokens(tmp_path: Path) -> None:
    rows = tiny.image_rows(2)
    pixels = normalised(framed(contents(rows)[0], 37, 32), MEAN, STD).transpose(2, 0, 1)[None]
    for tokens in (False, True):
        path = tiny_onnx.maps(tmp_path / f"{tokens}.onnx", tokens=tokens)
        if not tokens:
            path = tiny_onnx.maps(tmp_path / "sized" / "model.onnx")
            tiny.write(path.parent / "preprocessor_config.json", _as_imagenet())
        found = plain(path, "last_hidden_state", pixel_values=pixels)[0]
        steps = found if tokens else found.reshape(tiny_onnx.WIDTH, -1).T
        expected = {"mean": steps.mean(0), "max": steps.max(0), "flatten": steps.ravel(), "cls": steps[0]}
        expected["auto"] = expected["cls" if tokens else "mean"]
        for pooling, vector in expected.items():
            backbone = opened(path, pooling=pooling)
            np.testing.assert_allclose(backbone.features(rows).matrix[0], vector, atol=2e-5)
            assert backbone.width == len(vector)


def _as_imagenet() -> dict[str, Any]:
    return tiny.processor(37, 32, image_mean=MEAN, image_std=STD)


@pytest.mark.parametrize(
    "output,classes,cut",
    [("logits", 5, True), ("output", 1000, True), ("output", 5, False), ("embedding", 1000, False)],
)
def test_features_come_from_before_the_classifier_unless_asked_otherwise(
    tmp_path: Path, output: str, classes: int, cut: bool
) -> None:
    path = tiny_onnx.pictures(tmp_path / "net.onnx", classes=classes, output=output)
    bare = tiny_onnx.pictures(tmp_path / "bare.onnx")
    rows = tiny.image_rows(3)
    backbone = opened(path)
    features = backbone.features(rows).matrix
    assert any("--pooling output" in remark for remark in backbone.remarks(rows)) == cut
    probabilities = opened(path, pooling="output").features(rows).matrix
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
    if cut:
        np.testing.assert_array_equal(features, opened(bare).features(rows).matrix)
    else:
        np.testing.assert_array_equal(features, probabilities)


# Texts


@pytest.mark.parametrize("length", ["T", 16])
@pytest.mark.parametrize("normalise", [True, False])
def test_texts_are_tokenised_by_their_own_tokenizer_and_pooled_over_their_tokens(
    tmp_path: Path, length: Any, normalise: bool
) -> None:
    from tokenizers import Tokenizer

    folder = tiny_onnx.texts(tmp_path, length=length, normalise=normalise)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(24 if length == "T" else 16)
    if length == 16:
        tokenizer.enable_padding(length=16)
    rows = tiny.text_rows(12)
    backbone = opened(folder)
    assert backbone.kind == "text" and backbone.width == tiny_onnx.WIDTH
    for found, content in zip(backbone.features(rows).matrix, contents(rows), strict=True):
        encoding = tokenizer.encode(content.decode())
        ids, mask = np.array([encoding.ids]), np.array([encoding.attention_mask])
        states = plain(
            folder / "model.onnx",
            "last_hidden_state",
            input_ids=ids,
            attention_mask=mask,
            token_type_ids=0 * ids,
        )[0]
        expected = states[mask[0] == 1].mean(0)
        expected = expected / np.linalg.norm(expected) if normalise else expected
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_hubs_subfolder_finds_the_tokenizer_above_it(tmp_path: Path) -> None:
    folder = tiny_onnx.texts(tmp_path)
    (folder / "onnx").mkdir()
    (folder / "model.onnx").rename(folder / "onnx" / "model.onnx")
    by_folder, by_file = opened(folder), opened(folder / "onnx" / "model.onnx")
    assert by_folder.fingerprint == by_file.fingerprint
    assert by_folder.source.weights == ("onnx/model.onnx",)


def test_safetensors_are_preferred_to_an_onnx_file_beside_them(tmp_path: Path) -> None:
    tiny_onnx.pictures(tmp_path / "model.onnx")
    tiny.write(tmp_path / "config.json", {"model_type": "resnet"})
    assert find(str(tmp_path)).family == "onnx"
    (tmp_path / "model.safetensors").touch()
    assert huggingface.recognises(tmp_path)


# Recordings


@pytest.mark.parametrize("shape", [["N", "samples"], [1, 1, "samples"], ["samples"], [1, 8_000]])
def test_a_bare_file_of_a_waveform_hears_windows_at_16_kilohertz(tmp_path: Path, shape: Any) -> None:
    path = tiny_onnx.sounds(tmp_path / "net.onnx", shape=shape)
    rows = tiny_audio.rows(0.3, 12.5)
    backbone = opened(path)
    assert backbone.kind == "audio" and "16 kHz" in backbone.remarks(rows)[0]
    for found, content in zip(backbone.features(rows).matrix, contents(rows), strict=True):
        samples = sounds.decode(BytesIO(content))
        size = 8_000 if shape[-1] == 8_000 else 160_000
        steps = []
        for start in range(0, len(samples), size):
            part = samples[start : start + size]
            part = np.pad(part, (0, max(0, min(size, 16_000) - len(part))))
            wave = part.reshape([1] * (len(shape) - 1) + [-1])
            steps.append(plain(path, "last_hidden_state", wave=wave).reshape(-1, tiny_onnx.WIDTH))
        np.testing.assert_allclose(found, np.concatenate(steps).mean(0), atol=2e-5)


def test_a_feature_extractor_beside_the_file_says_the_rate_and_the_scale(tmp_path: Path) -> None:
    path = tiny_onnx.sounds(tmp_path / "model.onnx")
    stated = {
        "sampling_rate": 8_000,
        "do_normalize": True,
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
    }
    tiny.write(tmp_path / "preprocessor_config.json", stated)
    rows = tiny_audio.rows(2.0)
    samples = sounds.decode(BytesIO(contents(rows)[0]), 8_000)
    wave = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
    expected = plain(path, "last_hidden_state", wave=wave[None])[0].mean(0)
    np.testing.assert_allclose(opened(tmp_path).features(rows).matrix[0], expected, atol=1e-4)


def test_the_speech_embedding_hears_every_window_that_touches_the_recording(real_models: Path) -> None:
    folder = real_models / "speech_embedding"
    rows = tiny_audio.rows(0.14, 0.4, 2.3)
    backbone = opened(folder)
    assert (backbone.kind, backbone.width, len(backbone.source.weights)) == ("audio", 96, 2)
    for found, content in zip(backbone.features(rows).matrix, contents(rows), strict=True):
        samples = np.concatenate([np.zeros(10_880), sounds.decode(BytesIO(content)), np.zeros(10_880)])
        mel = plain(
            folder / "melspectrogram.onnx", "output", input=(samples * 32767).astype(np.float32)[None]
        )
        mel = mel.reshape(-1, 32) / 10 + 2
        starts = range(0, len(mel) - 75, 8)
        pieces = np.stack([mel[start : start + 76] for start in starts])[..., None]
        vectors = plain(folder / "embedding_model.onnx", "conv2d_19", input_1=pieces).reshape(-1, 96)
        np.testing.assert_allclose(found, vectors.mean(0), atol=1e-3)


def test_silence_and_single_samples_have_an_embedding(real_models: Path) -> None:
    short = [sounds.encode(np.zeros(n, np.float32), 16_000) for n in (1, 16_000, 400_000)]
    rows = Rows(["a", "b", "c"], {"audio": Contents("audio", short)})
    matrix = opened(real_models / "speech_embedding").features(rows).matrix
    assert np.isfinite(matrix).all()


# Laws


@pytest.mark.parametrize("kind", ["image", "text", "audio"])
def test_no_rows_features_depend_on_its_neighbours(tmp_path: Path, kind: str) -> None:
    makers: dict[str, Any] = {
        "image": lambda: (tiny_onnx.pictures(tmp_path / "net.onnx"), tiny.image_rows(9)),
        "text": lambda: (tiny_onnx.texts(tmp_path), tiny.text_rows(9)),
        "audio": lambda: (tiny_onnx.sounds(tmp_path / "net.onnx"), tiny_audio.rows(*np.linspace(0.1, 3, 9))),
    }
    path, rows = makers[kind]()
    backbone = opened(path)
    matrix = backbone.features(rows).matrix
    order = np.random.default_rng(0).permutation(9)
    np.testing.assert_array_equal(backbone.features(rows.take(order)).matrix, matrix[order])
    for i in (0, 5):
        np.testing.assert_array_equal(backbone.features(rows.take(np.array([i]))).matrix[0], matrix[i])


def test_unreadable_rows_are_named_and_the_others_keep_their_features(tmp_path: Path) -> None:
    backbone = opened(tiny_onnx.pictures(tmp_path / "net.onnx"))
    rows = tiny.image_rows(3)
    broken = Rows(
        rows.names, {"image": Contents("image", [contents(rows)[0], b"no picture", contents(rows)[2]])}
    )
    features = backbone.features(broken)
    assert list(features.unreadable) == [1] and np.isnan(features.matrix[1]).all()
    np.testing.assert_array_equal(features.matrix[[0, 2]], backbone.features(rows).matrix[[0, 2]])


def test_a_fingerprint_changes_with_all_that_shapes_the_numbers(tmp_path: Path) -> None:
    found = [opened(tiny_onnx.pictures(tmp_path / "net.onnx", seed=seed)).fingerprint for seed in (0, 1)]
    (tmp_path / "outside").mkdir()
    path = tiny_onnx.external(tmp_path / "outside" / "model.onnx")
    found.append(opened(path).fingerprint)
    data = path.parent / "model.onnx_data"
    content = bytearray(data.read_bytes())
    content[2] ^= 1
    data.write_bytes(bytes(content))
    found.append(opened(path).fingerprint)
    found.append(opened(path, resize="fit").fingerprint)
    folder = tiny_onnx.texts(tmp_path / "texts")
    found += [opened(folder).fingerprint, opened(folder, pooling="max").fingerprint]
    assert len(set(found)) == len(found)


def test_a_restored_backbone_gives_the_same_features(tmp_path: Path) -> None:
    backbone = opened(tiny_onnx.pictures(tmp_path / "net.onnx", classes=5, output="logits"))
    again = restore(backbone.state())
    rows = tiny.image_rows(3)
    assert again.fingerprint == backbone.fingerprint
    np.testing.assert_array_equal(again.features(rows).matrix, backbone.features(rows).matrix)


@pytest.mark.usefixtures("brisk")
def test_a_model_on_an_onnx_file_is_saved_loaded_and_answers_the_same(tmp_path: Path) -> None:
    folder = tiny_onnx.texts(tmp_path / "source")
    rng = np.random.default_rng(0)
    lines = ["text,label"]
    for i in range(60):
        label = ("good", "bad")[i % 2]
        words = {"good": "good fine bright".split(), "bad": "bad dull not".split()}[label]
        lines.append(f"{' '.join(rng.choice([*words, 'film', 'the'], 6))} {i},{label}")
    (tmp_path / "data.csv").write_text("\n".join(lines), "utf-8")
    outcome = gw.fit(
        str(tmp_path / "data.csv"), source=str(folder), baselines="none", text="text", label="label"
    )
    saved = outcome.save(tmp_path / "model.graft")
    model, _ = artefact.load(saved)
    texts = ["good bright film", "dull bad plot"]
    np.testing.assert_array_equal(model.predict_proba(texts), outcome.model.predict_proba(texts))
    assert list(model.predict(texts)) == ["good", "bad"]


# Bad input: each in one line that says what was seen and what to do


def refused(path: Path, *words: str, error: type[GraftworkError] = RequestError, **options: Any) -> None:
    with pytest.raises(error) as caught:
        opened(path, **options).features(tiny.image_rows(1))
    said = str(caught.value)
    assert "\n" not in said and all(word in said for word in words), said


def test_a_missing_external_file_is_named(tmp_path: Path) -> None:
    path = tiny_onnx.external(tmp_path / "model.onnx")
    assert set(find(str(path)).weights) == {"model.onnx", "model.onnx_data"}
    (tmp_path / "model.onnx_data").unlink()
    refused(path, "model.onnx_data", "fetch", error=ArtefactError)


def test_a_truncated_external_file_is_refused(tmp_path: Path) -> None:
    path = tiny_onnx.external(tmp_path / "model.onnx")
    (tmp_path / "model.onnx_data").write_bytes(b"1234")
    refused(path, "model.onnx")


def test_weights_outside_the_folder_are_refused(tmp_path: Path) -> None:
    import onnx

    path = tiny_onnx.external(tmp_path / "model.onnx")
    model = onnx.load(path, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = "../../secret"
    path.write_bytes(model.SerializeToString())
    refused(path, "outside its folder", "../../secret", error=ArtefactError)


def test_custom_operators_are_named_with_their_domain(tmp_path: Path) -> None:
    refused(tiny_onnx.custom(tmp_path / "net.onnx"), "'Magic'", "'com.example'")


def test_unknown_operators_of_the_standard_are_refused(tmp_path: Path) -> None:
    from onnx import helper

    nodes = [helper.make_node("Invented", ["pixels"], ["embedding"])]
    inputs = {"pixels": (TensorProto.FLOAT, [1, 3, 32, 32])}
    refused(tiny_onnx.save(tmp_path / "net.onnx", nodes, inputs, {"embedding": None}, {}), "Invented")


def test_unknown_inputs_are_listed_beside_those_that_can_be_given(tmp_path: Path) -> None:
    refused(tiny_onnx.texts(tmp_path, extra="past_values"), "past_values", "attention_mask", "token_type_ids")


def test_texts_without_their_tokenizer_are_refused(tmp_path: Path) -> None:
    (tiny_onnx.texts(tmp_path) / "tokenizer.json").unlink()
    refused(tmp_path / "model.onnx", "tokenizer.json", "beside")


@pytest.mark.parametrize("shape", [["N", 4], ["N", 1, 28, 28], ["N", 80, 3000], []])
def test_inputs_that_cannot_be_told_are_refused_with_what_to_put_beside(tmp_path: Path, shape: Any) -> None:
    from onnx import helper

    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    path = tiny_onnx.save(tmp_path / "net.onnx", nodes, {"x": (TensorProto.FLOAT, shape)}, {"y": None}, {})
    refused(path, "x float32", "preprocessor_config.json", "tokenizer.json")


@pytest.mark.parametrize(
    "content,word",
    [
        (b"", "empty"),
        (b"<!doctype html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "git lfs pull"),
        (b'{"model_type": "bert"}', "no ONNX file"),
        (bytes(1000), "no ONNX file"),
    ],
)
def test_files_that_are_no_onnx_are_refused(tmp_path: Path, content: bytes, word: str) -> None:
    (tmp_path / "net.onnx").write_bytes(content)
    refused(tmp_path / "net.onnx", word, error=ArtefactError)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_file_is_said_to_be_truncated(tmp_path: Path, share: float) -> None:
    path = tiny_onnx.pictures(tmp_path / "net.onnx")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    refused(path, "truncated", error=ArtefactError)


@pytest.mark.parametrize("versions", [{"opset": 99}, {"ir": 99}])
def test_a_file_newer_than_the_runtime_says_what_to_install(tmp_path: Path, versions: dict[str, int]) -> None:
    from onnx import helper

    nodes = [helper.make_node("GlobalAveragePool", ["x"], ["embedding"])]
    inputs = {"x": (TensorProto.FLOAT, [1, 3, 32, 32])}
    path = tiny_onnx.save(tmp_path / "net.onnx", nodes, inputs, {"embedding": None}, {}, **versions)
    refused(path, "99", "pip install -U onnxruntime")


def test_several_files_in_a_folder_must_be_told_apart(tmp_path: Path) -> None:
    tiny_onnx.pictures(tmp_path / "a.onnx")
    tiny_onnx.pictures(tmp_path / "b.onnx")
    refused(tmp_path, "a.onnx, b.onnx")
    tiny_onnx.pictures(tmp_path / "model.onnx")
    assert find(str(tmp_path)).weights == ("model.onnx",)


def test_options_that_do_not_apply_are_refused(tmp_path: Path) -> None:
    pictures = tiny_onnx.pictures(tmp_path / "net.onnx")
    refused(pictures, "onnxruntime", "--runtime", runtime="torch")
    refused(pictures, "no pooling 'most'", "mean", pooling="most")
    refused(pictures, "one vector a row", pooling="mean")
    refused(pictures, "no resize 'big'", resize="big")
    refused(tiny_onnx.texts(tmp_path / "texts"), "--resize", resize="fit")
    refused(tmp_path / "texts", "flatten", pooling="flatten")


def test_a_preprocessor_of_another_network_is_refused(tmp_path: Path) -> None:
    tiny_onnx.pictures(tmp_path / "model.onnx")
    tiny.write(tmp_path / "preprocessor_config.json", tiny.processor(64, 48))
    refused(tmp_path, "32 x 32", "48 x 48")


def test_without_onnxruntime_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import PackageNotFoundError

    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("graftwork.backbones.onnx_session.version", absent)
    refused(tiny_onnx.pictures(tmp_path / "net.onnx", seed=77), "graftwork[onnx]", error=MissingExtra)


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_damage_to_a_file_brings_another_error_than_ours(tmp_path: Path, data: st.DataObject) -> None:
    whole = tmp_path / "whole.onnx"
    content = bytearray((whole if whole.exists() else tiny_onnx.pictures(whole, classes=3)).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    try:
        read(damaged, name="damaged")
    except GraftworkError as error:
        assert "\n" not in str(error)
