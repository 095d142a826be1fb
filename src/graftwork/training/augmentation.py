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
    mirror: whether left and right may be swapped. crop: the smallest share of the area that is kept,
    its sides' ratio changed by up to 4/3 (random resized crops, Szegedy et al. 2015). colour: brightness,
    contrast and saturation are each multiplied by at most 1 + colour or its inverse. hue: the largest
    turn of the colour circle, in turns.
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
    crop: float = 1.0
    colour: float = 0.0
    hue: float = 0.0

    def __call__(self, pictures: Tensor, generator: torch.Generator) -> Tensor:
        """Pictures (n, channels, rows, columns) in 0..1, distorted; outside a picture is its edge's value.

        elastic takes square pictures."""
        moved = warp(pictures, self._grid(pictures, generator).to(pictures.device))
        if self.contrast:
            moved = _contrast(moved, self.contrast, generator)
        if (self.colour or self.hue) and pictures.shape[1] == 3:
            moved = recoloured(moved, *self._colours(len(pictures), generator))
        if self.noise:
            moved = moved + self.noise * torch.randn(moved.shape, generator=generator).to(moved.device)
        if self.erase:
            moved = _erase(moved, self.erase, generator)
        return moved.clamp(0, 1)

    def _grid(self, pictures: Tensor, generator: torch.Generator) -> Tensor:
        n, rows, side = len(pictures), *pictures.shape[-2:]

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
        right, below = draw(2 * self.shift), draw(2 * self.shift)
        if self.crop < 1:
            wide, high, left, top = _windows(n, self.crop, generator)
            across, down, right, below = across * wide, down * high, right + left, below + top
        matrix = torch.stack(
            [
                torch.stack([angle.cos() * across, (slope - angle.sin()) * across, right], 1),
                torch.stack([angle.sin() * down, angle.cos() * down, below], 1),
            ],
            1,
        )
        grid = affine(matrix, rows, side)
        return grid + waves(n, side, self.elastic, generator) if self.elastic else grid

    def _colours(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(n,) factors of brightness, contrast and saturation, and turns of the hue."""
        exponents = 2 * torch.rand(4, n, generator=generator) - 1
        brightness, contrast, saturation = (1 + self.colour) ** exponents[:3]
        return brightness, contrast, saturation, self.hue * exponents[3]


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


def affine(matrix: Tensor, high: int, wide: int) -> Tensor:
    """(n, high, wide, 2) places that maps (n, 2, 3) send a grid's middles to; a side runs from -1 to 1.

    As torch's affine_grid without aligned corners, in a fraction of its time.
    """
    across, down = (
        ((2 * torch.arange(size, device=matrix.device) + 1) / size - 1)[:, None] for size in (wide, high)
    )
    start = down * matrix[:, None, :, 1] + matrix[:, None, :, 2]
    return start[:, :, None] + (across * matrix[:, None, :, 0])[:, None]


def warp(pictures: Tensor, grid: Tensor) -> Tensor:
    """Pictures sampled at `grid` (n, height, width, 2), bilinear; beyond the edge, the edge."""
    return F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)


LUMINANCE = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in how bright a colour looks (Rec. 601)."""


def recoloured(
    pictures: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, turns: Tensor
) -> Tensor:
    """RGB pictures (n, 3, high, wide) with colours changed, each by its own factors (n,).

    One affine map of colours a picture: saturation towards grey, a turn about the grey axis, contrast
    about the picture's mean brightness, then brightness. Not clamped.
    """
    n, device = len(pictures), pictures.device
    grey = torch.tensor(LUMINANCE).expand(n, 3, 3)
    factor = saturation.view(n, 1, 1)
    matrix = _turned(2 * np.pi * turns) @ (factor * torch.eye(3) + (1 - factor) * grey)
    matrix = (brightness * contrast).view(n, 1, 1) * matrix
    mean = torch.einsum("c,nchw->n", torch.tensor(LUMINANCE, device=device), pictures)
    mean = mean / (pictures.shape[2] * pictures.shape[3])
    lift = (brightness * (1 - contrast)).to(device) * mean
    changed = torch.baddbmm(lift.view(n, 1, 1), matrix.to(device), pictures.flatten(2))
    return changed.view(pictures.shape)


def _turned(angle: Tensor) -> Tensor:
    """(n, 3, 3) rotations of RGB about its grey axis, by Rodrigues' formula; angles in radians."""
    axis = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / 3**0.5
    sine, cosine = angle.sin().view(-1, 1, 1), angle.cos().view(-1, 1, 1)
    return torch.eye(3) + sine * axis + (1 - cosine) * (axis @ axis)


def _windows(n: int, smallest: float, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(n,) widths and heights of crops as shares of the sides, and where their middles lie (-1..1)."""
    draws = torch.rand(4, n, generator=generator)
    area = smallest + (1 - smallest) * draws[0]
    ratio = (4 / 3) ** (draws[1] - 0.5)
    wide, high = (area.sqrt() * ratio).clamp(max=1), (area.sqrt() / ratio).clamp(max=1)
    return wide, high, (1 - wide) * (2 * draws[2] - 1), (1 - high) * (2 * draws[3] - 1)


def waves(n: int, side: int, size: float, generator: torch.Generator) -> Tensor:
    """Smooth random displacements (n, side, side, 2) with a standard deviation of `size` sides."""
    knots = torch.randn(n, 2, 4, 4, generator=generator)
    # a grid runs over 2 units a side; interpolating between knots takes off a fifth
    smooth = F.interpolate(knots, size=(side, side), mode="bicubic", align_corners=True)
    return 2.46 * size * smooth.permute(0, 2, 3, 1)


def _contrast(pictures: Tensor, size: float, generator: torch.Generator) -> Tensor:
    n = len(pictures)
    slope = torch.exp(size * torch.randn(n, 1, 1, 1, generator=generator)).to(pictures.device)
    lift = 0.5 * size * torch.randn(n, 1, 1, 1, generator=generator).to(pictures.device)
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
    hole = (down[:, :, None] & across[:, None, :] & chosen[:, None, None])[:, None].to(pictures.device)
    return torch.where(hole, pictures.mean((1, 2, 3), keepdim=True), pictures)
