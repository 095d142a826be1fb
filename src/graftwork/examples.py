"""The few rows that an artefact keeps, the user's own or made-up, to see that it still answers as it did."""

import io
from collections.abc import Sequence

import numpy as np

from graftwork.rows import Column, Contents, Kind, Rows, Texts

LARGEST_RECORDING = 1_000_000
"""Bytes; of a longer recording ten seconds are kept, for an artefact is sent about and loaded often."""
_EXCERPT = 10.0


def probe_rows(kind: Kind, contents: Sequence[bytes]) -> Rows:
    """Rows from encoded contents, as an artefact keeps them."""
    names = [f"probe row {i}" for i in range(len(contents))]
    if kind == "text":
        return Rows(
            names, {"text": Texts([content.decode("utf-8", "surrogatepass") for content in contents])}
        )
    return Rows(names, {kind: Contents(kind, list(contents))})


def light(column: Column, i: int) -> bytes:
    """Row i's content, or the beginning of a large recording; raises Unreadable."""
    if column.kind != "audio":
        return column.read(i)
    from graftwork.sounds import RATE, decode, encode

    with column.open(i) as file:
        large = file.seek(0, io.SEEK_END) > LARGEST_RECORDING
        return encode(decode(file, RATE, _EXCERPT), RATE) if large else column.read(i)


def synthetic_rows(kind: Kind, count: int = 4) -> Rows:
    """Made-up rows for a probe without the user's own (`--no-examples`)."""
    if kind == "text":
        texts = ["", "one short sentence", "例子：一句话。", "a longer sentence " * 20]
        return probe_rows(kind, [text.encode() for text in texts[:count]])
    rng = np.random.default_rng(0)
    make = _picture if kind == "image" else _sound
    return probe_rows(kind, [make(rng) for _ in range(count)])


def _picture(rng: np.random.Generator) -> bytes:
    from PIL import Image

    coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    coarse.resize((256, 256), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()


def _sound(rng: np.random.Generator) -> bytes:
    """A third of a second to three seconds of two gliding tones and a little noise."""
    from graftwork.sounds import RATE, encode

    time = np.arange(int(RATE * rng.uniform(0.3, 3))) / RATE
    start, glide = rng.uniform(100, 2_000, (2, 2, 1))
    tones = np.sin(2 * np.pi * (start * time + glide * time**2 / 2)).sum(axis=0)
    return encode(0.3 * tones + 0.02 * rng.normal(size=len(time)), RATE)
