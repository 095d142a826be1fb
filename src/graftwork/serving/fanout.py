"""One run's features fanned out to the heads of many tasks: those of one shape in one product."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.heads import LinearHead
from graftwork.model import softmax
from graftwork.rows import IntArray
from graftwork.serving.tasks import Task
from graftwork.unknown import Placed, Shortlisted

BLOCK_BYTES = 4_000_000
"""Of weights, or of their rows, in double precision: as many heads of one shape are applied together."""


Answer = tuple[NDArray[np.float64], NDArray[np.bool_]]
"""A task's probabilities (rows, classes) and unknown flags (rows,)."""


def answer(asked: Sequence[tuple[Task, IntArray]], features: NDArray[np.float32]) -> list[Answer]:
    """What each task says of its rows of `features` (rows, width), in the order asked.

    The numbers are those of `Model.answer` but for the order of sums (relative differences of 1e-12).
    Raises FeatureWidth where a head takes features of another width.
    """
    found: list[NDArray[np.float64]] = [np.empty(0)] * len(asked)
    alike: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
    for i, (task, rows) in enumerate(asked):
        if isinstance(task.head, LinearHead) and task.head.width == features.shape[1]:
            alike[len(rows), len(task.labels)].append(i)
        else:
            found[i] = softmax(task.head.logits(features[rows]))
    for (count, classes), members in alike.items():
        most = max(1, BLOCK_BYTES // (8 * features.shape[1] * max(classes, count, 1)))
        for part in (members[start : start + most] for start in range(0, len(members), most)):
            index = np.concatenate([asked[i][1] for i in part])
            seen = features[index].astype(np.float64).reshape(len(part), count, features.shape[1])
            for i, probabilities in zip(part, _linear([asked[i][0].head for i in part], seen), strict=True):
                found[i] = probabilities
    placed = (
        Placed.of(features) if any(isinstance(one.familiarity, Shortlisted) for one, _ in asked) else None
    )
    return [
        (probabilities, _unknown(task, features, placed, rows))
        for probabilities, (task, rows) in zip(found, asked, strict=True)
    ]


def _linear(heads: Sequence[Any], seen: NDArray[np.float64]) -> NDArray[np.float64]:
    """Heads of one shape, each on its own rows (heads, rows, width) -> (heads, rows, classes)."""
    weights = np.empty((len(heads), seen.shape[2], len(heads[0].labels)))
    for head, place in zip(heads, weights, strict=True):
        place[:] = head.arrays["weights"]
    logits = seen @ weights
    for head, out in zip(heads, logits, strict=True):
        out += head.arrays["bias"]
        head.calibrated(out)
    return softmax(logits.reshape(-1, logits.shape[2])).reshape(logits.shape)


def _unknown(
    task: Task, features: NDArray[np.float32], placed: Placed | None, rows: IntArray
) -> NDArray[np.bool_]:
    if task.familiarity is None:
        return np.zeros(len(rows), dtype=bool)
    if placed is not None and isinstance(task.familiarity, Shortlisted):
        return task.familiarity.unknown_of(placed.take(rows))
    return task.familiarity.unknown(features[rows])
