"""The frozen part of a network as a backbone of its own, so that what enters a block can be stored."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from graftwork import paths
from graftwork.backbones import cutting, engine
from graftwork.backbones.base import BackboneState, Cut, Keep, View, labelled_matrix
from graftwork.backbones.examples import Activations
from graftwork.backbones.pretrained import Pretrained, blank
from graftwork.records import Extraction, Features, Notify, Progress, silent
from graftwork.rows import Kind, Rows

VERSION = 1


@dataclass(frozen=True)
class Frozen:
    """Rows -> what enters `block` of the network, flattened, float32.

    steps: the padded length that all rows have, where rows differ in length.
    """

    whole: Pretrained
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
            batches = self.whole.batches(rows, unreadable)
            engine.collect(
                runner, (self._seen(rows, batch) for batch in batches), out, notify, "frozen layers"
            )
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


def recipe(whole: Pretrained, block: str) -> engine.Recipe:
    own = whole.recipe
    key = {**own.key, "before": block, "cut": VERSION}
    return engine.Recipe(key, lambda: cutting.Prefix(whole.network(), block), own.example, own.lengths)


def cut(
    whole: Pretrained, block: str, rows: Rows, views: Sequence[View | None], keep: Keep, notify: Notify
) -> Cut:
    """See `Tunable.cut`."""
    example = tuple(torch.from_numpy(array) for array in whole.example_inputs())
    parted = cutting.part(whole.network, block, example, whole.source.name)
    block = parted.suffix.block
    others = whole.examples(rows) if -1 in parted.shape else None
    lengths = np.zeros(len(rows), np.int64) if others is None else others.lengths
    assert lengths is not None, "rows whose inputs vary in shape have lengths"

    def sample() -> Sequence[engine.Arrays]:
        notify(Progress("comparing runtimes, once for this source", 0, None, "rows"))
        found = whole.sample_inputs(rows)
        # of one shape: what enters a block is as long as the row
        ((shape, _),) = Counter(arrays[0].shape for arrays in found).most_common(1)
        return [arrays for arrays in found if arrays[0].shape == shape]

    wanted = None if whole.config["runtime"] == "openvino" else whole.config["runtime"]
    path = engine.decide(recipe(whole, block), sample, wanted)
    kept: list[list[NDArray[np.float32]]] = []
    for view in views:
        hidden: list[Any] = [None] * len(rows)
        for steps in np.unique(lengths):
            members = np.flatnonzero(lengths == steps)
            frozen = Frozen(whole, block, parted.shape, int(steps) or None, view, path)
            matrix = labelled_matrix(keep(frozen), rows.take(members), notify)
            for place, i in enumerate(members):
                hidden[i] = matrix[place]
        kept.append(hidden)
    names = frozenset(f"network.{name}" for name in parted.late)
    return Cut(block, parted.suffix, Activations(kept, others), names, "network.")
