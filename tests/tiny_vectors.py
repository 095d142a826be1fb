"""Small files of word vectors in each format, written out by hand."""

import gzip
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ENGLISH = "the of and film good bad n't do it 's dull Bright actor story . !".split()
CHARACTERS = [*"的好不味道很差快送餐！a"]


def vectors(count: int, width: int = 12, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32).round(4)


def lines(words: Sequence[str], matrix: NDArray[np.float32]) -> list[str]:
    return [
        f"{word} {' '.join(f'{value:.4f}' for value in row)}" for word, row in zip(words, matrix, strict=True)
    ]


def word2vec(
    path: Path, words: Sequence[str], matrix: NDArray[np.float32], promised: int | None = None
) -> Path:
    head = f"{len(words) if promised is None else promised} {matrix.shape[1]}"
    return written(path, [head, *lines(words, matrix)])


def glove(path: Path, words: Sequence[str], matrix: NDArray[np.float32]) -> Path:
    return written(path, lines(words, matrix))


def binary(path: Path, words: Sequence[str], matrix: NDArray[np.float32]) -> Path:
    """As word2vec.c writes it: the word, a space, the floats, a line end."""
    head = f"{len(words)} {matrix.shape[1]}\n".encode()
    path.write_bytes(
        head
        + b"".join(w.encode() + b" " + row.tobytes() + b"\n" for w, row in zip(words, matrix, strict=True))
    )
    return path


def written(path: Path, text: Sequence[str], encoding: str = "utf-8") -> Path:
    content = ("\n".join(text) + "\n").encode(encoding)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path
