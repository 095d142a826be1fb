import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from graftwork import registry
from graftwork.backbones import restore
from graftwork.backbones.base import BackboneState
from graftwork.backbones.logmel import (
    BANDS,
    BLOCKS,
    FLOOR,
    LogMel,
    describe,
    listen,
    picture,
    spans,
    spectrogram,
)
from graftwork.datasets import rows_from_path
from graftwork.errors import ArtefactError
from graftwork.sounds import RATE, encode
from graftwork.store import Stored
from tiny_sounds import glides, rows_of


def tone(hertz: float, rate: int = RATE, seconds: float = 1.0, loud: float = 1.0) -> NDArray[np.float32]:
    return (loud * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def mel_bands(rate: int, size: int) -> NDArray[np.float64]:
    """(bands, frequencies): triangles on the mel scale, written down one by one."""
    top = min(8_000.0, rate / 2)
    mels = np.linspace(2595 * np.log10(1 + 20 / 700), 2595 * np.log10(1 + top / 700), BANDS + 2)
    hertz = 700 * (10 ** (mels / 2595) - 1)
    found = np.zeros((BANDS, size // 2 + 1))
    for band in range(BANDS):
        left, peak, right = hertz[band : band + 3]
        for k in range(size // 2 + 1):
            f = k * rate / size
            found[band, k] = max(0.0, min((f - left) / (peak - left), (right - f) / (right - peak)))
    return found


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_the_spectrogram_is_the_one_of_its_definition(rate: int) -> None:
    samples = np.random.default_rng(0).normal(size=rate // 4).astype(np.float32) * 0.1
    found = spectrogram(samples, rate)
    length, hop = round(0.025 * rate), round(rate / 100)
    size = 2 ** int(np.ceil(np.log2(length)))
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    padded = np.concatenate([np.zeros(length // 2), samples, np.zeros(length)])
    frames = 1 + len(samples) // hop
    power = np.array(
        [
            np.abs(np.fft.rfft(padded[t * hop :][:length] * window * 2 / window.sum(), size)) ** 2
            for t in range(frames)
        ]
    )
    expected = 10 * np.log10(np.maximum(power @ mel_bands(rate, size).T, 1e-10))
    assert found.shape == (frames, BANDS) and found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=0.01)


def test_a_full_scale_tone_is_near_zero_decibels_in_its_band() -> None:
    found = spectrogram(tone(1_000), RATE)[10:-10]
    assert abs(found.max() - 0) < 1.5
    bands = mel_bands(RATE, 512)
    assert found.mean(axis=0).argmax() == bands[:, round(1_000 * 512 / RATE)].argmax()
    quieter = spectrogram(tone(1_000, loud=0.1), RATE)[10:-10]
    assert abs(found.max() - quieter.max() - 20) < 0.01


@pytest.mark.parametrize("samples", [1, 2, 150, 401])
def test_the_shortest_recordings_and_silence_have_finite_numbers(samples: int) -> None:
    silence = spectrogram(np.zeros(samples, dtype=np.float32), RATE)
    assert (silence == FLOOR).all()
    for spectrum in (silence, spectrogram(tone(700)[:samples], RATE)):
        assert np.isfinite(describe(spectrum, samples / RATE)).all()


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 10_000))
def test_spans_are_means_over_equal_shares_of_time(frames: int, count: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=(frames, 3)).astype(np.float32)
    # independently: every frame repeated `count` times falls into whole spans
    expected = np.repeat(values, count, axis=0).reshape(count, frames, 3).mean(axis=1)
    np.testing.assert_allclose(spans(values, count), expected, atol=1e-5)


def test_loudness_and_sample_rate_hardly_matter_but_what_is_heard_does() -> None:
    def of(samples: NDArray[np.float32], rate: int = RATE) -> NDArray[np.float32]:
        found = describe(listen(io.BytesIO(encode(samples, rate, exact=True))), 1.0)
        return np.delete(found, np.r_[BLOCKS["whole"]])

    rng = np.random.default_rng(0)
    samples = tone(600, loud=0.4) * np.linspace(0, 1, RATE, dtype=np.float32)
    samples += 0.01 * rng.normal(size=RATE).astype(np.float32)
    here = of(samples)
    assert np.abs(of(samples / 4) - here).max() < 0.1
    assert np.linalg.norm(of(samples[::-1].copy()) - here) > 20 * np.linalg.norm(of(samples / 4) - here)


def test_pictures_show_time_to_the_right_and_pitch_upwards() -> None:
    rising = np.concatenate([tone(300, seconds=0.5), tone(3_000, seconds=0.5)])
    shown = picture(spectrogram(rising, RATE), 32)
    assert shown.shape == (32, 32) and shown.dtype == np.uint8 and shown.max() > 200
    assert shown[:, 3].argmax() > shown[:, -4].argmax() + 5


def test_features_do_not_know_their_neighbours_and_name_what_cannot_be_read(tmp_path: Path) -> None:
    contents, _ = glides(3)
    backbone = LogMel()
    found = backbone.features(rows_of([*contents[:4], b"no sound", *contents[4:]]))
    assert list(found.unreadable) == [4] and "not a sound" in found.unreadable[4]
    assert np.isnan(found.matrix[4]).all() and found.matrix.shape == (10, backbone.width)
    alone = np.concatenate([backbone.features(rows_of([content])).matrix for content in contents])
    np.testing.assert_array_equal(np.delete(found.matrix, 4, axis=0), alone)
    stored = Stored(backbone, tmp_path)
    assert np.array_equal(stored.features(rows_of(contents)).matrix, alone)
    assert np.array_equal(stored.features(rows_of(contents)).matrix, alone)


def test_the_number_of_threads_changes_no_bit() -> None:
    threadpoolctl = pytest.importorskip("threadpoolctl")
    rows = rows_of(glides(2)[0])
    found = []
    for threads in (1, 2):
        with threadpoolctl.threadpool_limits(threads):
            found.append(LogMel().features(rows).matrix)
    assert np.array_equal(*found)


def test_it_is_registered_and_restored_but_not_from_another_version() -> None:
    backbone = restore(LogMel().state())
    assert (backbone.kind, backbone.fingerprint) == ("audio", LogMel().fingerprint)
    assert "logmel" in registry.names("backbones")
    with pytest.raises(ArtefactError, match="version 0"):
        restore(BackboneState("logmel", {"version": 0}))


def test_blocks_cover_the_features_once() -> None:
    covered = np.concatenate([np.r_[block] for block in BLOCKS.values()])
    assert np.array_equal(covered, np.arange(LogMel().width))


def test_real_digits_differ_more_than_a_digit_from_itself(real_data: Path) -> None:
    rows = rows_from_path(real_data / "spoken_digits" / "test" / "8", "audio")
    found = LogMel().features(rows)
    assert not found.unreadable and len(np.unique(found.matrix, axis=0)) == len(rows)
