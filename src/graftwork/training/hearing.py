"""Sounds distorted by tensor operations: shifted, louder or softer, with stretches and bands masked."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sounds:
    """How much sounds are distorted, each by its own draw (SpecAugment, Park et al. 2019, and two more).

    shift: the furthest that what sounds comes earlier or later, as a share of its length. gain:
    standard deviation of the loudness: of its logarithm (samples), in deviations of the energies
    (spectra). stretch, band: the widest masked part of time and of frequency, as shares. masks: of each.

    Padding at the end, a constant, is told by what it holds and stays as it is.
    """

    shift: float
    gain: float
    stretch: float
    band: float
    masks: int

    def __call__(self, inputs: tuple[Tensor, ...], generator: torch.Generator) -> tuple[Tensor, ...]:
        """Samples (rows, samples) or spectra (rows, 2 axes, time the longer), and whatever else comes."""
        sound, *others = inputs
        late = sound.ndim == 2 or sound.shape[2] >= sound.shape[1]
        timed = sound if late else sound.transpose(1, 2)
        heard = _heard(timed)
        changed = self._moved(timed, heard, generator)
        changed = self._louder(changed, heard, generator)
        changed = self._banded(changed, heard, generator)
        changed = self._masked(changed, heard, generator)
        inside = _spread(_time(timed) < heard[:, None], timed)
        changed = torch.where(inside, changed, timed).to(sound.dtype)
        return (changed if late else changed.transpose(1, 2), *others)

    def _moved(self, sound: Tensor, heard: Tensor, generator: torch.Generator) -> Tensor:
        """Earlier or later: what leaves at one end is lost, silence comes in at the other."""
        far = self.shift * (2 * torch.rand(len(sound), generator=generator) - 1)
        found = sound.clone()
        for row, (length, share) in enumerate(zip(heard.tolist(), far.tolist(), strict=True)):
            steps, whole = round(share * length), sound[row, ..., :length]
            if not steps:
                continue
            moved = whole.roll(steps, -1)
            silence = torch.zeros((), dtype=sound.dtype) if sound.ndim == 2 else whole.amin()
            moved[..., slice(0, steps) if steps > 0 else slice(length + steps, length)] = silence
            found[row, ..., :length] = moved
        return found

    def _louder(self, sound: Tensor, heard: Tensor, generator: torch.Generator) -> Tensor:
        draws = self.gain * _column(torch.randn(len(sound), generator=generator), sound)
        if sound.ndim == 2:
            return sound * draws.exp()
        return sound + draws * _over_heard(sound, heard)[1]

    def _banded(self, sound: Tensor, heard: Tensor, generator: torch.Generator) -> Tensor:
        """Bands of frequency masked: set to the mean of a spectrum, filtered out of samples."""
        if not self.masks:
            return sound
        if sound.ndim == 2:
            spectrum = torch.fft.rfft(sound.float())
            # most of what tells sounds apart lies in the lower half of the samples' frequencies
            hole = self._holes(len(sound), spectrum.shape[1], self.band / 2, generator).to(sound.device)
            filtered: Tensor = torch.fft.irfft(spectrum.masked_fill(hole, 0), n=sound.shape[1])
            return filtered
        hole = self._holes(len(sound), sound.shape[1], self.band, generator).to(sound.device)
        return torch.where(hole[:, :, None], _over_heard(sound, heard)[0], sound)

    def _masked(self, sound: Tensor, heard: Tensor, generator: torch.Generator) -> Tensor:
        """Stretches of time masked with the mean."""
        place = _time(sound) / heard.clamp(min=1)[:, None]
        hole = torch.zeros_like(place, dtype=torch.bool)
        for _ in range(self.masks):
            wide, start = self._window(len(sound), self.stretch, generator)
            wide, start = wide.to(sound.device), start.to(sound.device)
            hole |= (place >= start[:, None]) & (place < (start + wide)[:, None])
        return torch.where(_spread(hole, sound), _over_heard(sound, heard)[0], sound)

    def _holes(self, rows: int, bands: int, widest: float, generator: torch.Generator) -> Tensor:
        place = (torch.arange(bands) + 0.5) / bands
        hole = torch.zeros(rows, bands, dtype=torch.bool)
        for _ in range(self.masks):
            wide, start = self._window(rows, widest, generator)
            hole |= (place >= start[:, None]) & (place < (start + wide)[:, None])
        return hole

    @staticmethod
    def _window(rows: int, widest: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(rows,) widths up to `widest` and starts, as shares of the whole."""
        wide = widest * torch.rand(rows, generator=generator)
        return wide, (1 - wide) * torch.rand(rows, generator=generator)


def _heard(sound: Tensor) -> Tensor:
    """(rows,) steps of time before the constant end; all but the last step where nothing is padded."""
    differs = sound != sound[..., -1:]
    if sound.ndim == 3:
        differs = differs.any(1)
    return (differs * (_time(sound) + 1)).amax(1)


def _over_heard(sound: Tensor, heard: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of what sounds in each row, shaped to meet `sound`."""
    inside = _spread(_time(sound) < heard[:, None], sound).to(sound.dtype)
    size = inside.expand_as(sound).flatten(1).sum(1).clamp(min=1)
    mean = (sound * inside).flatten(1).sum(1) / size
    square = (((sound - _column(mean, sound)) * inside) ** 2).flatten(1).sum(1) / size
    return _column(mean, sound), _column(square.sqrt(), sound)


def _time(sound: Tensor) -> Tensor:
    return torch.arange(sound.shape[-1], device=sound.device)[None]


def _spread(values: Tensor, sound: Tensor) -> Tensor:
    """(rows, time) values over all bands of a spectrum."""
    return values if sound.ndim == 2 else values[:, None]


def _column(values: Tensor, sound: Tensor) -> Tensor:
    return values.to(sound.device).view(-1, *(1 for _ in sound.shape[1:]))
