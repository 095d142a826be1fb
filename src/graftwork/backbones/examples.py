"""Rows as a network's inputs, prepared once and kept for many passes: pixels, token numbers, activations."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graftwork.backbones.base import Examples
from graftwork.rows import IntArray

Distort = Callable[[tuple[Tensor, ...], torch.Generator], tuple[Tensor, ...]]
"""A batch as `Examples.batch` gives it -> the same, each row by its own draw."""


@dataclass(frozen=True)
class Pictures:
    """pixels: (rows, height, width, 3) bytes, perhaps mapped from a file."""

    pixels: NDArray[np.uint8]
    lengths: None = None

    def batch(self, index: IntArray, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        return (torch.from_numpy(np.asarray(self.pixels[index], dtype=np.float32)),)


@dataclass(frozen=True)
class Tokens:
    """tokens: each text's token numbers. lengths: (rows,) padded length of each text alone."""

    tokens: Sequence[Sequence[int]]
    lengths: IntArray

    def batch(self, index: IntArray, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        """Token numbers and mask, (rows, longest) int64."""
        ids = torch.zeros(len(index), int(self.lengths[index].max()), dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, i in enumerate(index):
            known = torch.tensor(self.tokens[i], dtype=torch.int64)
            ids[row, : len(known)] = known
            mask[row, : len(known)] = 1
        return ids, mask


@dataclass(frozen=True)
class Activations:
    """What enters a block, kept. views[v][i]: row i's numbers in view v (view 0 undistorted), flattened.

    others: the network's inputs besides, such as a text's mask; texts are padded to the longest.
    """

    views: Sequence[Sequence[NDArray[np.float32]]]
    others: Examples | None = None

    @property
    def lengths(self) -> IntArray | None:
        return None if self.others is None else self.others.lengths

    def batch(self, index: IntArray, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        """(hidden (rows, numbers), *others); each row's view by chance where a generator is given."""
        if generator is None or len(self.views) == 1:
            chosen = [self.views[0][i] for i in index]
        else:
            drawn = torch.randint(len(self.views), (len(index),), generator=generator)
            chosen = [self.views[int(v)][i] for v, i in zip(drawn, index, strict=True)]
        hidden = torch.zeros(len(index), max(len(one) for one in chosen))
        for row, one in enumerate(chosen):
            hidden[row, : len(one)] = torch.from_numpy(np.array(one))
        return (hidden, *(() if self.others is None else self.others.batch(index, None)))


@dataclass(frozen=True)
class Distorted:
    """`examples`, distorted by chance wherever a generator is given."""

    examples: Examples
    distort: Distort

    @property
    def lengths(self) -> IntArray | None:
        return self.examples.lengths

    def batch(self, index: IntArray, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        inputs = self.examples.batch(index, None)
        return inputs if generator is None else self.distort(inputs, generator)
