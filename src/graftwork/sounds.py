"""Decoding of recordings: a file of any common format -> mono samples at a wanted rate, or a reason why not.

libsndfile decodes WAV, FLAC, OGG, MP3 and AIFF by their content, whatever the file is called; soxr
resamples. Files are read through `BufferedIOBase`, so a recording may be larger than memory.
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import SEEK_END, SEEK_SET, BufferedIOBase

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from graftwork.errors import Unreadable
from graftwork.signatures import looks_like

Samples = NDArray[np.float32]
RATE = 16_000
"""Samples a second that most networks for speech and sound take."""
RATES = range(100, 1_000_001)
"""Samples a second that a recording may have."""

DECODERS = f"soundfile {soundfile.__libsndfile_version__} soxr {soxr.__version__}"
"""What decides the samples that a file gives; for fingerprints."""

_BLOCK = 1 << 18
_LEAST_REST = 0.1
# Floating-point files may overshoot a little; sixteen times full scale is another scale
_LOUDEST = 16.0
# Chunk sizes from here on are what programs write that do not know the length yet
_UNKNOWN_SIZE = 0x7FFF_0000
_UNKNOWN_FRAMES = 1 << 60


@dataclass(frozen=True)
class Sound:
    """What a recording's header says. rate: frames a second; a frame holds a sample of each channel."""

    rate: int
    channels: int
    frames: int

    @property
    def seconds(self) -> float:
        return self.frames / self.rate


def look(file: BufferedIOBase) -> Sound:
    """The header of a recording.

    Raises Unreadable, with a short reason that follows the file's name in a sentence: empty, not a
    sound, without samples, or truncated where that shows without decoding it all (WAV, AIFF, FLAC and
    most MP3).
    """
    with _opened(file) as sound:
        return Sound(sound.samplerate, sound.channels, sound.frames)


def decode(file: BufferedIOBase, rate: int = RATE, most: float | None = None) -> Samples:
    """All samples (n,) in -1..1 at `rate`, the channels averaged; the first `most` seconds if given.

    Raises Unreadable: what `look` raises, truncated, damaged, samples that are no numbers.
    """
    with _opened(file) as sound:
        frames = sound.frames if most is None else min(sound.frames, max(1, round(most * sound.samplerate)))
        return _part(sound, 0, frames, rate)


def windows(file: BufferedIOBase, rate: int, seconds: float, most: int) -> list[Samples]:
    """Consecutive windows of `seconds` at `rate`, in -1..1, the channels averaged; the last is shorter.

    A rest of less than a tenth of a window is dropped unless it is all there is. Of more than `most`
    windows, `most` evenly spread over the recording are read, by seeking. Raises Unreadable as `decode`.
    """
    with _opened(file) as sound:
        length = max(1, round(seconds * sound.samplerate))
        whole, rest = divmod(sound.frames, length)
        count = whole + (rest >= _LEAST_REST * length or not whole)
        if count > most:
            starts = np.linspace(0, sound.frames - length, most).round().astype(np.int64)
        else:
            starts = np.arange(count) * length
        full = round(seconds * rate)
        found = []
        for start in starts.tolist():
            part = _part(sound, start, min(length, sound.frames - start), rate)
            # rounding may leave a full window one sample off
            found.append(part if start + length > sound.frames else _of_length(part, full))
        return found


def encode(samples: NDArray[np.floating], rate: int, *, exact: bool = False) -> bytes:
    """Mono samples (n,) in -1..1 as a WAV file that browsers play: 16 bits a sample.

    exact: as 32-bit floats instead, without loss. The same samples always give the same bytes.
    """
    if exact:
        body = samples.astype("<f4").tobytes()
    else:
        body = (np.clip(samples, -1, 1) * 32767).round().astype("<i2").tobytes()
    width = 4 if exact else 2
    layout = struct.pack("<IHHIIHH", 16, 3 if exact else 1, 1, rate, rate * width, width, 8 * width)
    data = b"data" + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", 12 + len(layout) + len(data) - 4) + b"WAVEfmt " + layout + data


class _View:
    """What libsndfile reads through: nameless (it believes names), keeping the error that C cannot pass."""

    def __init__(self, file: BufferedIOBase) -> None:
        self.seek, self.tell, self._read = file.seek, file.tell, file.read
        self.error: OSError | None = None

    def read(self, count: int = -1) -> bytes:
        try:
            return self._read(count)
        except OSError as error:
            self.error = error
            return b""

    def refuse_error(self) -> None:
        """Raise Unreadable where the file could not be read."""
        if self.error is not None:
            reason = self.error.strerror or self.error
            raise Unreadable(f"cannot be read ({reason})") from self.error


@contextmanager
def _opened(file: BufferedIOBase) -> Iterator[soundfile.SoundFile]:
    """The recording, whose header holds what it should; whatever goes wrong inside is Unreadable."""
    view = _View(file)
    file.seek(0)
    head = view.read(512)
    size = file.seek(0, SEEK_END)
    if not size and view.error is None:
        raise Unreadable("is empty (0 bytes)")
    _refuse_truncated(file, head, size)
    file.seek(0)
    try:
        sound = soundfile.SoundFile(view)
    except soundfile.LibsndfileError as error:
        view.refuse_error()
        raise Unreadable(_not_a_sound(head)) from error
    try:
        with sound:
            _refuse_strange(sound)
            yield sound
    except (soundfile.LibsndfileError, Unreadable) as error:
        view.refuse_error()  # what libsndfile makes of a disk that fails is a file that ends
        if isinstance(error, Unreadable):
            raise
        said = error.error_string.strip().rstrip(".")
        raise Unreadable(f"is truncated or damaged ({said})") from error
    view.refuse_error()


