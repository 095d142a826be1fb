"""Log-mel statistics of recordings: hand-made numbers, a backbone without weights.

A recording is heard at 16 kHz, in windows of ten seconds (of a long one, twelve spread over it). Its
log-mel spectrogram (64 bands, a frame every 10 ms) is cut off 60 dB below its loudest point and
centred, so that how loud it was recorded does not matter. Of it are taken, one after another:

- `timbre`: mean, deviation and the 10%, 50% and 90% quantiles over time of each band;
- `movement`: of each band, the deviation of its change over 10 ms and over 40 ms;
- `course`: ten equal spans of time from the first to the last loud frame, each with 20 coefficients of
  its cosine transform over the bands (mel cepstrum; Davis and Mermelstein 1980);
- `whole`: the length in octaves above a second, the mean level and the loudest, in tens of decibels.
"""

import hashlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from io import BufferedIOBase
from types import MappingProxyType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from graftwork.backbones.ahead import in_order
from graftwork.backbones.base import BackboneState
from graftwork.errors import ArtefactError, Unreadable
from graftwork.records import Extraction, Features, Notify, Progress, silent
from graftwork.rows import Column, Kind, Rows
from graftwork.sounds import DECODERS, RATE, look, windows

Floats = NDArray[np.float32]
VERSION = 1
BANDS = 64
FRAMES_A_SECOND = 100
FLOOR = -100.0
"""Decibels of silence: below the rounding of 16-bit samples."""

_FRAME_SECONDS = 0.025
_LOWEST, _HIGHEST = 20.0, 8_000.0
RANGE = 60.0
"""Decibels below the loudest point of a recording that count."""
_LOUD = 40.0
_WINDOW_SECONDS, _MOST_WINDOWS = 10.0, 12
SPANS, CEPSTRA = 10, 20
_QUANTILES = (0.1, 0.5, 0.9)
_LAGS = (1, 4)
_BLOCK = 4_096
_CHUNK = 64

_WIDTHS = {
    "timbre": (2 + len(_QUANTILES)) * BANDS,
    "movement": len(_LAGS) * BANDS,
    "course": SPANS * CEPSTRA,
    "whole": 3,
}
_ENDS = np.cumsum(list(_WIDTHS.values())).tolist()
BLOCKS: Mapping[str, slice] = MappingProxyType(
    {name: slice(end - width, end) for (name, width), end in zip(_WIDTHS.items(), _ENDS, strict=True)}
)
"""Which columns of the features hold what."""


@dataclass(frozen=True)
class LogMel:
    """Frozen: it learns nothing, so the feature store may keep what it gives."""

    @property
    def kind(self) -> Kind:
        return "audio"

    @property
    def width(self) -> int:
        return int(_ENDS[-1])

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"logmel {VERSION} {DECODERS}".encode()).hexdigest()

    def features(self, rows: Rows, notify: Notify = silent) -> Features:
        """Features (rows, 651); a recording that cannot be decoded is named and holds NaN."""
        begun = time.perf_counter()
        values = np.full((len(rows), self.width), np.nan, dtype=np.float32)
        unreadable: dict[int, str] = {}
        for i, found in enumerate(_described(rows.column)):
            if isinstance(found, str):
                unreadable[i] = found
            else:
                values[i] = found
            if (i + 1) % _CHUNK == 0 or i + 1 == len(rows):
                notify(Progress("features", i + 1, len(rows)))
        seconds = time.perf_counter() - begun
        computed = len(rows) - len(unreadable)
        record = Extraction(len(rows), computed, 0, seconds, runtime="numpy", precision="float32")
        return Features({"logmel": values}, unreadable, record)

    def state(self) -> BackboneState:
        return BackboneState("logmel", {"version": VERSION})


def restore(state: BackboneState) -> LogMel:
    """The statistics of `state`; raises ArtefactError for those of another version."""
    if state.config.get("version") != VERSION:
        raise ArtefactError(
            f"this model uses log-mel statistics of version {state.config.get('version')}, this graftwork "
            f"has version {VERSION}; fit it again, or install the graftwork that saved it"
        )
    return LogMel()


def _described(column: Column) -> Iterator[Floats | str]:
    """Each recording's numbers, or the reason why it has none, in order."""

    def one(i: int) -> Floats | str:
        try:
            with column.open(i) as file:
                return describe(listen(file), look(file).seconds)
        except Unreadable as reason:
            return str(reason)

    return in_order(len(column), one)


def listen(file: BufferedIOBase) -> Floats:
    """The spectrogram (frames, 64) of what is heard of a recording; raises Unreadable."""
    heard = windows(file, RATE, _WINDOW_SECONDS, _MOST_WINDOWS)
    return np.concatenate([spectrogram(samples, RATE) for samples in heard])


def describe(spectrum: Floats, seconds: float) -> Floats:
    """A spectrogram and the length of the whole recording -> (651,)."""
    level = spectrum.max(axis=1)
    whole = np.array([np.log2(seconds), level.mean() / 10, level.max() / 10])
    shape = np.maximum(spectrum, spectrum.max() - RANGE)
    shape -= shape.mean()
    course = np.einsum("tb,cb->tc", spans(shape[_loud(level)], SPANS), _cosines(BANDS, CEPSTRA))
    return np.concatenate([_timbre(shape), _movement(shape), course.ravel(), whole]).astype(np.float32)


