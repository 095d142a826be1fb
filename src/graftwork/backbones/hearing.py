"""What audio encoders hear: the samples of a window -> the network's input, as their own extractors make it.

Computed here rather than by transformers, whose result depends on what else is installed (torchaudio)
and whose spectra are slower; tests hold the two against each other.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.backbones.engine import Arrays
from graftwork.errors import ArtefactError, RequestError
from graftwork.sources import Source

Samples = NDArray[np.float32]
Matrix = NDArray[np.floating[Any]]

WINDOW_SECONDS = 10.0
"""Encoders of samples learn on pieces of about this length; attention costs its square."""
MOST_SECONDS = 300.0
"""Of longer recordings so much is heard, evenly spread."""


@dataclass(frozen=True)
class Waves:
    """The samples themselves (wav2vec 2.0, Baevski et al. 2020, and its kin): (1, samples) float32.

    normalise: to zero mean and unit variance over the window. Cut to least + k * step samples, the
    network's whole frames: no output sees what comes after them (but for the statistics over time of
    encoders with group norm, and less than a frame of them), and there are few different lengths, for
    each of which the engine keeps a plan. A shorter window is filled up with silence.
    """

    rate: int
    seconds: float
    most: int
    normalise: bool
    least: int
    step: int

    def hear(self, samples: Samples) -> Arrays:
        if self.normalise:
            samples = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
        steps = max(0, len(samples) - self.least) // self.step
        whole = samples[: self.least + steps * self.step]
        return (np.pad(whole, (0, max(0, self.least - len(whole))))[None],)

    def example(self) -> Arrays:
        return (np.zeros((1, self.least + 49 * self.step), np.float32),)


@dataclass(frozen=True)
class Filterbank:
    """Kaldi's log-mel energies for a spectrogram transformer (AST, Gong et al. 2021).

    (1, frames, bands) float32, and (1,) how many patches of time hold sound: one begins every `stride`
    frames. mean, std: of the energies, None where they are not normalised.
    """

    rate: int
    seconds: float
    most: int
    bands: int
    frames: int
    stride: int
    steps: int
    mean: float | None
    std: float | None

    def hear(self, samples: Samples) -> Arrays:
        energies = _kaldi(np.pad(samples, (0, max(0, 400 - len(samples)))), self.bands, self.rate)
        energies = energies[: self.frames]
        steps = min(self.steps, -(-len(energies) // self.stride))
        energies = np.pad(energies, ((0, self.frames - len(energies)), (0, 0)))
        if self.mean is not None and self.std is not None:
            energies = (energies - np.float32(self.mean)) / np.float32(2 * self.std)
        return energies[None], np.array([steps])

    def example(self) -> Arrays:
        return np.zeros((1, self.frames, self.bands), np.float32), np.array([self.steps])


@dataclass(frozen=True)
class LogMel:
    """Whisper's log-mel spectrum of half a minute (Radford et al. 2022), the rest of it silence.

    (1, bands, frames) float32, and (1,) how many of the encoder's steps, two frames each, hold sound.
    """

    rate: int
    seconds: float
    most: int
    bands: int
    frames: int
    hop: int
    size: int

    def hear(self, samples: Samples) -> Arrays:
        heard = min(self.frames, (len(samples) + self.size // 2) // self.hop + 1)
        whole = np.pad(samples.astype(np.float64), (0, max(0, self.frames * self.hop - len(samples))))
        whole = np.pad(whole, self.size // 2, mode="reflect")
        pieces = _pieces(whole, self.size, self.hop)[:heard] * np.hanning(self.size + 1)[:-1]
        energies = _power(pieces, self.size) @ slaney_bank(self.bands, self.size, self.rate)
        spectrum = np.full((self.frames, self.bands), -10.0)  # silence: log10 of the floor
        spectrum[:heard] = np.log10(np.maximum(energies, 1e-10))
        spectrum = (np.maximum(spectrum, spectrum.max() - 8.0) + 4.0) / 4.0
        steps = min(self.frames // 2, -(-len(samples) // (2 * self.hop)))
        return np.ascontiguousarray(spectrum.T[None], dtype=np.float32), np.array([steps])

    def example(self) -> Arrays:
        return np.zeros((1, self.bands, self.frames), np.float32), np.array([self.frames // 2])


Ear = Waves | Filterbank | LogMel
"""Takes windows of `seconds` at `rate`, at most `most` of a recording.

