"""Pictures distorted by tensor operations, each by its own draw."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

Augment = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class Augmentation:
    """How much pictures are distorted, each picture by its own draw. Standard deviations, except:

    rotate: degrees. scale, aspect: of the natural logarithm. shear: as a slope. shift, elastic: shares
    of the side. erase: the chance of a blanked rectangle. contrast, noise: in units of the full range.
    mirror: whether left and right may be swapped.
    """

    rotate: float = 0.0
    scale: float = 0.0
    aspect: float = 0.0
    shear: float = 0.0
    shift: float = 0.0
    elastic: float = 0.0
    erase: float = 0.0
    contrast: float = 0.0
    noise: float = 0.0
    mirror: bool = False

    def __call__(self, pictures: Tensor, generator: torch.Generator) -> Tensor:
        """Pictures (n, channels, side, side) in 0..1, distorted; outside a picture is its edge's value."""
        moved = warp(pictures, self._grid(pictures, generator))
        if self.contrast:
            moved = _contrast(moved, self.contrast, generator)
        if self.noise:
            moved = moved + self.noise * torch.randn(moved.shape, generator=generator)
        if self.erase:
            moved = _erase(moved, self.erase, generator)
        return moved.clamp(0, 1)

    def _grid(self, pictures: Tensor, generator: torch.Generator) -> Tensor:
        n, side = len(pictures), pictures.shape[-1]

        def draw(size: float) -> Tensor:
            return size * torch.randn(n, generator=generator)

        angle, slope, size, aspect = (
            draw(np.pi / 180 * self.rotate),
            draw(self.shear),
            draw(self.scale),
            draw(self.aspect),
        )
        across, down = torch.exp(size + aspect), torch.exp(size - aspect)
        if self.mirror:
            across = across * (1 - 2 * torch.randint(0, 2, (n,), generator=generator))
        matrix = torch.stack(
            [
                torch.stack([angle.cos() * across, (slope - angle.sin()) * across, draw(2 * self.shift)], 1),
                torch.stack([angle.sin() * down, angle.cos() * down, draw(2 * self.shift)], 1),
            ],
            1,
        )
        grid = F.affine_grid(matrix, [n, 1, side, side], align_corners=False)
        return grid + waves(n, side, self.elastic, generator) if self.elastic else grid


AUGMENTATIONS: dict[tuple[str, str], Augmentation | None] = {
    **{("none", frame): None for frame in ("whole", "ink", "sound")},
    ("light", "whole"): Augmentation(rotate=4, scale=0.08, shift=0.04, contrast=0.1, mirror=True),
    ("light", "ink"): Augmentation(rotate=4, scale=0.06, shear=0.06, shift=0.03),
    ("light", "sound"): Augmentation(scale=0.04, aspect=0.06, shift=0.03, contrast=0.1, noise=0.03),
    ("strong", "whole"): Augmentation(12, 0.2, 0.08, 0.1, 0.08, 0.02, 0.5, 0.25, 0.02, True),
    ("strong", "ink"): Augmentation(10, 0.12, 0.1, 0.18, 0.05, 0.05, 0.25, 0.2, 0.04),
    ("strong", "sound"): Augmentation(0, 0.08, 0.1, 0, 0.06, 0.02, 0.5, 0.2, 0.06),
}
"""(how much, how a compact network frames what it sees) -> augmentation; sounds are never turned."""


def warp(pictures: Tensor, grid: Tensor) -> Tensor:
    """Pictures sampled at `grid` (n, height, width, 2), bilinear; beyond the edge, the edge."""
    return F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)


def waves(n: int, side: int, size: float, generator: torch.Generator) -> Tensor:
    """Smooth random displacements (n, side, side, 2) with a standard deviation of `size` sides."""
    knots = torch.randn(n, 2, 4, 4, generator=generator)
    # a grid runs over 2 units a side; interpolating between knots takes off a fifth
    smooth = F.interpolate(knots, size=(side, side), mode="bicubic", align_corners=True)
    return 2.46 * size * smooth.permute(0, 2, 3, 1)


def _contrast(pictures: Tensor, size: float, generator: torch.Generator) -> Tensor:
    n = len(pictures)
    slope = torch.exp(size * torch.randn(n, 1, 1, 1, generator=generator))
    lift = 0.5 * size * torch.randn(n, 1, 1, 1, generator=generator)
    mean = pictures.mean((1, 2, 3), keepdim=True)
    return (pictures - mean) * slope + mean + lift


def _erase(pictures: Tensor, chance: float, generator: torch.Generator) -> Tensor:
    """Blank a rectangle of a random place and size (Zhong et al. 2020) with the picture's mean."""
    n, _, high, wide = pictures.shape
    middle = torch.rand(n, 2, generator=generator)
    half = 0.05 + 0.15 * torch.rand(n, 2, generator=generator)
    down = (torch.arange(high).add(0.5).div(high) - middle[:, :1]).abs() < half[:, :1]
    across = (torch.arange(wide).add(0.5).div(wide) - middle[:, 1:]).abs() < half[:, 1:]
    chosen = torch.rand(n, generator=generator) < chance
    hole = (down[:, :, None] & across[:, None, :] & chosen[:, None, None])[:, None]
    return torch.where(hole, pictures.mean((1, 2, 3), keepdim=True), pictures)
