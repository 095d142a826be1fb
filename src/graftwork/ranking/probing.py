"""Cross-fitted probes: what a linear head that did not learn from a row answers for it."""

import numpy as np
from numpy.typing import NDArray

from graftwork.heads import temperature
from graftwork.model import softmax
from graftwork.ranking.sample import answerable
from graftwork.rows import IntArray
from graftwork.spectrum import Float64, factorise, held_groups, left_out

STRENGTHS = (0.1, 1.0, 10.0, 100.0)
"""In units of a row's mean squared length; between them the answers hardly change."""
MANY_CLASSES = 32
"""Beyond, several groups leave at once: each group's (classes, classes) system would cost too much."""


def out_of_fold(
    features: NDArray[np.float32],
    codes: IntArray,
    groups: IntArray,
    weights: Float64,
    classes: int,
    seed: int,
) -> Float64:
    """(rows, classes) probabilities of each row by a head fitted without its group.

    Ridge or Gaussian discriminant at one of STRENGTHS, whichever has the lowest log-loss at its own
    temperature. Closed form, so a probe costs one factorisation.
    """
    spectrum = factorise(features, weights)
    leaving = groups
    if classes > MANY_CLASSES:
        from graftwork.logistic import grouped_folds  # brings an optimiser, which takes a while to import

        count = max(10, 4 * len(np.unique(groups)) // classes)
        leaving = grouped_folds(codes, groups, count, seed)
    held = held_groups(spectrum, leaving, None, classes)
    answers = left_out(spectrum, codes, classes, spectrum.strengths(STRENGTHS), held)
    asked = answerable(codes, groups)
    best, lowest, heat = answers.ridge[0], np.inf, 1.0
    for logits in (*answers.ridge, *answers.discriminant):
        at, loss = temperature(logits[asked], codes[asked], weights[asked])
        if loss < lowest:
            best, lowest, heat = logits, loss, at
    return softmax(best.astype(np.float64) / heat)
