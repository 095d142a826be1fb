"""Hand-made picture descriptors: gradients, colours and pixels, a backbone without weights.

A picture is stretched to 48 x 48 RGB. Of it are taken, one after another:

- `gradients`: histograms of oriented gradients in 8 x 8 cells, 31 numbers a cell: 18 signed and 9
  unsigned directions, each normalised by four neighbourhoods, and four texture energies
  (Dalal and Triggs 2005; Felzenszwalb, Girshick, McAllester and Ramanan 2010, section 6);
- `outlines`: the same in 4 x 4 cells;
- `colours`: square roots of the shares of 72 colours (hue, saturation, value) in 2 x 2 parts;
- `pixels`: the picture at 16 x 16, for what is small and stands still, such as digits.
"""

import hashlib
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from graftwork.backbones.base import BackboneState
from graftwork.errors import ArtefactError, Unreadable
from graftwork.images import decode
from graftwork.records import Extraction, Features, Notify, Progress, silent
from graftwork.rows import Column, Kind, Rows

Floats = NDArray[np.float32]
VERSION = 1
_SIDE = 48
_SMALL = 16
_DECODED = 96
_DIRECTIONS = 18
_CELL_NUMBERS = _DIRECTIONS + _DIRECTIONS // 2 + 4
_COLOURS = (8, 3, 3)
_PARTS = 2
_BATCH = 64

_WIDTHS = {
    "gradients": 8 * 8 * _CELL_NUMBERS,
    "outlines": 4 * 4 * _CELL_NUMBERS,
    "colours": _PARTS * _PARTS * int(np.prod(_COLOURS)),
    "pixels": _SMALL * _SMALL * 3,
}
_ENDS = np.cumsum(list(_WIDTHS.values())).tolist()
BLOCKS: Mapping[str, slice] = MappingProxyType(
    {name: slice(end - width, end) for (name, width), end in zip(_WIDTHS.items(), _ENDS, strict=True)}
)
"""Which columns of the features hold what."""


@dataclass(frozen=True)
class Descriptor:
    """Frozen: it learns nothing, so the feature store may keep what it gives."""

    @property
    def kind(self) -> Kind:
        return "image"

    @property
    def width(self) -> int:
        return int(_ENDS[-1])

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"descriptor {VERSION}".encode()).hexdigest()

    def features(self, rows: Rows, notify: Notify = silent) -> Features:
        """Features (rows, 3536); a picture that cannot be decoded is named and holds NaN."""
        begun = time.perf_counter()
        values = np.empty((len(rows), self.width), dtype=np.float32)
        unreadable: dict[int, str] = {}
        for start, pictures in _pictures(rows.column, unreadable):
            stop = start + len(pictures)
            values[start:stop] = describe(pictures)
            notify(Progress("features", stop, len(rows)))
        values[list(unreadable)] = np.nan
        seconds = time.perf_counter() - begun
        record = Extraction(len(rows), len(rows), 0, seconds, runtime="numpy", precision="float32")
        return Features({"descriptor": values}, unreadable, record)

    def state(self) -> BackboneState:
        return BackboneState("descriptor", {"version": VERSION})


def restore(state: BackboneState) -> Descriptor:
    """The descriptors of `state`; raises ArtefactError for those of another version."""
    if state.config.get("version") != VERSION:
        raise ArtefactError(
            f"this model uses picture descriptors of version {state.config.get('version')}, this graftwork "
            f"has version {VERSION}; fit it again, or install the graftwork that saved it"
        )
    return Descriptor()


