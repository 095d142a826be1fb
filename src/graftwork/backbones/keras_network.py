"""The torch module around a Keras model: Keras on torch is torch, but for two habits undone here."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class KerasNetwork(nn.Module):
    """(rows, height, width, 3) bytes -> (rows, width) features; maps are flattened channels last."""

    def __init__(self, keras: Any, model: nn.Module, preprocess: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.keras = keras
        self.model = model
        self.preprocess = preprocess

    def forward(self, pixels: Tensor) -> Tensor:
        # Keras moves every tensor to its default device, a GPU where there is one: the caller decides
        with self.keras.device(str(pixels.device)), _Plain():
            features: Tensor = self.model(self.preprocess(pixels.float()), training=False)
            return features.flatten(1)


_PLAIN: dict[Any, Any] = {
    torch.subtract: torch.sub,
    torch.divide: torch.div,
    torch.true_divide: torch.div,
    torch.multiply: torch.mul,
}
"""Keras writes these by their second names, for which OpenVINO has no rule."""


class _Plain(TorchFunctionMode):
    """Every operation by its first name."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _PLAIN.get(func, func)(*args, **(kwargs or {}))
