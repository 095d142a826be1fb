"""RandAugment (Cubuk et al. 2020) on tensors: a few distortions a picture, drawn anew for each."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from graftwork.training.augmentation import affine, recoloured, warp

Operation = Callable[[Tensor, Tensor], Tensor]
"""Pictures (n, channels, high, wide) in 0..1 and signed strengths (n,) in -1..1 -> pictures."""


@dataclass(frozen=True)
class RandAugment:
    """operations: names out of OPERATIONS. layers: how many a picture goes through. strength: of each,
    0..1, its sign by chance; 0.3 is the paper's 9 of 30.
    """

    operations: tuple[str, ...] = ()
    layers: int = 2
    strength: float = 0.3

    def __call__(self, pictures: Tensor, generator: torch.Generator) -> Tensor:
        """Pictures (n, channels, high, wide) in 0..1, distorted."""
        names = self.operations or tuple(OPERATIONS)
        found = pictures.clone(memory_format=torch.contiguous_format)
        for _ in range(self.layers):
            which = torch.randint(len(names), (len(pictures),), generator=generator)
            signs = 1.0 - 2 * torch.randint(0, 2, (len(pictures),), generator=generator)
            for number, name in enumerate(names):
                chosen = torch.nonzero(which == number)[:, 0].to(pictures.device)
                if len(chosen) and name != "same":
                    strengths = (self.strength * signs[which == number]).to(pictures.device)
                    found[chosen] = OPERATIONS[name](found[chosen], strengths).clamp(0, 1)
        return found


def _turn(pictures: Tensor, strength: Tensor) -> Tensor:
    angle = np.pi / 6 * strength
    return _moved(pictures, angle.cos(), -angle.sin(), angle.sin(), angle.cos())


def _lean_across(pictures: Tensor, strength: Tensor) -> Tensor:
    return _moved(pictures, slope=0.3 * strength)


def _lean_down(pictures: Tensor, strength: Tensor) -> Tensor:
    return _moved(pictures, rise=0.3 * strength)


def _across(pictures: Tensor, strength: Tensor) -> Tensor:
    return _moved(pictures, right=0.6 * strength)


def _down(pictures: Tensor, strength: Tensor) -> Tensor:
    return _moved(pictures, below=0.6 * strength)


def _moved(
    pictures: Tensor,
    across: Tensor | None = None,
    slope: Tensor | None = None,
    rise: Tensor | None = None,
    down: Tensor | None = None,
    right: Tensor | None = None,
    below: Tensor | None = None,
) -> Tensor:
    """Moved by an affine map; right, below: in half sides."""
    n = len(pictures)
    zero, one = (torch.full((n,), value, device=pictures.device) for value in (0.0, 1.0))
    rows = [
        [
            one if across is None else across,
            zero if slope is None else slope,
            zero if right is None else right,
        ],
        [zero if rise is None else rise, one if down is None else down, zero if below is None else below],
    ]
    matrix = torch.stack([torch.stack(row, 1) for row in rows], 1)
    return warp(pictures, affine(matrix, *pictures.shape[-2:]))


def _factors(pictures: Tensor, **factors: Tensor) -> Tensor:
    if pictures.shape[1] != 3:
        pictures, channels = pictures[:, :1].expand(-1, 3, -1, -1), pictures.shape[1]
        return _factors(pictures, **factors)[:, :1].expand(-1, channels, -1, -1)
    one = torch.ones(len(pictures))
    brightness, contrast, saturation = (
        factors.get(name, one).cpu() for name in ("brightness", "contrast", "saturation")
    )
    return recoloured(pictures, brightness, contrast, saturation, 0 * one)


def _brightness(pictures: Tensor, strength: Tensor) -> Tensor:
    return _factors(pictures, brightness=1 + 0.9 * strength)


def _contrast(pictures: Tensor, strength: Tensor) -> Tensor:
    return _factors(pictures, contrast=1 + 0.9 * strength)


def _saturation(pictures: Tensor, strength: Tensor) -> Tensor:
    return _factors(pictures, saturation=1 + 0.9 * strength)


def _sharpness(pictures: Tensor, strength: Tensor) -> Tensor:
    channels = pictures.shape[1]
    kernel = torch.full((3, 3), 1 / 13, device=pictures.device)
    kernel[1, 1] = 5 / 13
    padded = F.pad(pictures, (1, 1, 1, 1), mode="replicate")
    smooth = F.conv2d(padded, kernel.expand(channels, 1, 3, 3), groups=channels)
    return smooth + (1 + 0.9 * strength).view(-1, 1, 1, 1) * (pictures - smooth)


def _posterise(pictures: Tensor, strength: Tensor) -> Tensor:
    """8 bits a channel down to 4 at full strength."""
    levels = 2 ** (8 - (4 * strength.abs()).round()).view(-1, 1, 1, 1)
    return (pictures * levels).floor().clamp(max=levels - 1) / (levels - 1)


def _solarise(pictures: Tensor, strength: Tensor) -> Tensor:
    threshold = (1 - strength.abs()).view(-1, 1, 1, 1)
    return torch.where(pictures > threshold, 1 - pictures, pictures)


def _stretch(pictures: Tensor, strength: Tensor) -> Tensor:
    """Each channel's range stretched over the whole (autocontrast)."""
    low, high = pictures.amin((2, 3), keepdim=True), pictures.amax((2, 3), keepdim=True)
    return torch.where(high > low, (pictures - low) / (high - low).clamp(min=1e-6), pictures)


def _equalise(pictures: Tensor, strength: Tensor) -> Tensor:
    """Each channel's 256 levels as common as each other, as far as they go."""
    n, channels, high, wide = pictures.shape
    level = (pictures * 255).round().long().view(n * channels, high * wide)
    counts = torch.zeros(n * channels, 256, device=pictures.device)
    counts.scatter_add_(1, level, torch.ones_like(level, dtype=counts.dtype))
    below = counts.cumsum(1)
    lowest = counts.gather(1, level.amin(1, keepdim=True))
    spread = (high * wide - lowest).clamp(min=1)
    found = ((below - lowest) / spread).gather(1, level).view(pictures.shape)
    flat = (lowest == high * wide).view(n, channels, 1, 1)
    return torch.where(flat, pictures, found)


OPERATIONS: dict[str, Operation] = {
    "same": lambda pictures, strength: pictures,
    "turn": _turn,
    "lean across": _lean_across,
    "lean down": _lean_down,
    "across": _across,
    "down": _down,
    "brightness": _brightness,
    "contrast": _contrast,
    "saturation": _saturation,
    "sharpness": _sharpness,
    "posterise": _posterise,
    "solarise": _solarise,
    "stretch": _stretch,
    "equalise": _equalise,
}
"""The paper's fourteen."""
GEOMETRY = ("same", "turn", "lean across", "lean down", "across", "down")
"""Those that leave colours alone."""
