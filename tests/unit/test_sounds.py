import io
import math
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from graftwork.errors import Unreadable
from graftwork.sounds import RATE, Sound, decode, encode, look, windows


def tone(seconds: float = 1.0, rate: int = RATE, hertz: float = 440.0) -> NDArray[np.float32]:
    return (0.4 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def written(
    samples: NDArray[np.generic], rate: int = RATE, form: str = "WAV", subtype: str | None = None
) -> io.BytesIO:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=form, subtype=subtype)
    file.seek(0)
    return file


def cut(file: io.BytesIO, share: float) -> io.BytesIO:
    content = file.getvalue()
    return io.BytesIO(content[: int(len(content) * share)])


FORMS = [
    ("WAV", "PCM_16"), ("WAV", "PCM_U8"), ("WAV", "PCM_24"), ("WAV", "FLOAT"), ("WAV", "ULAW"),
    ("FLAC", "PCM_16"), ("FLAC", "PCM_24"), ("AIFF", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
]  # fmt: skip


@pytest.mark.parametrize(("form", "subtype"), FORMS)
def test_every_common_format_is_heard_alike(form: str, subtype: str) -> None:
    found = decode(written(tone(), form=form, subtype=subtype))
    assert found.dtype == np.float32 and abs(len(found) - RATE) <= 1
    inner = slice(1000, -1000)  # lossy coders smear the edges
    assert np.corrcoef(found[:RATE][inner], tone()[: len(found)][inner])[0, 1] > 0.99


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 96_000])
def test_any_rate_is_resampled_to_the_one_asked_for(rate: int) -> None:
    found = decode(written(tone(0.5, rate), rate))
    assert abs(len(found) - RATE // 2) <= 1
    inner = slice(200, RATE // 2 - 200)
    np.testing.assert_allclose(found[inner], tone(0.5)[inner], atol=2e-3)


def test_channels_are_averaged() -> None:
    left, right = tone(0.2), tone(0.2, hertz=1_000)
    many = np.stack([left, right, *[np.zeros_like(left)] * 4], axis=1)
    found = decode(written(many, subtype="FLOAT"))
    np.testing.assert_allclose(found, (left + right) / 6, atol=1e-6)


def test_content_and_not_the_suffix_says_what_a_file_is(tmp_path: Path) -> None:
    for name in ("a.wav", "a.raw", "a.txt", "a"):
        path = tmp_path / name
        path.write_bytes(written(tone(), form="FLAC").getvalue())
        with path.open("rb") as file:
            assert look(file) == Sound(RATE, 1, RATE)


def test_a_header_says_rate_channels_and_length() -> None:
    found = look(written(np.zeros((400, 2)), 8_000))
    assert (found.rate, found.channels, found.frames, found.seconds) == (8_000, 2, 400, 0.05)


@pytest.mark.parametrize(("form", "subtype"), [one for one in FORMS if one[0] != "OGG"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_truncated_recordings_are_told(form: str, subtype: str, share: float) -> None:
    broken = cut(written(tone(), form=form, subtype=subtype), share)
    for read in (look, decode, lambda file: windows(file, RATE, 0.1, 5)):
        with pytest.raises(Unreadable, match="is truncated"):
            read(broken)


@pytest.mark.parametrize("form", ["WAV", "FLAC", "OGG", "MP3", "AIFF"])
def test_a_stump_of_a_recording_is_told(form: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Unreadable, match="is truncated"):
        decode(io.BytesIO(written(tone(), form=form).getvalue()[:60]))


def test_a_length_that_was_not_known_when_writing_is_no_truncation() -> None:
    content = bytearray(written(tone()).getvalue())
    content[4:8] = content[40:44] = b"\xff" * 4  # what programs write into a pipe
    assert len(decode(io.BytesIO(bytes(content)))) == RATE


def test_a_flac_from_a_pipe_says_what_to_do() -> None:
    content = bytearray(written(tone(), form="FLAC").getvalue())
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    with pytest.raises(Unreadable, match=r"how long it is.*convert"):
        decode(io.BytesIO(bytes(content)))


BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", r"is empty \(0 bytes\)"),
    "no samples": (written(np.zeros(0)).getvalue(), "holds no samples"),
    "a text": (b"just some words\n" * 100, r"is not a sound that can be read \(it looks like text\)"),
    "a picture": (b"\xff\xd8\xff\xe0" + b"0" * 500, "it looks like a JPEG"),
    "a web page": (b"<!DOCTYPE html><p>404", "it looks like a web page"),
    "an m4a": (b"\0\0\0\x20ftypM4A \0" + b"0" * 600, "an M4A recording; convert it to WAV or FLAC"),
    "zeros": (bytes(3000), "it looks like zero bytes"),
    "not numbers": (written(np.array([0, np.nan, 0.5]), subtype="FLOAT").getvalue(), "no numbers"),
    "infinite": (written(np.array([0, np.inf, 0.5]), subtype="FLOAT").getvalue(), "no numbers"),
    "another scale": (written(np.array([0, 30_000.0]), subtype="FLOAT").getvalue(), "up to 30,000; expected"),
    "too short": (written(np.zeros(2), 96_000).getvalue(), "too short .2 frames at 96,000 Hz."),
    "strange rate": (written(np.zeros(20), 3).getvalue(), "a sample rate of 3 Hz"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_recordings_are_unreadable_in_a_few_words(case: str) -> None:
    content, expected = BAD[case]
    with pytest.raises(Unreadable, match=expected) as refused:
        decode(io.BytesIO(content))
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 150


@pytest.mark.parametrize("form", ["WAV", "FLAC", "MP3"])
def test_a_disk_that_fails_is_said_and_not_taken_for_the_end(form: str) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 5_000:
                raise OSError(5, "Input/output error")
            return super().read(size)

    content = written(np.random.default_rng(0).uniform(-1, 1, 8 * RATE), form=form).getvalue()
    assert len(content) > 20_000
    with pytest.raises(Unreadable, match="Input/output error"):
        decode(Failing(content))


def test_samples_stay_within_one() -> None:
    square = np.sign(tone(0.3, 44_100))  # resampling overshoots at its edges
    found = decode(written(1.2 * square, 44_100, subtype="FLOAT"))
    assert np.abs(found).max() <= 1


def test_only_the_beginning_is_decoded_where_that_is_enough() -> None:
    assert abs(len(decode(written(tone(3.0, 44_100), 44_100), most=0.5)) - RATE // 2) <= 1


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3_000), st.floats(0.01, 0.2), st.integers(1, 40), st.sampled_from([8_000, 16_000]))
def test_windows_follow_one_another_and_their_rest(frames: int, seconds: float, most: int, rate: int) -> None:
    samples = np.linspace(-0.9, 0.9, frames).astype(np.float32)
    found = windows(written(samples, rate, subtype="FLOAT"), rate, seconds, most)
    length = max(1, round(seconds * rate))
    whole, rest = divmod(frames, length)
    # independently: how many there are, and each one's samples
    count = whole + (1 if not whole or rest >= 0.1 * length else 0)
    assert len(found) == min(count, most)
    if count <= most:
        for i, window in enumerate(found):
            np.testing.assert_array_equal(window, samples[i * length : (i + 1) * length])
    else:
        assert all(len(window) == length for window in found)
        firsts = [int(np.searchsorted(samples, window[0])) for window in found]
        gaps = np.diff(firsts)
        assert firsts[0] == 0 and (most == 1 or firsts[-1] == frames - length)
        assert len(gaps) == 0 or gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize("rate", [22_050, 44_100])
def test_full_windows_have_one_length_at_any_rate(rate: int) -> None:
    found = windows(written(tone(1.05, rate), rate), RATE, 0.33, 10)
    assert [len(window) for window in found[:3]] == [round(0.33 * RATE)] * 3


def test_three_hours_cost_neither_memory_nor_minutes(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    seconds, rate = 3 * 3600, 44_100
    size = 2 * seconds * rate
    with path.open("wb") as file:  # a hole in the file: it takes no room
        layout = struct.pack("<IHHIIHH", 16, 1, 1, rate, 2 * rate, 2, 16)
        file.write(b"RIFF" + struct.pack("<I", 36 + size) + b"WAVEfmt " + layout)
        file.write(b"data" + struct.pack("<I", size))
        file.truncate(44 + size)

    class Counting(io.FileIO):
        done = 0

        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
            got = super().readinto(buffer)
            self.done += got or 0
            return got or 0

    raw = Counting(path)
    with io.BufferedReader(raw) as file:
        assert look(file).seconds == seconds
        found = windows(file, RATE, 2.0, 6)
        assert [len(window) for window in found] == [2 * RATE] * 6
        assert raw.done < 0.01 * size


def test_encoded_samples_come_back() -> None:
    samples = tone(0.25)
    coarse, fine = encode(samples, RATE), encode(samples, RATE, exact=True)
    np.testing.assert_allclose(decode(io.BytesIO(coarse)), samples, atol=1 / 32_000)
    np.testing.assert_array_equal(decode(io.BytesIO(fine)), samples)
    assert len(coarse) == 44 + 2 * len(samples) and fine == encode(samples, RATE, exact=True)
    assert math.isclose(look(io.BytesIO(coarse)).seconds, 0.25)


def test_samples_beyond_one_are_clipped_when_encoded() -> None:
    np.testing.assert_allclose(
        decode(io.BytesIO(encode(np.array([3.0, -3.0, 0.0]), RATE))), [1, -1, 0], atol=1e-4
    )