def _not_a_sound(head: bytes) -> str:
    seen = looks_like(head).removeprefix("the beginning of ")
    if seen.endswith("sound"):
        return f"is truncated or damaged (it begins like {seen}, and nothing in it can be played)"
    return f"is not a sound that can be read (it looks like {seen})"


def _refuse_strange(sound: soundfile.SoundFile) -> None:
    if sound.frames <= 0:
        raise Unreadable("holds no samples (a header and nothing after it)")
    if sound.samplerate not in RATES:
        raise Unreadable(f"is damaged (a sample rate of {sound.samplerate:,} Hz)")
    if sound.frames >= _UNKNOWN_FRAMES:
        raise Unreadable(
            "does not say how long it is (it was written to a pipe); convert it to a file once more"
        )
    if sound.format == "FLAC":
        try:  # its header promises a length; only the last sample shows whether that much is there
            sound.seek(sound.frames - 1)
        except soundfile.LibsndfileError as error:
            raise Unreadable(f"is truncated (not all of its {sound.frames:,} frames are there)") from error


def _part(sound: soundfile.SoundFile, start: int, frames: int, rate: int) -> Samples:
    """`frames` frames from `start` on, averaged, at `rate`; block by block, for many channels take room."""
    sound.seek(start)
    resample = None
    if sound.samplerate != rate:
        resample = soxr.ResampleStream(sound.samplerate, rate, 1, dtype="float32")
    pieces: list[Samples] = []
    done = 0
    while done < frames:
        block = sound.read(min(_BLOCK, frames - done), dtype="float32", always_2d=True)
        done += len(block)
        short = not len(block) and done < frames
        if short and not _loose(sound):
            raise Unreadable(f"is truncated ({start + done:,} of {sound.frames:,} frames are there)")
        last = short or done == frames
        mono = _checked(block.mean(axis=1))
        pieces.append(mono if resample is None else resample.resample_chunk(mono, last=last))
        if last:
            break
    samples = np.concatenate(pieces)
    if not len(samples):
        raise Unreadable(f"is too short ({frames} frames at {sound.samplerate:,} Hz)")
    return np.clip(samples, -1, 1, out=samples)


def _loose(sound: soundfile.SoundFile) -> bool:
    """Whether the length is only an estimate, as in MP3; what its header promises is checked at the start."""
    return bool(sound.format == "MP3" or "MPEG" in sound.subtype)


def _checked(mono: Samples) -> Samples:
    loudest = float(np.abs(mono).max(initial=0))
    if not np.isfinite(loudest):
        raise Unreadable("holds samples that are no numbers (NaN or infinite)")
    if loudest > _LOUDEST:
        raise Unreadable(
            f"holds samples of up to {loudest:,.0f}; expected -1 to 1: divide them (16-bit ones by 32768)"
        )
    return mono


def _of_length(samples: Samples, length: int) -> Samples:
    return np.pad(samples[:length], (0, max(0, length - len(samples))))


# What headers promise beside the sound itself


def _refuse_truncated(file: BufferedIOBase, head: bytes, size: int) -> None:
    """Raise Unreadable where a WAV, AIFF or MP3 header names more bytes than there are.

    libsndfile takes what is there without a word.
    """
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        promised = _chunk(file, "<", b"data", size)
    elif head[:4] == b"FORM":
        promised = _chunk(file, ">", b"SSND", size)
    else:
        promised = _stream_end(file, head)
    if promised is not None and promised > size:
        raise Unreadable(f"is truncated ({size:,} of {promised:,} bytes are there)")


def _chunk(file: BufferedIOBase, order: str, wanted: bytes, size: int) -> int | None:
    """Where the chunk of that name should end; None where there is none or its length was not known."""
    at = 12
    while at + 8 <= size:
        file.seek(at, SEEK_SET)
        name, length = struct.unpack(f"{order}4sI", file.read(8))
        if name == wanted:
            return None if length >= _UNKNOWN_SIZE else at + 8 + length
        at += 8 + length + length % 2
    return None


def _stream_end(file: BufferedIOBase, head: bytes) -> int | None:
    """Where an MP3 stream should end, by the Xing or Info header in its first frame; None without one."""
    start = 0
    if head[:3] == b"ID3" and len(head) >= 10:
        tag = head[6:10]
        start = 10 + (tag[0] << 21 | tag[1] << 14 | tag[2] << 7 | tag[3])
        file.seek(start, SEEK_SET)
        head = file.read(64)
    if head[:1] != b"\xff" or len(head) < 4 or head[1] & 0xE0 != 0xE0:
        return None
    # the header lies behind the side information, whose size depends on version and channels
    at = max(head[:64].find(b"Xing"), head[:64].find(b"Info"))
    if at < 0 or len(head) < at + 16:
        return None
    flags, *numbers = struct.unpack(">3I", head[at + 4 : at + 16])
    if not flags & 2:
        return None
    return int(start + numbers[1 if flags & 1 else 0])
