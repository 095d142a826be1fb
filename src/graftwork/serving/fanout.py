"""One run's features fanned out to the heads of many tasks: those of one shape in one product."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graftwork.heads import LinearHead
from graftwork.model import softmax
from graftwork.rows import IntArray
from graftwork.serving.tasks import Task


@dataclass(frozen=True)
class Said:
    """A task's answers to its rows: probabilities (rows, classes), unknown (rows,)."""

    probabilities: NDArray[np.float64]
    unknown: NDArray[np.bool_]


def answer(asked: Sequence[tuple[Task, IntArray]], features: NDArray[np.float32]) -> list[Said]:
    """What each task says of its rows of `features` (rows, width), in the order asked.

    All tasks take features of this width. Probabilities are those of `head.logits`.
    """
    together: defaultdict[tuple[int, int, int], list[int]] = defaultdict(list)
    found: dict[int, NDArray[np.float64]] = {}
    for i, (task, rows) in enumerate(asked):
        if isinstance(task.head, LinearHead):
            together[len(rows), *task.head.arrays["weights"].shape].append(i)
        else:
            found[i] = softmax(task.head.logits(features[rows]))
    for members in together.values():
        for i in members:
            found[i] = softmax(asked[i][0].head.logits(features[asked[i][1]]))
    return [Said(found[i], _unknown(task, features[rows])) for i, (task, rows) in enumerate(asked)]


def _unknown(task: Task, features: NDArray[np.float32]) -> NDArray[np.bool_]:
    if task.familiarity is None:
        return np.zeros(len(features), dtype=bool)
    return task.familiarity.unknown(features)
