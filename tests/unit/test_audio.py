"""Audio encoders: each held against the plain computation of transformers on the same samples."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import tiny
import tiny_audio
from graftwork import sounds
from graftwork.backbones import audio, engine, hearing, open_backbone, restore
from graftwork.backbones.audio import Audio
from graftwork.backbones.quiet import quiet
from graftwork.errors import ArtefactError, RequestError
from graftwork.records import Progress
from graftwork.rows import Contents, Rows
from graftwork.sources import find
from tiny_audio import CHUNK, RATE, sound

Vector = NDArray[np.float32]
EVERY = sorted(tiny_audio.SOURCES)
NAMED = ["wav2vec2", "wav2vec2 layer", "hubert", "wavlm", "ast", "whisper"]
WHOLE = (720 + 640 * 12) / RATE
"""Seconds that are a whole number of frames for every encoder of samples, so that nothing is padded."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    place = tmp_path_factory.mktemp("audio models")

    def made(name: str) -> Path:
        folder = place / name.replace(" ", "_")
        return folder if folder.exists() else tiny_audio.SOURCES[name](folder)

    return made


def opened(folder: Path, rows: Rows | None = None, **options: Any) -> Audio:
    backbone = open_backbone(find(str(folder)), rows, **{"runtime": "torch", **options})
    assert isinstance(backbone, Audio)
    return backbone