def _pictures(column: Column, unreadable: dict[int, str]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Batches (batch, 48, 48, 3); the next one is decoded while the caller describes the last."""

    def picture(i: int) -> NDArray[np.uint8]:
        try:
            image = decode(column.read(i), at_least=_DECODED)
        except Unreadable as reason:
            unreadable[i] = str(reason)
            return np.zeros((_SIDE, _SIDE, 3), dtype=np.uint8)
        return np.asarray(image.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR))

    starts = range(0, len(column), _BATCH)
    with ThreadPoolExecutor(2) as pool:
        ahead = [
            [pool.submit(picture, i) for i in range(start, min(start + _BATCH, len(column)))]
            for start in starts[:1]
        ]
        for start in starts:
            following = range(start + _BATCH, min(start + 2 * _BATCH, len(column)))
            ahead.append([pool.submit(picture, i) for i in following])
            yield start, np.stack([future.result() for future in ahead.pop(0)])


def describe(pictures: NDArray[np.uint8]) -> Floats:
    """(n, 48, 48, 3) -> (n, 3536); a picture's numbers do not depend on its neighbours."""
    # the square root evens out how strong an edge looks in light and in shade
    slopes = _slopes(np.sqrt(pictures.astype(np.float32)))
    parts = [_cells(slopes, 6), _cells(slopes, 12), _colours(pictures), _pixels(pictures)]
    return np.concatenate(parts, axis=1)


def _slopes(pictures: Floats) -> Floats:
    """Gradient of the strongest channel, spread over 18 directions: (n, 48, 48, 18)."""
    around = np.pad(pictures, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    down = around[:, 2:, 1:-1] - around[:, :-2, 1:-1]
    right = around[:, 1:-1, 2:] - around[:, 1:-1, :-2]
    strongest = (down**2 + right**2).argmax(axis=3)[..., None]
    down = np.take_along_axis(down, strongest, axis=3)
    right = np.take_along_axis(right, strongest, axis=3)
    turn = np.arctan2(down, right) * np.float32(_DIRECTIONS / (2 * np.pi)) % _DIRECTIONS
    lower = np.floor(turn).astype(np.int64)
    share, size = turn - lower, np.hypot(down, right)
    spread = np.zeros((*pictures.shape[:3], _DIRECTIONS), dtype=np.float32)
    np.put_along_axis(spread, lower % _DIRECTIONS, size * (1 - share), axis=3)
    np.put_along_axis(spread, (lower + 1) % _DIRECTIONS, size * share, axis=3)
    return spread


def _cells(slopes: Floats, side: int) -> Floats:
    """Histograms in cells of `side` pixels, shared between neighbours, normalised: (n, cells * 31)."""
    count = _SIDE // side
    centres = (np.arange(_SIDE) + 0.5) / side - 0.5
    near = np.maximum(0, 1 - np.abs(centres - np.arange(count)[:, None])).astype(np.float32)
    across = near @ slopes.reshape(len(slopes), _SIDE, -1)
    across = across.reshape(len(slopes) * count, _SIDE, _DIRECTIONS)
    signed = (near @ across).reshape(len(slopes), count, count, _DIRECTIONS)
    unsigned = signed[..., : _DIRECTIONS // 2] + signed[..., _DIRECTIONS // 2 :]
    energy = np.pad((unsigned**2).sum(axis=3), ((0, 0), (1, 1), (1, 1)), mode="edge")
    corner = energy[:, :-1, :-1] + energy[:, 1:, :-1] + energy[:, :-1, 1:] + energy[:, 1:, 1:]
    faint = np.float32(side * side / 1600)  # an almost even patch stays almost zero
    corner = np.sqrt(corner) + faint
    neighbourhoods = [corner[:, dy : dy + count, dx : dx + count, None] for dy in (0, 1) for dx in (0, 1)]
    # no single edge may rule its cell: 0.2 at most, as Dalal and Triggs have it
    clipped = [np.minimum(signed / size, 0.2) for size in neighbourhoods]
    folded = [np.minimum(unsigned / size, 0.2) for size in neighbourhoods]
    textures = [0.2357 * part.sum(axis=3, keepdims=True) for part in clipped]
    numbers = np.concatenate([0.5 * sum(clipped), 0.5 * sum(folded), *textures], axis=3)
    return np.asarray(numbers.reshape(len(slopes), -1), dtype=np.float32)


def _colours(pictures: NDArray[np.uint8]) -> Floats:
    """Square roots of colour shares in each part (so that distances are Hellinger's): (n, 288)."""
    scaled = pictures.astype(np.float32) / 255
    value, low = scaled.max(axis=3), scaled.min(axis=3)
    chroma = value - low
    red, green, blue = np.moveaxis(scaled, 3, 0)
    safe = np.where(chroma > 0, chroma, 1)
    hue = np.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4)
    hue = np.where(value == red, (green - blue) / safe % 6, hue) / 6
    saturation = chroma / np.where(value > 0, value, 1)
    levels = zip((hue, saturation, value), _COLOURS, strict=True)
    bins = [np.minimum((channel * count).astype(np.int64), count - 1) for channel, count in levels]
    colour = np.ravel_multi_index(tuple(bins), _COLOURS)
    place = np.arange(_SIDE) * _PARTS // _SIDE
    part = place[:, None] * _PARTS + place
    count = int(np.prod(_COLOURS))
    index = (np.arange(len(pictures))[:, None, None] * _PARTS**2 + part) * count + colour
    seen = np.bincount(index.ravel(), minlength=len(pictures) * _PARTS**2 * count)
    return np.sqrt(seen.reshape(len(pictures), -1) / np.float32(_SIDE**2)).astype(np.float32)


def _pixels(pictures: NDArray[np.uint8]) -> Floats:
    """Means of 3 x 3 pixels, 0..1: (n, 768)."""
    step = _SIDE // _SMALL
    tiles = pictures.reshape(len(pictures), _SMALL, step, _SMALL, step, 3)
    return np.asarray(tiles.mean(axis=(2, 4)).reshape(len(pictures), -1) / 255, dtype=np.float32)
