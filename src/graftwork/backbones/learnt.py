"""What was tuned of a source's network: tensors that replace its own, or low-rank changes added to them.

A name is a tensor's in the network's state. A pair `NAME.lora_A` (rank, in) and `NAME.lora_B` (out, rank)
stands for NAME + B A (Hu et al. 2021, "LoRA"), B holding the scale. Where nothing but pairs was learnt they
may stay apart, as inputs of the source's own network (see adapters.py); else all is put into the network.
"""

import hashlib
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.errors import ArtefactError

LORA_A, LORA_B = ".lora_A", ".lora_B"
KEY = "learnt"
"""Where a backbone's config has the digest of what was tuned; absent from an unchanged source's."""
PAIRS = "pairs"
"""Where a config lists the pairs that are inputs of the network; absent where they are merged into it."""
ADAPTED = 1
"""Raised whenever pairs as inputs begin to give other numbers, or are strung otherwise."""
Pair = Sequence[Any]
"""[tensor's name, rank, in, out] of a pair, in plain JSON."""


def pairs_of(learnt: Mapping[str, NDArray[Any]]) -> list[Pair]:
    """The pairs, by name; none where something else was learnt too."""
    names = sorted(name.removesuffix(LORA_A) for name in learnt if name.endswith(LORA_A))
    if 2 * len(names) != len(learnt):
        return []
    return [[name, *learnt[name + LORA_A].shape, len(learnt[name + LORA_B])] for name in names]


def grouped(pairs: Sequence[Pair]) -> list[list[Pair]]:
    """The pairs, those together whose layers lie side by side and take as many numbers: mostly the same."""

    def beside(pair: Pair) -> tuple[str, int]:
        return str(pair[0]).removesuffix(".weight").rpartition(".")[0], pair[2]

    return [list(group) for _, group in groupby(pairs, key=beside)]


def strung(learnt: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """(1, count) float32: of each group (see `grouped`) all A, then all B."""
    numbers = []
    for group in grouped(pairs_of(learnt)):
        numbers += [learnt[f"{name}{end}"].ravel() for end in (LORA_A, LORA_B) for name, *_ in group]
    return np.concatenate(numbers, dtype=np.float32)[None]


def digest_of_learnt(learnt: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 of the tensors, their names and shapes."""
    said = hashlib.sha256()
    for name in sorted(learnt):
        array = np.ascontiguousarray(learnt[name])
        said.update(f"{name} {array.dtype} {array.shape}\n".encode())
        said.update(array.data)
    return said.hexdigest()


def check_learnt(learnt: Mapping[str, NDArray[Any]], config: Mapping[str, Any], source: str) -> None:
    """Raise ArtefactError unless these are the tensors that `config` speaks of, all of them sound.

    Looks at no network: see `apply_learnt` for whether they belong to the source's.
    """
    stated = config.get(KEY)
    if stated is None and not learnt:
        return
    if stated is None or not learnt:
        seen, other = ("tensors", "names none") if learnt else ("no tensors", "names some")
        raise ArtefactError(
            f"this backbone of source {source!r} comes with {seen} that were tuned, where its configuration "
            f"{other}; restore the artefact from a copy"
        )
    for name, array in learnt.items():
        if array.dtype != np.float32 or not np.isfinite(array).all():
            seen = f"type {array.dtype}" if array.dtype != np.float32 else "numbers that are none"
            raise ArtefactError(
                f"what was tuned of source {source!r} holds {name!r} with {seen}; expected finite float32; "
                "restore the artefact from a copy"
            )
        if name.endswith((LORA_A, LORA_B)):
            _check_pair(learnt, name, source)
    if PAIRS in config and (config[PAIRS] != pairs_of(learnt) or "layers" in config):
        raise ArtefactError(
            f"what was tuned of source {source!r} holds other pairs than its configuration lists; restore "
            "the artefact from a copy"
        )
    if digest_of_learnt(learnt) != stated:
        raise ArtefactError(
            f"the tensors that were tuned of source {source!r} are others than its configuration names; "
            "restore the artefact from a copy"
        )


def _check_pair(learnt: Mapping[str, NDArray[Any]], name: str, source: str) -> None:
    target = name.removesuffix(LORA_A).removesuffix(LORA_B)
    a, b = learnt.get(target + LORA_A), learnt.get(target + LORA_B)
    if a is None or b is None or target in learnt or not _is_pair(a.shape, b.shape):
        seen = " and ".join("none" if one is None else str(one.shape) for one in (a, b))
        raise ArtefactError(
            f"what was tuned of source {source!r} holds {target!r} as low-rank matrices of shapes {seen}; "
            "expected (rank, in) and (out, rank) alone, rank no more than in and out; restore the artefact "
            "from a copy"
        )


def _is_pair(a: Sequence[int], b: Sequence[int]) -> bool:
    # beyond the layer's own rank a pair adds nothing but memory, for every row that takes it along
    return len(a) == len(b) == 2 and a[0] == b[1] and 0 < a[0] <= min(a[1], b[0])


def apply_learnt(module: Any, learnt: Mapping[str, NDArray[Any]], source: str) -> None:
    """Put the tensors into a torch module, in place; raises ArtefactError where they do not belong to it.

    learnt: as `check_learnt` passes it. Nothing is changed where anything is refused.
    """
    import torch

    state = module.state_dict()
    values = {}
    for name, array in learnt.items():
        if name.endswith(LORA_B):
            continue
        target = name.removesuffix(LORA_A)
        down = learnt.get(target + LORA_B) if name.endswith(LORA_A) else None
        own, shape = state.get(target), array.shape if down is None else (len(down), array.shape[1])
        if own is None or tuple(own.shape) != shape:
            seen = "nothing" if own is None else f"shape {tuple(own.shape)}"
            raise ArtefactError(
                f"what was tuned holds {target!r} of shape {shape}, where source {source!r} has {seen}; it "
                "belongs to another source, or to a version of its library that named or shaped it otherwise"
            )
        value = torch.from_numpy(np.array(array))
        values[target] = value if down is None else own + torch.from_numpy(np.array(down)) @ value
    for target, value in values.items():
        state[target].copy_(value)
