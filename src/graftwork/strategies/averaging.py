"""The mix of weights before and after tuning that held rows prefer (WiSE-FT, Wortsman et al. 2022)."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from graftwork.backbones.base import Examples
from graftwork.rows import IntArray
from graftwork.strategies.base import Task
from graftwork.training import answered

SHARES = (0.75, 0.5, 0.25)
"""Shares of the tuned weights that are tried beside all of them."""


def state_of(network: nn.Module) -> dict[str, Tensor]:
    """A copy of every tensor of the network, on the processor."""
    return {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}


def mixed(network: nn.Module, start: Mapping[str, Tensor], end: Mapping[str, Tensor], share: float) -> None:
    """Give the network `share` of `end` and the rest of `start`; what is no float is `end`'s."""
    network.load_state_dict(
        {
            name: torch.lerp(start[name], value, share) if value.is_floating_point() else value
            for name, value in end.items()
        }
    )


def averaged(
    network: nn.Module,
    start: Mapping[str, Tensor],
    examples: Examples,
    task: Task,
    held: IntArray,
    precision: Literal["auto", "f32", "bf16"],
) -> float:
    """Leave the network at the best mix of `start` and what it is now; the share of what it is now.

    That is 1 unless another mix answers more of the held rows (positions) rightly, by more than one
    standard error of the paired difference: the best of several scores is partly luck.
    """
    end = state_of(network)

    def right() -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        logits = answered(network, examples, held, precision)
        return np.asarray((logits.argmax(1) == task.codes[held]) * task.weights[held], dtype=np.float64)

    whole, best, most = right(), 1.0, 0.0
    for share in SHARES:
        mixed(network, start, end, share)
        gains = right() - whole
        if gains.sum() > max(most, float(np.sqrt(np.square(gains).sum()))):
            best, most = share, float(gains.sum())
    mixed(network, start, end, best)
    return best
