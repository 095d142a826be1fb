"""The frozen part of a network as a backbone of its own, so that what enters a block can be stored."""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from graftwork import paths
from graftwork.backbones import engine
from graftwork.backbones.base import BackboneState, Cut, Examples, Keep, View, labelled_matrix
from graftwork.backbones.examples import Activations, Rest
from graftwork.backbones.pretrained import blank
from graftwork.records import Extraction, Features, Notify, Progress, silent
from graftwork.rows import IntArray, Kind, Rows

if TYPE_CHECKING:
    from graftwork.backbones.cutting import Parted

VERSION = 1
STEP = 8
"""Rows that differ in length are kept by lengths rounded up to this: few files, little of them empty."""


class Whole(Protocol):
    """A backbone whose network can be parted and run by the engine."""

    @property
    def kind(self) -> Kind: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def recipe(self) -> engine.Recipe: ...

    @property
    def runtime(self) -> engine.Runtime: ...

    def parted(self, block: str) -> "Parted":
        """See `cutting.part`."""
        ...

    def before(self, block: str) -> Any:
        """A torch module: the network's inputs -> what enters the block, flattened, float32."""
        ...

    def one_a_row(self, rows: Rows, unreadable: dict[int, str]) -> Iterable[engine.Batch]:
        """The network's inputs of every readable row, one set of them a row."""
        ...

    def sample_inputs(self, rows: Rows | None) -> Sequence[engine.Arrays]:
        """Inputs of some rows, one row each."""
        ...

    def examples(self, rows: Rows, notify: Notify = silent) -> Examples: ...


@dataclass(frozen=True)
class Frozen:
    """Rows -> what enters `block` of the network, flattened, float32.

    steps: of rows that differ in length, the length up to which these are filled with zeros.
    """

    whole: Whole
    block: str
    shape: tuple[int, ...]
    steps: int | None
    view: View | None
    path: engine.Decision

    @property
    def kind(self) -> Kind:
        return self.whole.kind

    @property
    def width(self) -> int:
        return prod((self.steps or 1) if size == -1 else size for size in self.shape)

    @cached_property
    def fingerprint(self) -> str:
        return paths.digest_of(
            {
                "whole": self.whole.fingerprint,
                "block": self.block,
                "version": VERSION,
                "steps": self.steps,
                "view": None if self.view is None else dict(self.view.key),
                "runtime": [self.path.runtime, engine.runtime_version(self.path.runtime)],
                "precision": self.path.precision,
            }
        )

    def features(self, rows: Rows, notify: Notify = silent) -> Features:
        started = time.perf_counter()
        out = blank(len(rows), self.width)
        unreadable: dict[int, str] = {}
        if len(rows):
            runner = engine.runner(recipe(self.whole, self.block), self.path.runtime, self.path.precision)
            batches = (self._seen(rows, batch) for batch in self.whole.one_a_row(rows, unreadable))
            engine.collect(runner, batches, _Filled(out), notify, "frozen layers")
        out[list(unreadable)] = np.nan
        seconds, path = time.perf_counter() - started, self.path
        done = len(rows) - len(unreadable)
        extraction = Extraction(len(rows), done, 0, seconds, path.runtime, path.precision, path.parity)
        return Features({"hidden": out}, dict(sorted(unreadable.items())), extraction)

    def _seen(self, rows: Rows, batch: engine.Batch) -> engine.Batch:
        if self.view is None:
            return batch
        positions, arrays = batch
        seen = [
            self.view(tuple(array[k : k + 1] for array in arrays), rows.column.digest(int(i)))
            for k, i in enumerate(positions)
        ]
        return positions, tuple(np.concatenate(parts) for parts in zip(*seen, strict=True))

    def state(self) -> BackboneState:
        raise AssertionError("the frozen part of a network is no model's backbone")


class _Filled:
    """An array (rows, width) into which shorter rows are put, zeros after their ends."""

    def __init__(self, out: NDArray[np.float32]) -> None:
        self.out = out

    def __len__(self) -> int:
        return len(self.out)

    def __setitem__(self, positions: IntArray, values: NDArray[np.float32]) -> None:
        self.out[positions, : values.shape[1]] = values
        self.out[positions, values.shape[1] :] = 0


def recipe(whole: Whole, block: str) -> engine.Recipe:
    own = whole.recipe
    key = {**own.key, "before": block, "cut": VERSION}
    return engine.Recipe(key, lambda: whole.before(block), own.example, own.lengths)


def cut(
    whole: Whole, block: str, rows: Rows, views: Sequence[View | None], keep: Keep, notify: Notify
) -> Cut:
    """See `Tunable.cut`."""
    parted = whole.parted(block)
    varying = -1 in parted.shape
    inputs = whole.examples(rows) if varying or parted.others else None
    lengths = None if inputs is None else inputs.lengths
    shapes = np.zeros(len(rows), np.int64)
    if varying:
        assert lengths is not None, "rows whose inputs vary in shape have lengths"
        shapes = np.asarray(-(-lengths // STEP) * STEP)
    path = _settled(whole, parted.block, rows, notify)
    kinds, shape = np.unique(shapes, return_inverse=True)
    place = np.empty(len(rows), np.int64)
    kept: list[list[NDArray[np.float32]]] = [[] for _ in views]
    for k, steps in enumerate(kinds):
        members = np.flatnonzero(shape == k)
        place[members] = np.arange(len(members))
        for view, matrices in zip(views, kept, strict=True):
            frozen = Frozen(whole, parted.block, parted.shape, int(steps) or None, view, path)
            matrices.append(labelled_matrix(keep(frozen), rows.take(members), notify))
    names = frozenset(f"network.{name}" for name in parted.late)
    first = len(whole.recipe.example()) - parted.others
    others = None if inputs is None else inputs if varying else Rest(inputs, first)
    unit = prod(parted.shape[1:]) if varying else None
    examples = Activations(kept, shape.astype(np.int64), place, others, unit)
    return Cut(parted.block, parted.suffix, examples, names, "network.")


def _settled(whole: Whole, block: str, rows: Rows, notify: Notify) -> engine.Decision:
    """The path that the frozen part takes on this machine."""

    def sample() -> Sequence[engine.Arrays]:
        notify(Progress("comparing runtimes, once for this source", 0, None, "rows"))
        found = whole.sample_inputs(rows)
        # of one shape: what enters a block is as long as the row
        ((shape, _),) = Counter(arrays[0].shape for arrays in found).most_common(1)
        return [arrays for arrays in found if arrays[0].shape == shape]

    wanted: engine.Runtime | None = None if whole.runtime == "openvino" else whole.runtime
    return engine.decide(recipe(whole, block), sample, wanted)