def picture(spectrum: Floats, side: int) -> NDArray[np.uint8]:
    """(side, side): time to the right from the first to the last loud frame, pitch upwards.

    0 is 60 dB below the loudest point, 255 the loudest.
    """
    heard = spans(spectrum[_loud(spectrum.max(axis=1))], side)
    squared = heard.T if side == BANDS else spans(heard.T, side)
    bright = np.clip((squared - spectrum.max()) / RANGE + 1, 0, 1)
    return np.asarray(np.rint(255 * bright[::-1]), dtype=np.uint8)


def _timbre(shape: Floats) -> Floats:
    quantiles = np.quantile(shape, _QUANTILES, axis=0)
    return np.concatenate([shape.mean(axis=0), shape.std(axis=0), quantiles.ravel()])


def _movement(shape: Floats) -> Floats:
    changes = [shape[lag:] - shape[:-lag] if len(shape) > lag else np.zeros((1, BANDS)) for lag in _LAGS]
    return np.concatenate([change.std(axis=0) for change in changes])


def _loud(level: Floats) -> slice:
    """From the first to the last frame within 40 dB of the loudest: no silence around a word."""
    loud = np.flatnonzero(level >= level.max() - _LOUD)
    return slice(int(loud[0]), int(loud[-1]) + 1)


def spans(spectrum: Floats, count: int) -> Floats:
    """Means (count, bands) over `count` equal spans of time, a frame on a border shared between two."""
    total = np.zeros((len(spectrum) + 1, spectrum.shape[1]))
    np.cumsum(spectrum, axis=0, out=total[1:])
    edges = np.linspace(0, len(spectrum), count + 1)
    before = np.minimum(edges.astype(np.int64), len(spectrum) - 1)
    at = total[before] + (edges - before)[:, None] * spectrum[before]
    return np.asarray(np.diff(at, axis=0) * count / len(spectrum), dtype=np.float32)


@cache
def _cosines(bands: int, count: int) -> Floats:
    """The first rows (count, bands) of the orthonormal cosine transform (DCT-II)."""
    k, x = np.arange(count)[:, None], np.arange(bands)[None]
    rows = np.cos(np.pi * k * (2 * x + 1) / (2 * bands)) * np.sqrt(2 / bands)
    rows[0] /= np.sqrt(2)
    return np.asarray(rows, dtype=np.float32)


def spectrogram(samples: Floats, rate: int) -> Floats:
    """Mono samples (n,) in -1..1 -> (1 + n // hop, 64) decibels, from -100 up; a full-scale tone is near 0.

    A frame is a Hann window of 25 ms around every hundredth of a second, its power spectrum summed by 64
    triangles of equal width on the mel scale (2595 log10(1 + f / 700)) from 20 Hz to 8 kHz or rate / 2.
    """
    length, hop = round(_FRAME_SECONDS * rate), round(rate / FRAMES_A_SECOND)
    size = 1 << (length - 1).bit_length()
    hann = np.hanning(length + 1)[:-1].astype(np.float32)
    # a tone of full scale has the power (sum of the window / 2)^2
    hann *= np.float32(2 / hann.sum())
    padded = np.pad(samples, (length // 2, length))
    framed = np.lib.stride_tricks.sliding_window_view(padded, length)[: len(samples) + 1 : hop]
    bands = _Bands.of(rate, size)
    found = np.empty((len(framed), BANDS), dtype=np.float32)
    for start in range(0, len(framed), _BLOCK):
        spectrum = np.fft.rfft(framed[start : start + _BLOCK] * hann, size).astype(np.complex64)
        found[start : start + _BLOCK] = bands.sums(spectrum.real**2 + spectrum.imag**2)
    decibels = 10 * np.log10(np.maximum(found, np.float32(1e-12)))
    return np.asarray(np.maximum(decibels, FLOOR), dtype=np.float32)


@dataclass(frozen=True)
class _Bands:
    """Triangles on the mel scale, each from its left neighbour's peak to its right one's.

    starts: (bands + 1,) the first frequency of each stretch between two peaks; empty: (bands + 1,) True
    for a stretch without any; rise: (frequencies,) weight in the triangle that rises over a frequency,
    the one that falls there having the rest.
    """

    starts: NDArray[np.int64]
    empty: NDArray[np.bool_]
    rise: Floats

    @classmethod
    @cache
    def of(cls, rate: int, size: int) -> Self:
        low, high = (2595 * np.log10(1 + hertz / 700) for hertz in (_LOWEST, min(_HIGHEST, rate / 2)))
        peaks = 700 * (10 ** (np.linspace(low, high, BANDS + 2) / 2595) - 1)
        frequency = np.arange(size // 2 + 1) * rate / size
        starts = np.searchsorted(frequency, peaks)
        between = np.clip(np.searchsorted(peaks, frequency, side="right") - 1, 0, BANDS)
        rise = (frequency - peaks[between]) / (peaks[between + 1] - peaks[between])
        inside = (frequency >= peaks[0]) & (frequency <= peaks[-1])
        return cls(starts, np.diff(starts) == 0, np.where(inside, rise, 0).astype(np.float32))

    def sums(self, power: Floats) -> Floats:
        """Powers (frames, frequencies) -> (frames, bands).

        Not a product of matrices: how those are rounded depends on the number of threads.
        """
        rising = power * self.rise
        over, under = self._stretches(rising), self._stretches(power - rising)
        return np.asarray(over[:, :-1] + under[:, 1:])

    def _stretches(self, power: Floats) -> Floats:
        """Sums (frames, bands + 1) of what lies between two peaks."""
        # a zero behind the last frequency, for stretches that begin beyond it
        padded = np.pad(power[:, : self.starts[-1]], ((0, 0), (0, 1)))
        return np.where(self.empty, np.float32(0), np.add.reduceat(padded, self.starts[:-1], axis=1))
