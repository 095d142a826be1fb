"""Dropout in a third of torch's time on processors, where its own draws are made one by one."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_LEVELS = 2**16


class Quick(TorchFunctionMode):
    """Inside, `F.dropout` (and so `nn.Dropout`) draws 16 bits a number, four numbers at a time.

    A rate is rounded to 1/65536. Draws follow torch's generator, as they would otherwise.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.dropout:
            return dropout(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """As `F.dropout`; never in place."""
    level = round(p * _LEVELS)
    if not training or level == 0 or input.device.type != "cpu":
        return F.dropout(input, p, training) if training else input
    dropped: Tensor = _Dropout.apply(input, level)  # type: ignore[no-untyped-call]
    return dropped


def drops(network: nn.Module) -> bool:
    """Whether anything in the network is dropped by chance."""
    return any(isinstance(one, nn.Dropout) and one.p > 0 for one in network.modules())


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, level: int) -> Tensor:
        bits = torch.empty(-(-input.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        numbers = bits.view(torch.int16)[: input.numel()]
        kept = (numbers >= level - _LEVELS // 2).view(input.shape)
        ctx.save_for_backward(kept)
        ctx.scale = 0.0 if level == _LEVELS else _LEVELS / (_LEVELS - level)
        return _scaled(input, kept, ctx.scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (kept,) = ctx.saved_tensors
        return _scaled(gradients[0], kept, ctx.scale), None


def _scaled(values: Tensor, kept: Tensor, scale: float) -> Tensor:
    """values * kept * scale in one pass, whatever the name of what does it says."""
    found: Tensor = torch.ops.aten.native_dropout_backward(values, kept, scale)
    return found
