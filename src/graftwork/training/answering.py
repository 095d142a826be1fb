"""What a network answers for rows that it does not learn from."""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from graftwork.backbones.base import Examples
from graftwork.rows import IntArray
from graftwork.training import machine

AT_ONCE = 64


def answered(
    network: nn.Module, examples: Examples, rows: IntArray, precision: Literal["auto", "f32", "bf16"]
) -> NDArray[np.float64]:
    """The network's logits (rows, classes) for the rows at these positions; it is left in eval mode."""
    network.eval()
    where = next(network.parameters()).device
    order = np.arange(len(rows))
    if examples.lengths is not None:
        order = np.argsort(examples.lengths[rows], kind="stable")
    found: list[tuple[IntArray, NDArray[np.float64]]] = []
    # not inference_mode: what a network keeps of it, such as positions, could not be learnt with afterwards
    with torch.no_grad(), torch.autocast(where.type, torch.bfloat16, enabled=machine.mixed(precision)):
        for part in np.array_split(order, -(-len(order) // AT_ONCE)):
            inputs = tuple(one.to(where) for one in examples.batch(rows[part], None))
            found.append((part, network(*inputs).float().cpu().numpy().astype(np.float64)))
    logits = np.empty((len(rows), found[0][1].shape[1]))
    for part, values in found:
        logits[part] = values
    return logits
