"""Scores from the labels that the source already knows: its own classifier's answers to our rows."""

import numpy as np
from numpy.typing import NDArray

from graftwork.rows import IntArray
from graftwork.spectrum import Float64, blocks

AT_ONCE = 4_000_000
"""Entries of the largest array: bounds the memory whatever the number of labellings and classes."""


def nce(probabilities: NDArray[np.floating], labellings: IntArray, classes: int) -> Float64:
    """Negative conditional entropy of the labels given the source's top label (Tran, Nguyen, Hassner 2019).

    probabilities (N, Z); labellings (L, N) codes. Returns (L,), nats a row: -H(label | source label).
    """
    _, source = np.unique(probabilities.argmax(axis=1), return_inverse=True)
    many, rows = labellings.shape
    known = int(source.max()) + 1
    cells = (np.arange(many)[:, None] * known + source) * classes + labellings
    joint = np.bincount(cells.ravel(), minlength=many * known * classes).reshape(many, known, classes)
    margin = joint.sum(axis=2, keepdims=True)
    return np.asarray((joint * np.log(np.maximum(joint, 1) / margin)).sum(axis=(1, 2)) / rows)


def leep(probabilities: NDArray[np.floating], labellings: IntArray, classes: int) -> Float64:
    """Log expected empirical prediction (Nguyen, Hassner, Seeger, Archambeau 2020).

    P(label | source label) is estimated from the rows, each counted by its probabilities (N, Z); a row
    is then answered by the mixture. Returns (L,), mean log-likelihood of the rows' labels in nats.
    """
    mass = probabilities.sum(axis=0, dtype=np.float64)
    heard = probabilities[:, mass > 0]
    shares = (heard / mass[mass > 0]).astype(heard.dtype)
    many, rows = labellings.shape
    answer = np.empty(many)
    for part in blocks(many, max(1, AT_ONCE // (classes * max(heard.shape)))):
        codes = labellings[part]
        marks = np.asarray(codes[:, None] == np.arange(classes)[:, None], dtype=heard.dtype)
        said = (marks.reshape(-1, rows) @ shares) @ heard.T
        own = np.take_along_axis(said.reshape(marks.shape), codes[:, None], axis=1)
        answer[part] = np.log(own, dtype=np.float64).mean(axis=(1, 2))
    return answer
