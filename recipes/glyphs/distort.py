"""Rendered letters made as unlike each other as handwriting, scans and tiny pictures are.

In turn: an affine map and smooth waves; a thicker or thinner stroke; a crop with a random margin;
a low resolution (8 to 32 pixels a side), noise, another gamma, 16 levels of grey; and the frame that
the network's preparation makes of any picture (graftwork.backbones.compact).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from graftwork.training import waves

SIZE = 32
RESOLUTIONS = (8, 8, 10, 12, 16, 20, 28, 32)
THRESHOLD = 0.15


def distort(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """(n, 1, 40, 40) in 0..1, white on black -> (n, 1, 32, 32), each by its own draw."""
    bent = bend(pictures, generator)
    drawn = torch.where(chance(len(bent), 0.25, generator), bent, stroke(bent, generator))
    aspect = torch.exp(0.12 * torch.randn(len(drawn), generator=generator))
    cropped = frame(drawn, (0.0, 0.35), 0.04, generator, aspect)
    parts = [scan(part, generator) for part in cropped.chunk(4)]
    return torch.cat(parts).contiguous(memory_format=torch.channels_last)


def bend(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Turned (12 degrees), slanted, stretched (20%) and bent by waves; all standard deviations."""
    n, side = len(pictures), pictures.shape[-1]

    def draw(size: float) -> Tensor:
        return size * torch.randn(n, generator=generator)

    angle, slope, across, down = draw(0.2), draw(0.25), torch.exp(draw(0.2)), torch.exp(draw(0.2))
    # 1.45: room around the letter, so that nothing leaves the picture
    matrix = torch.zeros(n, 2, 3)
    matrix[:, 0, 0] = 1.45 * across * angle.cos()
    matrix[:, 0, 1] = 1.45 * across * (slope - angle.sin())
    matrix[:, 1, 0] = 1.45 * down * angle.sin()
    matrix[:, 1, 1] = 1.45 * down * angle.cos()
    grid = F.affine_grid(matrix, [n, 1, side, side], align_corners=False)
    strength = uniform(n, 0.0, 1.3, generator)[:, None, None, None]
    grid = grid + strength * waves(n, side, 0.04, generator)
    return F.grid_sample(pictures, grid, align_corners=False)


def stroke(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Thicker or thinner: blurred, then cut at a random level by an edge of random softness."""
    blurred = _unit_peak(blur(pictures, float(uniform(1, 0.7, 2.0, generator))))
    level = uniform(len(pictures), 0.25, 0.75, generator)[:, None, None, None]
    sharpness = torch.exp(uniform(len(pictures), 1.5, 3.0, generator))[:, None, None, None]
    cut = torch.sigmoid((blurred - level) * sharpness) - torch.sigmoid(-level * sharpness)
    return _unit_peak(cut)


def scan(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Through a low resolution (one for all of these), noise, a gamma and perhaps 16 levels of grey."""
    n = len(pictures)
    side = RESOLUTIONS[int(torch.randint(len(RESOLUTIONS), (1,), generator=generator))]
    small = F.interpolate(pictures, size=(side, side), mode="area")
    noise = uniform(n, 0.0, 0.08, generator)[:, None, None, None]
    small = _unit_peak(small + noise * torch.randn(small.shape, generator=generator)).clamp(0, 1)
    small = small ** torch.exp(uniform(n, -0.4, 0.4, generator))[:, None, None, None]
    if bool(chance(1, 0.5, generator)):
        small = torch.round(16 * small) / 16
    return frame(small, (0.08, 0.2), 0.02, generator)


def frame(
    pictures: Tensor,
    margin: tuple[float, float],
    jitter: float,
    generator: torch.Generator,
    aspect: Tensor | None = None,
) -> Tensor:
    """The square around the ink with a random margin, (n, 1, 32, 32); jitter: of its place and size."""
    n, _, high, wide = pictures.shape
    inked = (_unit_peak(pictures) > THRESHOLD)[:, 0]
    left, right = _ends(inked.any(1))
    top, bottom = _ends(inked.any(2))
    side = torch.maximum(right - left, bottom - top).clamp_min(2.0)
    x = (left + right) / 2 + side * uniform(n, -jitter, jitter, generator)
    y = (top + bottom) / 2 + side * uniform(n, -jitter, jitter, generator)
    side = side * (1 + uniform(n, -jitter, jitter, generator)) * (1 + uniform(n, *margin, generator))
    matrix = torch.zeros(n, 2, 3)
    matrix[:, 0, 0] = side / wide * (1.0 if aspect is None else aspect)
    matrix[:, 1, 1] = side / high
    matrix[:, 0, 2], matrix[:, 1, 2] = 2 * x / wide - 1, 2 * y / high - 1
    grid = F.affine_grid(matrix, [n, 1, SIZE, SIZE], align_corners=False)
    return F.grid_sample(pictures, grid, align_corners=False)


def _ends(marked: Tensor) -> tuple[Tensor, Tensor]:
    """First and one past the last marked place of each row, as floats."""
    places = torch.arange(marked.shape[1])
    first = torch.where(marked, places, marked.shape[1]).amin(1)
    last = torch.where(marked, places, -1).amax(1) + 1
    return first.float(), last.float()


def blur(pictures: Tensor, deviation: float) -> Tensor:
    """Gaussian, `deviation` in pixels."""
    reach = max(1, int(2 * deviation + 0.5))
    kernel = torch.exp(-(torch.arange(-reach, reach + 1.0) ** 2) / (2 * deviation**2))
    kernel = kernel / kernel.sum()
    across = F.conv2d(pictures, kernel.view(1, 1, 1, -1), padding=(0, reach))
    return F.conv2d(across, kernel.view(1, 1, -1, 1), padding=(reach, 0))


def uniform(n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(n, generator=generator)


def chance(n: int, share: float, generator: torch.Generator) -> Tensor:
    return (torch.rand(n, generator=generator) < share)[:, None, None, None]


def _unit_peak(pictures: Tensor) -> Tensor:
    return pictures / pictures.amax((2, 3), keepdim=True).clamp_min(1e-6)