def frames(folder: Path, samples: Vector) -> Vector:
    """(outputs, width) of transformers' own extractor and model for one window, those of sound alone."""
    import torch
    import transformers

    with quiet(), torch.inference_mode():
        extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
        model = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
        inputs = extractor(samples, sampling_rate=RATE, return_tensors="pt", return_attention_mask=True)
        if model.config.model_type == "whisper":
            last = model.encoder(inputs["input_features"]).last_hidden_state[0]
            return last[: int(inputs["attention_mask"].sum() + 1) // 2].numpy()
        last = model(inputs["input_values"]).last_hidden_state[0]
    if model.config.model_type == "audio-spectrogram-transformer":
        spectra = 1 + (len(samples) - 400) // 160
        grid = last[2:].reshape(4, 25, -1)  # 32 bands and 200 frames in patches of 8 by 8
        return grid[:, [t for t in range(25) if 8 * t < spectra]].flatten(0, 1).numpy()
    return last.numpy()


def tokens(folder: Path, samples: Vector) -> Vector:
    """The class tokens' mean, as the classifier of a spectrogram transformer takes them."""
    import torch
    import transformers

    with quiet(), torch.inference_mode():
        extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
        model = transformers.AutoModel.from_pretrained(folder).eval()
        output = model(extractor(samples, sampling_rate=RATE, return_tensors="pt")["input_values"])
    return output.pooler_output[0].numpy()


def held(samples: Vector, *more: Vector) -> Rows:
    contents = [sounds.encode(one, RATE, exact=True) for one in (samples, *more)]
    return Rows([f"{i}.wav" for i in range(len(contents))], {"audio": Contents("audio", contents)})


@pytest.mark.parametrize("name", EVERY)
def test_features_are_the_mean_that_transformers_gives(folders: Callable[[str], Path], name: str) -> None:
    samples = sound(WHOLE, seed=3)
    expected = frames(folders(name), samples).mean(0)
    found = opened(folders(name), pooling="mean").features(held(samples)).matrix[0]
    assert np.allclose(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["wav2vec2 layer", "data2vec", "ast", "whisper"])
def test_no_output_sees_the_samples_after_the_last_whole_frame(
    folders: Callable[[str], Path], name: str
) -> None:
    rows = tiny_audio.rows(0.14, 0.333, 1.0)
    expected = np.stack([frames(folders(name), samples).mean(0) for samples in _samples(rows)])
    found = opened(folders(name), pooling="mean").features(rows).matrix
    assert np.allclose(found, expected, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("name", NAMED)
def test_the_chosen_runtime_agrees_with_transformers(folders: Callable[[str], Path], name: str) -> None:
    rows = tiny_audio.rows(*np.linspace(0.3, 1.6, 16))
    backbone = opened(folders(name), rows, runtime=None, pooling="mean")
    expected = np.stack([frames(folders(name), samples).mean(0) for samples in _samples(rows)])
    cosines = engine.cosines(expected, backbone.features(rows).matrix)
    assert backbone.config["runtime"] == "openvino"
    assert cosines.mean() >= engine.MEAN_COSINE and cosines.min() >= engine.MINIMUM_COSINE


def _samples(rows: Rows) -> Iterator[Vector]:
    for i in range(len(rows)):
        yield sounds.decode(rows.column.open(i))


@pytest.mark.parametrize("name", ["wav2vec2", "ast", "whisper"])
def test_a_long_recording_is_the_mean_of_its_windows(folders: Callable[[str], Path], name: str) -> None:
    window = CHUNK * RATE if name in ("ast", "whisper") else 400 + 320 * 499
    samples = sound((2 * window + 720 + 640 * 39) / RATE, seed=5)
    parts = [samples[:window], samples[window : 2 * window], samples[2 * window :]]
    expected = sum(len(part) / len(samples) * frames(folders(name), part).mean(0) for part in parts)
    found = opened(folders(name), pooling="mean").features(held(samples)).matrix[0]
    assert np.allclose(found, expected, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("name", ["hubert", "ast", "whisper"])
def test_meanstd_adds_the_deviation_over_time(folders: Callable[[str], Path], name: str) -> None:
    samples = sound(WHOLE, seed=6)
    outputs = frames(folders(name), samples)
    found = opened(folders(name), pooling="meanstd").features(held(samples)).matrix[0]
    assert np.allclose(found, np.concatenate([outputs.mean(0), outputs.std(0)]), rtol=1e-3, atol=2e-4)


def test_a_spectrogram_transformer_gives_its_class_tokens(folders: Callable[[str], Path]) -> None:
    samples = sound(1.3, seed=7)
    expected = tokens(folders("ast"), samples)
    for pooling in ("auto", "cls"):
        found = opened(folders("ast"), pooling=pooling).features(held(samples)).matrix[0]
        assert np.allclose(found, expected, rtol=1e-3, atol=1e-4)


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=5),
    st.integers(0, 1000),
)
def test_windows_joined_are_the_mean_and_deviation_of_the_whole(lengths: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = [rng.normal(rng.normal(), 1, (length, 3)).astype(np.float32) for length in lengths]
    each = np.stack([np.concatenate([part.mean(0), part.std(0)]) for part in parts])
    whole = np.concatenate(parts)
    found = audio.joined(each, np.array(lengths, float), "meanstd")
    assert np.allclose(found, np.concatenate([whole.mean(0), whole.std(0)]), atol=1e-5)
    assert np.allclose(audio.joined(each[:, :3], np.array(lengths, float), "mean"), whole.mean(0), atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3 * RATE), st.integers(0, 1000), st.sampled_from([1e-4, 0.1, 1.0]))
def test_spectra_are_those_of_transformers_own_extractors(length: int, seed: int, loud: float) -> None:
    import transformers

    samples = (loud * np.random.default_rng(seed).uniform(-1, 1, length)).astype(np.float32)
    whisper = transformers.WhisperFeatureExtractor(feature_size=80, chunk_length=3)
    expected = whisper(samples, sampling_rate=RATE, return_tensors="np", return_attention_mask=True)
    spectrum, steps = hearing.LogMel(RATE, 3.0, 1, 80, 300, 160, 400).hear(samples)
    assert np.allclose(spectrum, expected["input_features"], atol=2e-4)
    assert steps == -(-expected["attention_mask"].sum() // 2)
    with quiet():  # its lowest bands hold nothing, and it says so
        spectrogram = transformers.ASTFeatureExtractor(max_length=300)
    filled = np.pad(samples, (0, max(0, 400 - length)))  # it knows no recording under 25 ms
    expected = spectrogram(filled, sampling_rate=RATE, return_tensors="np")["input_values"]
    ear = hearing.Filterbank(RATE, 3.0, 1, 128, 300, 10, 29, spectrogram.mean, spectrogram.std)
    assert np.allclose(ear.hear(samples)[0], expected, atol=2e-4)


@given(st.integers(1, 5000), st.booleans())
def test_samples_are_cut_to_whole_frames(length: int, normalise: bool) -> None:
    samples = np.random.default_rng(length).normal(0.3, 0.1, length).astype(np.float32)
    (found,) = hearing.Waves(RATE, 10.0, 30, normalise, 400, 320).hear(samples)
    size = found.shape[1]
    assert (size - 400) % 320 == 0 and 0 <= max(length, 400) - size < 320
    expected = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7) if normalise else samples
    assert np.allclose(found[0, :length], expected[:size], atol=1e-6)
    assert not found[0, length:].any()


@pytest.mark.parametrize(("kernels", "strides", "squeeze"), [((10, 3, 2), (5, 2, 2), 1), ((4, 3), (2, 3), 2)])
def test_the_step_of_samples_is_what_the_convolutions_consume(
    kernels: tuple[int, ...], strides: tuple[int, ...], squeeze: int
) -> None:
    def outputs(length: int) -> int:
        for kernel, stride in zip(kernels, strides, strict=True):
            length = (length - kernel) // stride + 1
        return length // squeeze

    config = {"conv_kernel": kernels, "conv_stride": strides, "squeeze_factor": squeeze}
    ear = hearing._waves(config, {"sampling_rate": RATE})
    for k in range(5):
        length = ear.least + k * ear.step
        assert (outputs(length - 1), outputs(length)) == (k, k + 1)


@pytest.mark.parametrize("name", ["wav2vec2", "wavlm", "ast", "whisper"])
@pytest.mark.parametrize("runtime", ["openvino", "torch"])
def test_a_recording_has_the_same_bits_whatever_its_neighbours(
    folders: Callable[[str], Path], name: str, runtime: str
) -> None:
    rows = tiny_audio.rows(0.3, 2.5, 0.14, 11.3, 1.0, 4.1, 0.8)
    backbone = opened(folders(name), rows, runtime=runtime)
    assert backbone.config["runtime"] == runtime
    whole = backbone.features(rows).matrix
    order = np.random.default_rng(1).permutation(len(rows))
    assert np.array_equal(backbone.features(rows.take(order)).matrix, whole[order])
    assert np.array_equal(backbone.features(rows.take(np.array([3]))).matrix[0], whole[3])
    again = restore(backbone.state())
    assert again.fingerprint == backbone.fingerprint
    assert np.array_equal(again.features(rows).matrix, whole)
    assert json.loads(json.dumps(dict(backbone.config))) == dict(backbone.config)


def test_windows_come_in_any_order_and_are_joined_in_theirs() -> None:
    out = np.zeros((2, 2), np.float32)
    heard: list[Progress] = []
    rows = audio._Joined(out, "mean", 3, heard.append)
    rows.expect(0, np.array([1.0, 1.0, 2.0]))
    rows.expect(1, np.array([1.0]))
    memory = np.array([[4.0, 0.0]], np.float32)
    rows.put(np.array([2]), memory)
    memory[:] = 8
    rows.put(np.array([0, 3]), np.array([[0, 4], [5, 6]], np.float32))
    assert out.tolist() == [[0, 0], [5, 6]]
    rows.put(np.array([1]), memory)
    assert out.tolist() == [[4, 3], [5, 6]]


def test_a_gpu_gets_neighbouring_windows_of_one_shape_together() -> None:
    shapes = [3, 3, 3, 5, 3]
    batches = [(np.array([i]), (np.full((1, size), i),)) for i, size in enumerate(shapes)]
    found = list(audio._stacked(iter(batches), 2))
    assert [positions.tolist() for positions, _ in found] == [[0, 1], [2], [3], [4]]
    assert [arrays[0][:, 0].tolist() for _, arrays in found] == [[0, 1], [2], [3], [4]]
    assert [arrays[0].shape[1] for _, arrays in found] == [3, 3, 5, 3]


def test_runtimes_are_compared_on_no_more_sound_than_it_takes(
    folders: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = tiny_audio.rows(*[0.2] * 40)
    waves, whisper = opened(folders("hubert")), opened(folders("whisper"))
    assert (len(waves._inputs(rows)), len(whisper._inputs(rows))) == (40, 40)
    monkeypatch.setattr(audio, "PARITY_SECONDS", 6.1)
    assert (len(waves._inputs(rows)), len(whisper._inputs(rows))) == (31, 16)


def test_of_a_very_long_recording_so_much_is_heard(folders: Callable[[str], Path]) -> None:
    backbone = opened(folders("whisper"))
    config = {**backbone.config, "preprocessing": {**backbone.config["preprocessing"], "most": 3}}
    samples = sound(9 * CHUNK, seed=1)
    found = replace(backbone, config=config).features(held(samples)).matrix[0]
    size = CHUNK * RATE
    parts = [samples[start : start + size] for start in (0, 4 * size, 8 * size)]
    expected = backbone.features(held(np.concatenate(parts))).matrix[0]
    assert np.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", EVERY)
def test_a_moment_and_silence_have_features_too(folders: Callable[[str], Path], name: str) -> None:
    samples = sound(0.14)
    rows = held(samples, samples[:1], samples[:200], np.zeros(RATE, np.float32), np.zeros(1, np.float32))
    found = opened(folders(name)).features(rows)
    assert np.isfinite(found.matrix).all() and found.unreadable == {}


def test_what_cannot_be_read_is_named_and_leaves_the_others_alone(folders: Callable[[str], Path]) -> None:
    backbone = opened(folders("wav2vec2"))
    whole = tiny_audio.rows(0.5, 0.6)
    contents = [
        whole.column.read(0),
        b"no sound at all",
        whole.column.read(1),
        b"",
        whole.column.read(1)[:999],
    ]
    rows = Rows(list("abcde"), {"audio": Contents("audio", contents)})
    heard: list[Progress] = []
    found = backbone.features(rows, heard.append)
    assert list(found.unreadable) == [1, 3, 4]
    assert "is empty" in found.unreadable[3] and "truncated" in found.unreadable[4]
    assert np.isnan(found.matrix[[1, 3, 4]]).all()
    assert np.array_equal(found.matrix[[0, 2]], backbone.features(whole).matrix)
    assert heard[-1].done == heard[-1].total == 5


def test_loudness_counts_only_where_the_extractor_leaves_it(tmp_path: Path) -> None:
    samples = sound(0.5)
    for normalise in (True, False):
        folder = tiny_audio.waves(tmp_path / f"{normalise}", "wav2vec2 layer", do_normalize=normalise)
        loud, quiet_one = opened(folder).features(held(samples, samples / 8)).matrix
        assert np.allclose(loud, quiet_one, atol=1e-3) == normalise


def test_the_fingerprint_tells_poolings_and_preparations_apart(tmp_path: Path) -> None:
    folders = [tiny_audio.waves(tmp_path / f"{n}", "hubert", do_normalize=n) for n in (True, False)]
    found = {
        opened(folder, pooling=pooling).fingerprint for folder in folders for pooling in ("mean", "meanstd")
    }
    assert len(found) == 4
    assert opened(folders[0]).fingerprint in found


def test_the_half_of_whisper_that_writes_is_never_loaded(tmp_path: Path) -> None:
    samples = sound(0.9)
    found = []
    for ending in ("ForConditionalGeneration", "Model", "ForAudioClassification"):
        backbone = opened(tiny_audio.whisper(tmp_path / ending, ending=ending))
        parameters = dict(backbone.recipe.build().named_parameters())
        assert parameters and not [name for name in parameters if "decoder" in name]
        assert np.allclose(
            backbone.features(held(samples)).matrix, _whisper(tmp_path / ending, samples), atol=1e-3
        )
        found.append(backbone.fingerprint)
    assert len(set(found)) == 3


def _whisper(folder: Path, samples: Vector) -> Vector:
    from transformers import AutoModelForAudioClassification, WhisperModel

    if folder.name != "ForAudioClassification":
        return frames(folder, samples).mean(0)
    with quiet():
        encoder = AutoModelForAudioClassification.from_pretrained(folder).encoder
        model = WhisperModel(encoder.config)
        model.encoder.load_state_dict(encoder.state_dict())
        model.save_pretrained(folder / "whole")
    (folder / "whole" / "preprocessor_config.json").write_bytes(
        (folder / "preprocessor_config.json").read_bytes()
    )
    return frames(folder / "whole", samples).mean(0)


@pytest.mark.parametrize("ending", ["ForCTC", "ForSequenceClassification", "ForPreTraining"])
def test_a_model_with_a_task_of_its_own_is_heard_without_it(tmp_path: Path, ending: str) -> None:
    folder = tiny_audio.waves(tmp_path / "model", "wav2vec2", ending=ending)
    samples = sound(WHOLE)
    expected = frames(folder, samples).mean(0)
    assert np.allclose(opened(folder).features(held(samples)).matrix[0], expected, rtol=1e-3, atol=1e-4)


def _rewritten(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    from safetensors.torch import load_file, save_file

    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors", {"format": "pt"})


def test_weights_under_their_older_names_give_the_same_features(tmp_path: Path) -> None:
    folder = tiny_audio.waves(tmp_path / "model", "wav2vec2")
    rows = held(sound(0.5))
    before = opened(folder).features(rows).matrix

    def older(weights: dict[str, Any]) -> dict[str, Any]:
        names = {
            "parametrizations.weight.original0": "weight_g",
            "parametrizations.weight.original1": "weight_v",
        }
        renamed = {}
        for name, value in weights.items():
            for new, old in names.items():
                name = name.replace(new, old)
            renamed[f"wav2vec2.{name}"] = value
        assert any(name.endswith("conv.weight_g") for name in renamed)
        return renamed

    _rewritten(folder, older)
    assert np.array_equal(opened(folder).features(rows).matrix, before)


def test_only_weights_that_are_used_must_be_there(tmp_path: Path) -> None:
    folder = tiny_audio.waves(tmp_path / "model", "wav2vec2")
    rows = held(sound(0.5))
    before = opened(folder).features(rows).matrix
    _rewritten(folder, lambda weights: {k: v for k, v in weights.items() if k != "masked_spec_embed"})
    assert np.array_equal(opened(folder).features(rows).matrix, before)
    _rewritten(folder, lambda weights: {k: v for k, v in weights.items() if "pos_conv_embed" not in k})
    with pytest.raises(ArtefactError, match=r"lack 3 tensors .* first 'encoder.pos_conv_embed"):
        opened(folder)


def test_a_whisper_without_its_encoders_weights_is_refused(tmp_path: Path) -> None:
    folder = tiny_audio.whisper(tmp_path / "model")
    _rewritten(folder, lambda weights: {k: v for k, v in weights.items() if "encoder.conv1" not in k})
    with pytest.raises(ArtefactError, match=r"lack 2 tensors .* first 'encoder.conv1"):
        opened(folder)


def test_how_recordings_are_prepared_may_be_written_as_transformers_5_does(tmp_path: Path) -> None:
    folder = tiny_audio.waves(tmp_path / "model", "wav2vec2")
    rows = held(sound(0.5))
    before = opened(folder).features(rows).matrix
    stated = json.loads((folder / "preprocessor_config.json").read_text("utf-8"))
    (folder / "preprocessor_config.json").unlink()
    tiny.write(folder / "processor_config.json", {"feature_extractor": stated, "processor_class": "X"})
    tiny.write(folder / "tokenizer.json", {})
    assert np.array_equal(opened(folder).features(rows).matrix, before)


@pytest.mark.parametrize("name", ["wav2vec2", "ast", "whisper"])
def test_a_source_that_does_not_say_how_recordings_are_prepared_is_refused(tmp_path: Path, name: str) -> None:
    folder = tiny_audio.SOURCES[name](tmp_path / "model")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ArtefactError, match=r"lacks preprocessor_config\.json"):
        find(str(folder))


def test_other_architectures_are_refused_in_a_line(tmp_path: Path) -> None:
    folder = tiny_audio.waves(tmp_path / "model", "wav2vec2")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    tiny.write(folder / "config.json", {"model_type": "clap", "text_config": {}, "audio_config": {}})
    with pytest.raises(RequestError, match=r"\(clap\) takes recordings and texts together"):
        find(str(folder))
    tiny.write(folder / "config.json", {"model_type": "encodec"})
    with pytest.raises(RequestError, match=r"is a encodec; expected .* audio-spectrogram-transformer"):
        opened(folder)
    tiny.write(folder / "config.json", {k: v for k, v in config.items() if k != "conv_kernel"})
    with pytest.raises(ArtefactError, match="lacks 'conv_kernel'"):
        opened(folder)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pooling": "cls"}, "has no class token; try pooling auto, mean or meanstd"),
        ({"pooling": "max"}, "no pooling 'max' for recordings"),
        ({"resize": "fit"}, "takes recordings, which have no size"),
    ],
)
def test_what_recordings_do_not_know_is_refused(
    folders: Callable[[str], Path], options: dict[str, str], said: str
) -> None:
    with pytest.raises(RequestError, match=said):
        opened(folders("wav2vec2"), **options)


def test_nothing_of_torchaudio_is_asked_for(
    folders: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torchaudio", None)
    for name in ("ast", "whisper"):
        assert np.isfinite(opened(folders(name)).features(held(sound(0.4))).matrix).all()
