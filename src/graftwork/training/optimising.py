"""The optimiser and its schedule: torch's own, its groups as the layers say."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from graftwork.training.plan import Layers, Plan


def optimiser_of(network: nn.Module, layers: Sequence[Layers], plan: Plan) -> torch.optim.Optimizer:
    """One group of parameters per layers and kind; each group's `share` is its part of the plan's rate.

    Whatever no layers name takes no gradient. Raises AssertionError where the layers name none at all.
    """
    parameters = dict(network.named_parameters())
    rates = {name: group.rate for group in layers for name in group.names}
    groups: list[dict[str, object]] = []
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in rates)
    for rate in dict.fromkeys(rates.values()):
        mine = [parameters[name] for name in sorted(rates) if rates[name] == rate and name in parameters]
        # biases and normalisation hold no capacity worth shrinking
        shrunk = [value for value in mine if value.ndim > 1]
        free = [value for value in mine if value.ndim <= 1]
        groups += [
            {"params": members, "weight_decay": decay, "share": rate}
            for members, decay in ((shrunk, plan.decay), (free, 0.0))
            if members
        ]
    assert groups, "nothing of the network may learn"
    if plan.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=plan.rate, momentum=0.9, nesterov=True, fused=True)
    return torch.optim.AdamW(groups, lr=plan.rate, fused=True)


def schedule(share: float, warmup: float) -> float:
    """Linear from 0 to 1 over the first `warmup` of the training, then a half cosine to 0."""
    if share < warmup:
        return max(share, 1e-3) / warmup
    return 0.5 + 0.5 * float(np.cos(np.pi * min((share - warmup) / (1 - warmup), 1.0)))
