import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from numpy.typing import NDArray

from graftwork.datasets import load
from graftwork.datasets.duplicates import near_recordings
from graftwork.errors import RequestError
from graftwork.inspection import in_words, inspect, prepare
from graftwork.sounds import encode
from graftwork.store import remember
from tiny_sounds import RATE, glide

RNG = np.random.default_rng(0)


def sounds(count: int, seconds: float = 0.5) -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(1)
    return [np.concatenate([glide(int(k), rng, seconds) for k in rng.permutation(3)]) for _ in range(count)]


def as_flac(samples: NDArray[np.float32], rate: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="FLAC")
    return file.getvalue()


def data_of(contents: list[bytes], **given: object):  # type: ignore[no-untyped-def]
    labels = [f"c{i % 2}" for i in range(len(contents))]
    return load(contents, labels=labels, **given)  # type: ignore[arg-type]


def test_lengths_rates_and_silence_are_said() -> None:
    contents = [encode(samples, RATE) for samples in sounds(20)]
    contents += [encode(np.zeros(4_000), RATE), encode(0.3 * RNG.normal(size=32_000), 2 * RATE)]
    found = inspect(data_of(contents))
    heard = found.recordings
    assert heard is not None and heard.silent == ("item 21",) and heard.long == 0
    assert heard.rates == {RATE: 21, 2 * RATE: 1}
    assert heard.shortest == pytest.approx(0.5, rel=1e-4) and heard.longest == pytest.approx(2, rel=1e-4)
    said = "\n".join(found.warnings)
    assert "silent recordings: 1, such as item 21" in said
    assert f"different sample rates ({RATE} Hz 21 times, {2 * RATE} Hz 1 times)" in said
    assert "lengths: 0.5 s to 2.0 s" in in_words(found)
    assert found.to_json()["recordings"]["rates"] == {RATE: 21, 2 * RATE: 1}


def test_long_recordings_are_said() -> None:
    long = np.tile(sounds(1)[0], 100)
    found = inspect(data_of([encode(samples, RATE) for samples in (*sounds(5), long)]))
    assert any("recordings longer than two minutes: 1 (the longest 2 min" in one for one in found.warnings)


def test_ordinary_recordings_have_nothing_to_be_said_of() -> None:
    found = inspect(data_of([encode(samples, RATE) for samples in sounds(20)]))
    assert found.warnings == () and found.near.within == 0


def test_copies_of_other_loudness_rate_and_format_are_kept_together() -> None:
    originals = sounds(12)
    copies = [
        encode(originals[0] * 0.5, RATE),
        encode(soxr.resample(originals[1], RATE, 16_000), 16_000),
        as_flac(originals[2], RATE),
        encode(originals[3], RATE),
    ]
    data = data_of([encode(samples, RATE) for samples in originals] + copies)
    found = inspect(data)
    assert [found.groups[12 + i] == found.groups[i] for i in range(4)] == [True] * 4
    assert len(np.unique(found.groups)) == 12
    assert (found.exact.within, found.near.within) == (1, 3)


def test_what_stands_still_is_never_a_copy() -> None:
    rng = np.random.default_rng(2)
    hiss = [encode(0.2 * rng.normal(size=16_000), RATE) for _ in range(6)]
    hum = [encode(0.2 * np.sin(np.arange(8_000) * (0.3 + 0.03 * i)), RATE) for i in range(6)]
    found = inspect(data_of([*hiss, *hum]))
    assert found.near.within == 0


def test_near_recordings_need_like_lengths() -> None:
    courses = np.random.default_rng(0).normal(size=(1, 10, 20)).astype(np.float32) * 10
    both = np.repeat(courses, 2, axis=0)
    assert near_recordings(both, np.array([0, 0.01], dtype=np.float32)).tolist() == [[0, 1]]
    assert not len(near_recordings(both, np.array([0, 0.5], dtype=np.float32)))
    assert not len(near_recordings(both[:0], np.zeros(0, dtype=np.float32)))


def test_unreadable_recordings_are_named_and_left_out() -> None:
    contents = [encode(samples, RATE) for samples in sounds(30)]
    found = inspect(data_of([*contents, contents[0][:900]]))
    assert found.unreadable == {"item 31": "is truncated (900 of " + f"{len(contents[0]):,} bytes are there)"}
    with pytest.raises(RequestError, match="4 of 6 rows cannot be read"):
        bad = data_of([contents[0], contents[1], b"", b"x", b"RIFF", b"\0" * 99])
        prepare(bad, inspect(bad))
    with pytest.raises(RequestError, match=r"has no readable row.*expected recordings"):
        prepare(data_of([b"RIFF0000WAVE"] * 2), inspect(data_of([b"RIFF0000WAVE"] * 2)))


def test_looking_again_computes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    data = data_of([encode(samples, RATE) for samples in sounds(4)])
    first = inspect(data, remember)
    monkeypatch.setattr("graftwork.backbones.logmel.describe", None)
    assert inspect(data, remember) == first


def test_groups_on_both_sides_of_a_given_split_are_said_when_looking() -> None:
    contents = [encode(samples, RATE) for samples in sounds(8)]
    split = ["train"] * 4 + ["test"] * 4
    found = inspect(data_of(contents, split=split, group=["ann", "ben", "ann", "ben"] * 2))
    assert "groups both in test and in what is learnt from: 2" in found.warnings
    found = inspect(data_of(contents, split=split, group=["ann"] * 4 + ["ben"] * 4))
    assert not found.warnings


def test_real_digits_by_speaker_share_speakers_between_parts(real_data: Path) -> None:
    found = inspect(load(real_data / "spoken_digits" / "metadata.csv", group="speaker"))
    assert found.warnings == ("groups both in test and in what is learnt from: 6",)
    assert found.recordings is not None and found.recordings.rates == {8_000: 1_500}
    assert (found.exact.within, found.near.within, found.unreadable) == (0, 0, {})
