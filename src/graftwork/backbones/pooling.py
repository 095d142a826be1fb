"""The torch modules that the engine runs: normalisation in front of an encoder, pooling behind it."""

from typing import Any

import torch
from torch import Tensor, nn

from graftwork.errors import RequestError


class ImageNetwork(nn.Module):
    """(rows, height, width, 3) bytes -> (rows, width) features.

    auto: the class token where there is one, else the encoder's own pooling, else the mean.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: nn.Module, pooling: str, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.encoder = encoder
        self.token = any("cls_token" in name for name, _ in encoder.named_parameters())
        self.pooling = pooling
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        x = pixels.permute(0, 3, 1, 2).float()
        output = self.encoder(pixel_values=(x - self.mean) / self.std)
        last, pooled = output.last_hidden_state, output.get("pooler_output")
        return self._pool(last, pooled)

    def _pool(self, last: Tensor, pooled: Tensor | None) -> Tensor:
        pooling = self.pooling
        if pooling == "auto":
            pooling = "cls" if self.token else "pooled" if pooled is not None else "mean"
        if pooling == "flatten":
            return last.flatten(1)
        if pooling == "mean":
            return last.mean((2, 3)) if last.ndim == 4 else last[:, int(self.token) :].mean(1)
        if pooling == "pooled" and pooled is not None:
            return pooled.flatten(1)
        if pooling == "cls" and self.token:
            return last[:, 0]
        has = "class token" if pooling == "cls" else "pooling of its own"
        raise RequestError(f"this image source has no {has}; try pooling auto, mean or flatten")


class TextNetwork(nn.Module):
    """(rows, tokens) token numbers and mask -> (rows, width) features."""

    def __init__(self, encoder: nn.Module, pooling: str, normalise: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self.pooling = pooling
        self.normalise = normalise

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        output: Any = self.encoder(input_ids=ids, attention_mask=mask)
        pooled = self._pool(output.last_hidden_state, mask.unsqueeze(-1).to(torch.float32))
        return nn.functional.normalize(pooled, dim=1) if self.normalise else pooled

    def _pool(self, last: Tensor, mask: Tensor) -> Tensor:
        if self.pooling == "cls":
            return last[:, 0]
        if self.pooling == "max":
            return last.masked_fill(mask == 0, -1e9).amax(1)
        return (last * mask).sum(1) / mask.sum(1).clamp(min=1.0)


class AudioNetwork(nn.Module):
    """(rows, ...) sound -> (rows, width) features.

    steps: (rows,) steps of time that hold sound, where the rest is padding. Only they are pooled.
    mean: over these steps. meanstd: mean and standard deviation one after the other, twice as wide
    (the statistics pooling of x-vectors, Snyder et al. 2018). cls: the encoder's own class tokens.
    bands: outputs a step of time, all steps of the first band first; tokens: outputs before them.
    """

    def __init__(self, encoder: nn.Module, pooling: str, bands: int = 1, tokens: int = 0) -> None:
        super().__init__()
        self.encoder = encoder
        self.pooling = pooling
        self.bands = bands
        self.tokens = tokens

    def forward(self, sound: Tensor, steps: Tensor | None = None) -> Tensor:
        output: Any = self.encoder(sound)
        if self.pooling == "cls":
            pooled: Tensor = output.pooler_output
            return pooled
        last: Tensor = output.last_hidden_state[:, self.tokens :].float()
        weight = self._weight(last, steps)
        mean = (last * weight).sum(1)
        if self.pooling == "mean":
            return mean
        variance = ((last - mean.unsqueeze(1)).square() * weight).sum(1)
        return torch.cat([mean, variance.sqrt()], dim=1)

    def _weight(self, last: Tensor, steps: Tensor | None) -> Tensor:
        """(rows, steps, 1) share of each output in the mean."""
        if steps is None:
            return torch.full_like(last[..., :1], 1.0) / last.shape[1]
        time = torch.arange(last.shape[1] // self.bands, device=last.device)
        held = (time[None] < steps[:, None]).to(last.dtype).repeat(1, self.bands)
        return (held / held.sum(1, keepdim=True)).unsqueeze(-1)
