"""The torch modules that the engine runs: normalisation in front of an encoder, pooling behind it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, nn

from graftwork.errors import RequestError
from graftwork.networks import CompactNet


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

    def pooled(self, hidden: Tensor, pixels: Tensor) -> Tensor:
        """What comes out of a block, pooled: a map over its positions, tokens as the network's own are."""
        if hidden.ndim == 4:
            return hidden.mean((2, 3))
        return hidden[:, 0] if self.token and self.pooling != "mean" else hidden.mean(1)


class CompactFeatures(nn.Module):
    """(rows, side, side, channels) bytes -> (rows, width) features of a compact network, by its own names."""

    def __init__(self, network: CompactNet) -> None:
        super().__init__()
        self.trunk, self.pool = network.trunk, network.pool

    def forward(self, pixels: Tensor) -> Tensor:
        pictures = pixels.permute(0, 3, 1, 2).float() / 255
        features: Tensor = self.pool(self.trunk(2 * pictures - 1))
        return features


class TextNetwork(nn.Module):
    """(rows, tokens) token numbers and mask -> (rows, width) features."""

    def __init__(self, encoder: nn.Module, pooling: str, normalise: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self.pooling = pooling
        self.normalise = normalise

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        output: Any = self.encoder(input_ids=ids, attention_mask=mask)
        return self.pooled(output.last_hidden_state, ids, mask)

    def pooled(self, hidden: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """What comes out of a block, pooled as the last of them is."""
        pooled = self._pool(hidden, mask.unsqueeze(-1).to(torch.float32))
        return nn.functional.normalize(pooled, dim=1) if self.normalise else pooled

    def _pool(self, last: Tensor, mask: Tensor) -> Tensor:
        if self.pooling == "cls":
            return last[:, 0]
        if self.pooling == "max":
            return last.masked_fill(mask == 0, -1e9).amax(1)
        return (last * mask).sum(1) / mask.sum(1).clamp(min=1.0)


class AudioNetwork(nn.Module):
    """(rows, ...) sound -> (rows, width) features.

    steps: (rows,) steps of time that hold sound, where the rest is padding. Only they are pooled, and of
    samples only they are attended to.
    mean: over these steps. meanstd: mean and standard deviation one after the other, twice as wide
    (the statistics pooling of x-vectors, Snyder et al. 2018). cls: the encoder's own class tokens.
    bands: outputs a step of time, all steps of the first band first; tokens: outputs before them.
    samples: of the first step, and of each that follows; None where spectra are heard.
    """

    def __init__(
        self,
        encoder: nn.Module,
        pooling: str,
        bands: int = 1,
        tokens: int = 0,
        samples: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.pooling = pooling
        self.bands = bands
        self.tokens = tokens
        self.samples = samples

    def forward(self, sound: Tensor, steps: Tensor | None = None) -> Tensor:
        if self.samples is None or steps is None:
            output: Any = self.encoder(sound)
        else:
            first, more = self.samples
            end = first + more * (steps - 1)
            held = torch.arange(sound.shape[1], device=sound.device)[None] < end[:, None]
            with held_alone(self.encoder, end):
                output = self.encoder(sound, attention_mask=held.long())
        if self.pooling == "cls":
            pooled: Tensor = output.pooler_output
            return pooled
        last: Tensor = output.last_hidden_state[:, self.tokens :].float()
        weight = self._weight(last, self._held(last, sound, steps))
        mean = (last * weight).sum(1)
        if self.pooling == "mean":
            return mean
        variance = ((last - mean.unsqueeze(1)).square() * weight).sum(1)
        # where nothing varies the root has no slope
        return torch.cat([mean, variance.clamp(min=torch.finfo(variance.dtype).tiny).sqrt()], dim=1)

    def pooled(self, hidden: Tensor, sound: Tensor, steps: Tensor | None = None) -> Tensor:
        """The mean of what comes out of a block, over the steps that hold sound."""
        if self.pooling == "cls":
            return hidden[:, : self.tokens].mean(1)
        outputs = hidden[:, self.tokens :].float()
        return (outputs * self._weight(outputs, self._held(outputs, sound, steps))).sum(1)

    def _held(self, last: Tensor, sound: Tensor, steps: Tensor | None) -> Tensor | None:
        """(rows,) outputs that hold sound: of some encoders fewer come out than steps go in."""
        if self.samples is None or steps is None:
            return steps
        first, more = self.samples
        entered = (sound.shape[1] - first) // more + 1
        return torch.div(steps * last.shape[1] + entered - 1, entered, rounding_mode="floor")

    def _weight(self, last: Tensor, steps: Tensor | None) -> Tensor:
        """(rows, steps, 1) share of each output in the mean."""
        if steps is None:
            return torch.full_like(last[..., :1], 1.0) / last.shape[1]
        time = torch.arange(last.shape[1] // self.bands, device=last.device)
        held = (time[None] < steps[:, None]).to(last.dtype).repeat(1, self.bands)
        return (held / held.sum(1, keepdim=True)).unsqueeze(-1)


class LayersNetwork(nn.Module):
    """The same inputs -> what comes out of each of `blocks`, pooled, then the network's own features."""

    def __init__(self, network: nn.Module, blocks: Sequence[str]) -> None:
        super().__init__()
        self.network = network
        # by thread: rows run through one network at once, each on a thread of its own
        self._found: dict[tuple[int, str], Tensor] = {}
        self.blocks = tuple(blocks)
        for name in self.blocks:
            network.get_submodule(name).register_forward_hook(partial(self._keep, name))

    def forward(self, *inputs: Tensor) -> Tensor:
        return torch.cat(self._parts(*inputs), dim=1)

    def widths(self, *inputs: Tensor) -> list[int]:
        """Features of each block."""
        return [int(part.shape[1]) for part in self._parts(*inputs)[:-1]]

    def _parts(self, *inputs: Tensor) -> list[Tensor]:
        network: Any = self.network
        features: Tensor = network(*inputs)
        found = [self._found.pop((get_ident(), name)) for name in self.blocks]
        return [*(network.pooled(one, *inputs).float() for one in found), features]

    def _keep(self, name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        self._found[get_ident(), name] = output[0] if isinstance(output, tuple | list) else output


class HeldNorm(nn.GroupNorm):
    """(rows, channels, frames), each channel normalised over the frames that hold sound.

    ends: (rows,) samples of sound in each, by the thread that runs them; none there for all. span, hop:
    samples of a frame, and between two.
    """

    def __init__(self, norm: nn.GroupNorm, span: int, hop: int) -> None:
        super().__init__(norm.num_groups, norm.num_channels, norm.eps, norm.affine)
        self.weight, self.bias = norm.weight, norm.bias
        self.span, self.hop = span, hop
        self.ends: dict[int, Tensor] = {}

    def forward(self, frames: Tensor) -> Tensor:
        ends = self.ends.get(get_ident())
        if ends is None:
            return super().forward(frames)
        count = torch.div(ends - self.span, self.hop, rounding_mode="floor") + 1
        time = torch.arange(frames.shape[2], device=frames.device)
        weight = (time[None] < count[:, None]).to(frames.dtype)[:, None] / count[:, None, None]
        mean = (frames * weight).sum(2, keepdim=True)
        variance = ((frames - mean).square() * weight).sum(2, keepdim=True)
        scaled = (frames - mean) * (variance + self.eps).rsqrt()
        return scaled * self.weight[:, None] + self.bias[:, None]


def with_held_norms(encoder: nn.Module) -> nn.Module:
    """The encoder of samples, in place: its norms over time may leave padding out (see `held_alone`)."""
    config: Any = encoder.config
    for parent in list(encoder.modules()):
        for name, norm in list(parent.named_children()):
            # one group a channel: over time alone, after the first convolution
            if isinstance(norm, nn.GroupNorm) and norm.num_groups == norm.num_channels:
                setattr(parent, name, HeldNorm(norm, config.conv_kernel[0], config.conv_stride[0]))
    return encoder


@contextmanager
def held_alone(encoder: nn.Module, ends: Tensor) -> Iterator[None]:
    """Norms over time see the first `ends` (rows,) samples of each row alone inside."""
    norms = [module for module in encoder.modules() if isinstance(module, HeldNorm)]
    for norm in norms:
        norm.ends[get_ident()] = ends
    try:
        yield
    finally:
        for norm in norms:
            del norm.ends[get_ident()]
