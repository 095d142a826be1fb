"""What a training minimises: cross-entropy, and the ways it is softened or balanced."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from graftwork.errors import RequestError

Objective = Callable[[Tensor, Tensor], Tensor]
"""(what the network gives for a batch, the positions of its rows) -> a number to make small."""


@dataclass(frozen=True)
class Loss:
    """codes: (rows,) labels. importance: (rows,) weights. offsets: (classes,) added to the logits while
    learning alone (logit adjustment, Menon et al. 2021: log of the classes' shares), None for none.
    """

    codes: Tensor
    importance: Tensor
    smoothing: float
    offsets: Tensor | None = None

    def __call__(self, logits: Tensor, index: Sequence[int] | Tensor) -> Tensor:
        """Weighted mean cross-entropy of the rows at `index`, smoothed; 0 where none has any weight."""
        return self._mean(self._adjusted(logits), self.codes[index], self.importance[index])

    def mixed(self, logits: Tensor, index: Tensor, other: Tensor, share: float) -> Tensor:
        """Of rows that are `share` of row `index` and the rest of row `other` (mixup)."""
        adjusted = self._adjusted(logits)
        one = self._mean(adjusted, self.codes[index], self.importance[index])
        two = self._mean(adjusted, self.codes[other], self.importance[other])
        return share * one + (1 - share) * two

    def _adjusted(self, logits: Tensor) -> Tensor:
        logits = logits.float()
        return logits if self.offsets is None else logits + self.offsets

    def _mean(self, logits: Tensor, codes: Tensor, importance: Tensor) -> Tensor:
        losses = F.cross_entropy(logits, codes, reduction="none", label_smoothing=self.smoothing)
        return (losses * importance).sum() / importance.sum().clamp(min=torch.finfo(torch.float32).tiny)


def mix(inputs: tuple[Tensor, ...], share: float, partner: Tensor) -> tuple[Tensor, ...]:
    """Each row's first input mixed with its partner's; of masks beside it, what either has counts.

    Raises RequestError where the rows are token numbers, which have no mixture.
    """
    first, *others = inputs
    if not first.is_floating_point():
        raise RequestError(
            "mixup mixes the numbers of two rows, and these rows are token numbers; leave mixup out, or take "
            "strategy partial, which mixes what enters its first block"
        )
    both = [torch.maximum(one, one[partner]) for one in others]
    return (share * first + (1 - share) * first[partner], *both)


def mixing_share(strength: float, generator: torch.Generator) -> float:
    """A draw from Beta(strength, strength)."""
    seed = int(torch.randint(2**31, (1,), generator=generator))
    return float(np.random.default_rng(seed).beta(strength, strength))
