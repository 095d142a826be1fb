"""Scores from the labels that the source already knows: its own classifier's answers to our rows."""

import numpy as np
from numpy.typing import NDArray

from graftwork.rows import IntArray
from graftwork.spectrum import Float64


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
    shares = (heard / mass[mass > 0]).astype(probabilities.dtype)
    answer = np.empty(len(labellings))
    for i, codes in enumerate(labellings):
        marks = (codes == np.arange(classes)[:, None]).astype(probabilities.dtype)
        said = ((marks @ shares) @ heard.T)[codes, np.arange(len(codes))]
        answer[i] = np.log(said, dtype=np.float64).mean()
    return answer
