"""Small recordings of known content, for tests: gliding tones, one glide a class."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from graftwork.rows import Contents, Rows
from graftwork.sounds import encode

RATE = 8_000


def glide(kind: int, rng: np.random.Generator, seconds: float = 0.3) -> NDArray[np.float32]:
    """A tone that rises (0), stays (1) or falls (2), of a random loudness and place, and a little noise."""
    time = np.arange(round(seconds * rng.uniform(0.8, 1.2) * RATE)) / RATE
    turn = (1 - kind) * rng.uniform(900, 1_100)
    start = rng.uniform(1_400, 1_600)
    phase = 2 * np.pi * (start * time + turn * (time - time[-1] / 2) ** 2 / time[-1] / 2)
    loud = rng.uniform(0.1, 0.5)
    return np.asarray(loud * np.sin(phase) + 0.01 * loud * rng.normal(size=len(time)), dtype=np.float32)


def glides(per_class: int, seed: int = 0) -> tuple[list[bytes], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    codes = np.tile(np.arange(3), per_class)
    return [encode(glide(int(code), rng), RATE) for code in codes], codes


def rows_of(contents: list[bytes]) -> Rows:
    return Rows([f"row {i}" for i in range(len(contents))], {"audio": Contents("audio", contents)})


def class_folders(root: Path, per_class: int, seed: int = 0) -> Path:
    """A folder a class, with WAV files in it; and the folder."""
    contents, codes = glides(per_class, seed)
    for i, (content, code) in enumerate(zip(contents, codes, strict=True)):
        folder = root / ("rising", "level", "falling")[code]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i}.wav").write_bytes(content)
    return root
