"""What was tuned of a source's network: tensors that replace its own, or low-rank changes added to them.

A name is a tensor's in the network's state. A pair `NAME.lora_A` (rank, in) and `NAME.lora_B` (out, rank)
stands for NAME + B A (Hu et al. 2021, "LoRA"), B holding the scale.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.errors import ArtefactError

LORA_A, LORA_B = ".lora_A", ".lora_B"


def digest_of_learnt(learnt: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 of the tensors, their names and shapes."""
    said = hashlib.sha256()
    for name in sorted(learnt):
        array = np.ascontiguousarray(learnt[name])
        said.update(f"{name} {array.dtype} {array.shape}\n".encode())
        said.update(array.data)
    return said.hexdigest()


def apply_learnt(module: Any, learnt: Mapping[str, NDArray[Any]], source: str) -> None:
    """Put the tensors into a torch module, in place; raises ArtefactError where they do not belong to it."""
    import torch

    state = module.state_dict()
    for name, array in learnt.items():
        if name.endswith(LORA_B):
            continue
        target = name.removesuffix(LORA_A)
        value = torch.from_numpy(np.array(array))
        own = state.get(target)
        if own is not None and name.endswith(LORA_A):
            down = torch.from_numpy(np.array(learnt[target + LORA_B]))
            value = own + (down @ value).reshape(own.shape)
        if own is None or own.shape != value.shape:
            seen = "nothing" if own is None else f"shape {tuple(own.shape)}"
            raise ArtefactError(
                f"what was tuned holds {target!r} of shape {tuple(value.shape)}, where source {source!r} has "
                f"{seen}; it belongs to another source"
            )
        own.copy_(value)