`hear` gives the network's inputs of one window of samples (n,), n > 0, each with a first axis of one row.
"""
EARS: Mapping[str, type[Ear]] = {"waves": Waves, "filterbank": Filterbank, "logmel": LogMel}


def ear(stated: Mapping[str, Any]) -> Ear:
    """The ear of a config that `heard_by` gave."""
    settings = dict(stated)
    return EARS[settings.pop("ear")](**settings)


def heard_by(source: Source) -> dict[str, Any]:
    """How the source hears, as plain JSON; raises RequestError for an architecture that is not known."""
    config = source.json("config.json")
    kind = config["model_type"]
    extractor = source.json("preprocessor_config.json")
    if not extractor:
        extractor = source.json("processor_config.json").get("feature_extractor", {})
    known: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any]], Ear]]
    known = {**dict.fromkeys(WAVES, _waves), "audio-spectrogram-transformer": _filterbank, "whisper": _logmel}
    if kind not in known:
        raise RequestError(
            f"source {source.name!r} is a {kind}; expected an audio encoder that is known here: "
            f"{', '.join(sorted(known))}"
        )
    try:
        found = known[kind](config, extractor)
    except KeyError as error:
        raise ArtefactError(
            f"config.json or preprocessor_config.json of {source.name!r} lacks {error}; fetch them again"
        ) from error
    name = next(name for name, made in EARS.items() if isinstance(found, made))
    return {"ear": name, **asdict(found)}


WAVES = frozenset(
    "wav2vec2 wav2vec2-conformer hubert wavlm data2vec-audio sew sew-d unispeech unispeech-sat".split()
)
"""Architectures that take samples as they are."""


def _waves(config: Mapping[str, Any], extractor: Mapping[str, Any]) -> Waves:
    reach, hop = 1, 1
    for kernel, stride in zip(config["conv_kernel"], config["conv_stride"], strict=True):
        reach += (kernel - 1) * hop
        hop *= stride
    squeeze = config.get("squeeze_factor", 1)  # SEW joins so many frames into one
    rate, least, step = int(extractor["sampling_rate"]), reach + (squeeze - 1) * hop, squeeze * hop
    steps = max(0, round((WINDOW_SECONDS * rate - least) / step))
    return Waves(
        rate=rate,
        seconds=(least + steps * step) / rate,  # so that a full window is not cut
        most=round(MOST_SECONDS / WINDOW_SECONDS),
        normalise=bool(extractor.get("do_normalize", True)),
        least=least,
        step=step,
    )


def _filterbank(config: Mapping[str, Any], extractor: Mapping[str, Any]) -> Filterbank:
    rate, frames = int(extractor["sampling_rate"]), int(config["max_length"])
    seconds = frames * 160 / rate
    normalise = extractor.get("do_normalize", True)
    return Filterbank(
        rate=rate,
        seconds=seconds,
        most=max(1, int(MOST_SECONDS / seconds)),
        bands=int(config["num_mel_bins"]),
        frames=frames,
        stride=int(config["time_stride"]),
        steps=(frames - config["patch_size"]) // config["time_stride"] + 1,
        mean=float(extractor.get("mean", -4.2677393)) if normalise else None,
        std=float(extractor.get("std", 4.5689974)) if normalise else None,
    )


def _logmel(config: Mapping[str, Any], extractor: Mapping[str, Any]) -> LogMel:
    rate, hop = int(extractor["sampling_rate"]), int(extractor["hop_length"])
    frames = 2 * int(config["max_source_positions"])  # the encoder takes exactly so many
    seconds = frames * hop / rate
    return LogMel(
        rate=rate,
        seconds=seconds,
        most=max(1, int(MOST_SECONDS / seconds)),
        bands=int(config["num_mel_bins"]),
        frames=frames,
        hop=hop,
        size=int(extractor["n_fft"]),
    )


def _kaldi(samples: Samples, bands: int, rate: int) -> NDArray[np.float32]:
    """(frames, bands) natural log of the mel energies as Kaldi's fbank: 25 ms every 10 ms at 16 kHz."""
    pieces = _pieces(samples.astype(np.float64), 400, 160)
    pieces = pieces - pieces.mean(1, keepdims=True)
    before = np.concatenate([pieces[:, :1], pieces[:, :-1]], axis=1)
    energies = _power((pieces - 0.97 * before) * np.hanning(400), 512) @ kaldi_bank(bands, 512, rate)
    return np.log(np.maximum(energies, np.finfo(np.float32).eps)).astype(np.float32)


def _pieces(samples: Matrix, size: int, hop: int) -> Matrix:
    return np.lib.stride_tricks.sliding_window_view(samples, size)[::hop]


def _power(pieces: Matrix, size: int) -> Matrix:
    return np.asarray(np.abs(np.fft.rfft(pieces, size)) ** 2)


@cache
def kaldi_bank(bands: int, size: int, rate: int) -> Matrix:
    """(size // 2 + 1, bands) triangles from 20 Hz to half the rate, straight in mel, 1127 ln(1 + f / 700)."""
    mels = 1127 * np.log1p(np.fft.rfftfreq(size, 1 / rate) / 700)
    low, high = 1127 * np.log1p(np.array([20, rate // 2]) / 700)
    return _triangles(mels, np.linspace(low, high, bands + 2))


@cache
def slaney_bank(bands: int, size: int, rate: int) -> Matrix:
    """(size // 2 + 1, bands) triangles of equal area between 0 and 8,000 Hz, straight in Hz.

    Their corners lie evenly on Slaney's mel scale: 3 f / 200 below 1,000 Hz, logarithmic above.
    """
    step = np.log(6.4) / 27
    mels = np.linspace(0, 15 + np.log(8.0) / step, bands + 2)
    corners = np.where(mels < 15, 200 * mels / 3, 1000 * np.exp(step * (mels - 15)))
    return _triangles(np.fft.rfftfreq(size, 1 / rate), corners) * (2 / (corners[2:] - corners[:-2]))


def _triangles(points: Matrix, corners: Matrix) -> Matrix:
    """(points, len(corners) - 2): triangle k rises from corner k to k + 1 and falls to k + 2."""
    rising = (points[:, None] - corners[:-2]) / np.diff(corners)[:-1]
    falling = (corners[2:] - points[:, None]) / np.diff(corners)[1:]
    return np.maximum(0, np.minimum(rising, falling))
