"""What a network learns from where nothing keeps its inputs: a function from positions to a batch."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from graftwork.rows import IntArray
from graftwork.training.augmentation import Augment

Batches = Callable[[IntArray], Tensor]
"""Positions of rows -> what the network takes, rows first."""


@dataclass(frozen=True)
class Fed:
    """Examples of a single input, distorted by `augment` where a generator is given."""

    batches: Batches
    augment: Augment | None = None
    lengths: IntArray | None = None

    def batch(self, index: IntArray, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        inputs = self.batches(index)
        return (inputs if generator is None or self.augment is None else self.augment(inputs, generator),)
