"""Rows as a network's inputs, prepared once and kept for many passes: pixels, token numbers, activations."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

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

    def tight(self) -> "Tokens":
        """The same, each text as long as it is alone, so that a batch is padded to its longest and no more.

        For passes whose batches are fixed: here a row's last bits depend on its neighbours.
        """
        return Tokens(self.tokens, np.array([max(1, len(one)) for one in self.tokens], dtype=np.int64))


@dataclass(frozen=True)
class Activations:
    """What enters a block, kept. views[v][k]: (rows of the k-th shape, numbers), in view v (0 undistorted).

    shape, place: (rows,) which of the matrices a row lies in, and where. others: the network's inputs
    besides, such as a text's mask. unit: numbers a step where rows differ in length; a batch is then as
    long as its longest row, zeros after the ends of the others.
    """

    views: Sequence[Sequence[NDArray[np.float32]]]
    shape: IntArray
    place: IntArray
    others: Examples | None = None
    unit: int | None = None

    @property
    def lengths(self) -> IntArray | None:
        return None if self.others is None else self.others.lengths

    def batch(self, index: IntArray, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        """(hidden (rows, numbers), *others); each row's view by chance where a generator is given."""
        view = np.zeros(len(index), np.int64)
        if generator is not None and len(self.views) > 1:
            view = torch.randint(len(self.views), (len(index),), generator=generator).numpy()
        others = () if self.others is None else self.others.batch(index, None)
        return (self._hidden(index, view), *others)

    def _hidden(self, index: IntArray, view: IntArray) -> Tensor:
        shape, width = self.shape[index], self._width(index)
        kinds = sorted(set(zip(view.tolist(), shape.tolist(), strict=True)))
        ((v, k), *others) = kinds
        if not others and self.views[v][k].shape[1] == width:
            hidden = torch.empty(len(index), width)
            # torch's own memory, used again each step; clip: without a copy between. Nothing is clipped
            np.take(self.views[v][k], self.place[index], axis=0, out=hidden.numpy(), mode="clip")
            return hidden
        hidden = torch.zeros(len(index), width)
        for v, k in kinds:
            members = np.flatnonzero((view == v) & (shape == k))
            found = np.asarray(self.views[v][k])[:, :width][self.place[index[members]]]
            hidden.numpy()[members, : found.shape[1]] = found
        return hidden

    def _width(self, index: IntArray) -> int:
        if self.unit is None or self.lengths is None:
            return max(int(self.views[0][k].shape[1]) for k in np.unique(self.shape[index]))
        return int(self.lengths[index].max()) * self.unit


@dataclass(frozen=True)
class Sounds:
    """arrays: each recording's network inputs (1, ...), of which the first may differ in length.

    lengths: (rows,) steps of each, None where all are alike.
    """

    arrays: Sequence[tuple[NDArray[Any], ...]]
    lengths: IntArray | None = None

    def batch(self, index: IntArray, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        """Inputs of these rows; samples are followed by silence up to the longest, and by the steps."""
        rows = [self.arrays[i] for i in index]
        if self.lengths is None:
            return tuple(torch.from_numpy(np.concatenate(parts)) for parts in zip(*rows, strict=True))
        sound = np.zeros((len(rows), max(row[0].shape[1] for row in rows)), np.float32)
        for place, (samples, *_) in enumerate(rows):
            sound[place, : samples.shape[1]] = samples[0]
        return torch.from_numpy(sound), torch.from_numpy(self.lengths[index])


@dataclass(frozen=True)
class Rest:
    """The inputs of `examples` but for the first ones."""

    examples: Examples
    first: int

    @property
    def lengths(self) -> IntArray | None:
        return self.examples.lengths

    def batch(self, index: IntArray, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        return self.examples.batch(index, generator)[self.first :]


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
