"""How a picture or a recording becomes a compact network's input; imports no torch.

A picture is either ink on a ground (a letter, a digit, a drawing) or anything else. Of ink only the
shape matters: the ground is the median of the picture's border and becomes black, the ink becomes
white whatever it was, and the square around the ink, with a margin, is resized to the network's
input. Any other picture is resized whole. A recording is looked at as its log-mel spectrogram.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from io import BufferedIOBase, BytesIO
from math import ceil, floor
from typing import Any, Literal, Protocol, Self, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from graftwork.backbones.logmel import listen, picture
from graftwork.backbones.served import Prepared
from graftwork.errors import ArtefactError
from graftwork.images import decode
from graftwork.rows import Rows

Frame = Literal["ink", "whole", "sound"]


@dataclass(frozen=True)
class Preparation:
    """How a picture becomes the network's input.

    frame: "ink" (the square around the ink, the ink white on black), "whole" (squeezed to a square) or
    "sound" (a recording's log-mel spectrogram, squeezed to a square). margin: added around the ink, as a
    share of its longer side. threshold: what counts as ink, as a share of the strongest.
    """

    frame: Frame
    margin: float = 0.14
    threshold: float = 0.15

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> Self:
        """Raises ArtefactError where the config is not one of this preparation."""
        try:
            found = cls(**config)
        except TypeError as error:
            raise ArtefactError(f"the preparation of a compact network is incomplete ({error})") from error
        if found.frame not in get_args(Frame):
            raise ArtefactError(
                f"the preparation of a compact network has frame {found.frame!r}; expected one of "
                f"{', '.join(get_args(Frame))}. Was it made by a newer graftwork? Install that one"
            )
        return found


class Input(Protocol):
    """What of a network's config its input depends on."""

    @property
    def size(self) -> int: ...

    @property
    def channels(self) -> int: ...


def prepare(image: Image.Image, config: Input, preparation: Preparation) -> NDArray[np.uint8]:
    """A decoded RGB picture -> (channels, size, size) uint8, as the network takes it (divided by 255)."""
    size = config.size
    if preparation.frame == "whole":
        mode = "L" if config.channels == 1 else "RGB"
        resized = np.asarray(image.convert(mode).resize((size, size), Image.Resampling.BILINEAR))
        return resized[None] if config.channels == 1 else np.ascontiguousarray(resized.transpose(2, 0, 1))
    framed = _framed(ink(np.asarray(image.convert("L"), dtype=np.float32)), size, preparation)
    return np.repeat(framed[None], config.channels, axis=0)


def ink(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """(high, wide) of any range -> 0 on the ground, 1 at the strongest ink; all 0 where there is none."""
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    ground = np.float32(np.median(border))
    bright = grey.max() - ground >= ground - grey.min()
    strength = np.maximum(grey - ground if bright else ground - grey, 0)
    top = strength.max()
    return np.asarray(strength / top if top > 0 else strength, dtype=np.float32)


def _framed(strength: NDArray[np.float32], size: int, preparation: Preparation) -> NDArray[np.uint8]:
    """The square around the ink, resized to (size, size) uint8."""
    inked = strength > preparation.threshold
    if not inked.any():
        return np.zeros((size, size), dtype=np.uint8)
    down, across = np.flatnonzero(inked.any(1)), np.flatnonzero(inked.any(0))
    top, bottom, left, right = down[0], down[-1] + 1, across[0], across[-1] + 1
    half = max(bottom - top, right - left) * (1 + preparation.margin) / 2
    y, x = (top + bottom) / 2, (left + right) / 2
    # one pixel more on each side than the square, so that its edge is interpolated and not repeated
    high, wide = strength.shape
    y0, y1, x0, x1 = floor(y - half) - 1, ceil(y + half) + 1, floor(x - half) - 1, ceil(x + half) + 1
    within = strength[max(y0, 0) : y1, max(x0, 0) : x1]
    window = np.pad(within, ((max(-y0, 0), max(y1 - high, 0)), (max(-x0, 0), max(x1 - wide, 0))))
    box = (x - half - x0, y - half - y0, x + half - x0, y + half - y0)
    resized = Image.fromarray(window).resize((size, size), Image.Resampling.BILINEAR, box=box)
    return np.asarray(np.clip(np.rint(255 * np.asarray(resized)), 0, 255), dtype=np.uint8)


def read_picture(rows: Rows, config: Input, preparation: Preparation, i: int) -> NDArray[np.uint8]:
    """Row i decoded and prepared, (channels, size, size) uint8; raises Unreadable."""
    look = Look(config.size, config.channels, preparation)
    if preparation.frame == "sound":
        with rows.column.open(i) as file:
            return look.at_sound(file)
    return look.at_picture(rows.column.read(i))


@dataclass(frozen=True)
class Look:
    """Contents -> a network's input of `size` and `channels`."""

    size: int
    channels: int
    preparation: Preparation

    def __call__(self, content: bytes) -> Prepared:
        sound = self.preparation.frame == "sound"
        return Prepared.single((self.at_sound(BytesIO(content)) if sound else self.at_picture(content))[None])

    def at_sound(self, file: BufferedIOBase) -> NDArray[np.uint8]:
        return np.repeat(picture(listen(file), self.size)[None], self.channels, axis=0)

    def at_picture(self, content: bytes) -> NDArray[np.uint8]:
        # the ink may fill a small part of a large picture
        wanted = self.size * (4 if self.preparation.frame == "ink" else 2)
        return prepare(decode(content, wanted), self, self.preparation)
