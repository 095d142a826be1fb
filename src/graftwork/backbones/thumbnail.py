"""Small copies of pictures as features: what finds unreadable rows, near-duplicates and odd shapes."""

import hashlib
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from graftwork.backbones.base import BackboneState
from graftwork.errors import Unreadable
from graftwork.images import decode
from graftwork.records import Extraction, Features, Notify, Progress, silent
from graftwork.rows import Column, Kind, Rows

SIDE = 32
"""Grey thumbnails are SIDE x SIDE."""
COLOUR_SIDE = 4
GREY = SIDE * SIDE
COLOUR = 3 * COLOUR_SIDE * COLOUR_SIDE
WIDTH = GREY + COLOUR + 2
_VERSION = 1
_CHUNK = 256


@dataclass(frozen=True)
class Thumbnail:
    """Pictures -> one array (rows, 1074): 32 x 32 greys and 4 x 4 colours in [0, 1], then width and height.

    The whole picture is squeezed into the square, so that a copy of other proportions looks the same.
    Width and height are those it was decoded at: less than 64 only where the picture itself is smaller.
    """

    kind: Kind = "image"
    width: int = WIDTH

    @property
    def fingerprint(self) -> str:
        """Hex digest; decoders differ between versions of Pillow."""
        return hashlib.sha256(f"thumbnail {_VERSION} pillow {PIL.__version__}".encode()).hexdigest()

    def features(self, rows: Rows, notify: Notify = silent) -> Features:
        """Thumbnails of `rows`, decoded in threads; rows that cannot be decoded are named and hold NaN."""
        started = time.perf_counter()
        matrix = np.full((len(rows), WIDTH), np.nan, dtype=np.float32)
        unreadable: dict[int, str] = {}
        for i, result in enumerate(_thumbnails(rows.column)):
            if isinstance(result, str):
                unreadable[i] = result
            else:
                matrix[i] = result
            if (i + 1) % _CHUNK == 0 or i + 1 == len(rows):
                notify(Progress("reading pictures", i + 1, len(rows)))
        seconds = time.perf_counter() - started
        extraction = Extraction(len(rows), len(rows), 0, seconds, "pillow", "float32")
        return Features({"thumbnail": matrix}, unreadable, extraction)

    def state(self) -> BackboneState:
        return BackboneState("thumbnail", {"version": _VERSION})


def restore(_: BackboneState) -> Thumbnail:
    """The backbone again; nothing of it is learnt."""
    return Thumbnail()


def _thumbnails(column: Column) -> Iterator[NDArray[np.float32] | str]:
    """Each row's numbers, or the reason why it has none, in order."""

    def one(i: int) -> NDArray[np.float32] | str:
        try:
            return _numbers(decode(column.read(i), at_least=2 * SIDE))
        except Unreadable as error:
            return str(error)

    with ThreadPoolExecutor(_threads()) as pool:
        # a chunk at a time: map() would queue, and finish, everything ahead of a slow reader
        for start in range(0, len(column), _CHUNK):
            yield from pool.map(one, range(start, min(start + _CHUNK, len(column))))


def _numbers(picture: Image.Image) -> NDArray[np.float32]:
    grey = picture.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    colour = picture.resize((COLOUR_SIDE, COLOUR_SIDE), Image.Resampling.BOX)
    values = np.concatenate([np.asarray(grey).ravel(), np.asarray(colour).ravel()])
    size = np.array(picture.size, dtype=np.float32)
    return np.concatenate([values.astype(np.float32) / np.float32(255), size])


def _threads() -> int:
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
