"""How a training makes up for classes of unequal size: by weights, by sampling, by shifted logits."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from graftwork.errors import UnknownName
from graftwork.rows import IntArray

Method = Literal["none", "weights", "sampling", "logits"]


@dataclass(frozen=True)
class Balance:
    """What `train` and its plan are told.

    weights: (rows,) importance of each row. offsets: (classes,) added to the logits while learning, or
    None. sampling: how rows are drawn (see `Plan.sampling`).
    """

    weights: NDArray[np.float64]
    offsets: NDArray[np.float64] | None = None
    sampling: Literal["plain", "balanced"] = "plain"


def balanced(
    method: str, codes: IntArray, classes: int, weights: NDArray[np.float64], held: NDArray[np.bool_]
) -> Balance:
    """The balance that `method` asks for; weights: (rows,) those of the task. held: rows not learnt from.

    weights: each class weighs the same (inverse frequency), the mean over learnt rows as before.
    sampling: each class is drawn as often as any other. logits: the logarithm of each class's share is
    added while learning (logit adjustment, Menon et al. 2021), so that what is answered afterwards is
    as if classes were equally common. Raises UnknownName for another method.
    """
    if method not in get_args(Method):
        raise UnknownName("balance", method, get_args(Method))
    mass = np.bincount(codes[~held], weights[~held], classes).astype(np.float64)
    if method == "weights":
        present = mass > 0
        factor = np.divide(mass.sum(), present.sum() * mass, out=np.ones(classes), where=present)
        return Balance(weights * factor[codes])
    if method == "logits":
        return Balance(weights, log_shares(mass))
    return Balance(weights, sampling="balanced" if method == "sampling" else "plain")


def log_shares(mass: NDArray[np.float64]) -> NDArray[np.float64]:
    """(classes,) logarithm of each class's share; a class of no rows counts as the rarest that has some."""
    known = np.where(mass > 0, mass, mass[mass > 0].min(initial=np.inf))
    return np.asarray(np.log(known / known.sum()))
