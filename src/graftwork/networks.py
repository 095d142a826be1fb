"""Networks of our own, each described wholly by a small config: a compact one for pictures, one for texts.

The compact network is built of inverted residual blocks (Sandler et al. 2018, "MobileNetV2"). The text
network embeds a word as the mean of its hashed character n-grams (Bojanowski et al. 2017), mixes
neighbours by convolution and pools by attention, so it needs no vocabulary.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from graftwork.errors import ArtefactError


@dataclass(frozen=True)
class Block:
    """One inverted residual block: output width, stride and the factor its middle is wider by."""

    width: int
    stride: int
    expansion: int


@dataclass(frozen=True)
class CompactConfig:
    """channels: 1 grey, 3 colour. size: input side in pixels. features: width after pooling.

    `stem` and `stem_stride` are the first convolution's width and stride. `cells`: the last map is
    averaged down to cells x cells, which a learned weighting per feature then sums (1: a plain mean).
    """

    channels: int
    size: int
    stem: int
    stem_stride: int
    blocks: tuple[Block, ...]
    features: int
    cells: int = 1

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "blocks": [asdict(block) for block in self.blocks]}

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> Self:
        """Raises ArtefactError where the config is not one of this network."""
        try:
            blocks = tuple(Block(**block) for block in config["blocks"])
            return cls(**{**config, "blocks": blocks})
        except (KeyError, TypeError) as error:
            raise _strange_config("a compact network", error) from error


def _strange_config(what: str, error: Exception) -> ArtefactError:
    return ArtefactError(
        f"the config of {what} is incomplete or of another version ({error}); expected the fields that "
        "this graftwork writes. Make the source or fit the model again"
    )


def compact_config(channels: int, size: int, cells: int = 1) -> CompactConfig:
    """The default network for pictures of `size` pixels a side: 100,000 to 130,000 parameters."""
    blocks = (Block(24, 1, 3), Block(40, 2, 3), Block(40, 1, 4), Block(72, 2, 4), Block(72, 1, 4))
    config = CompactConfig(channels, size, 16, 2, blocks, 192, cells)
    if size < 24:
        return replace(config, stem_stride=1)
    if size > 48:
        deeper = (Block(24, 2, 3), Block(32, 1, 3), Block(48, 2, 3), Block(48, 1, 3))
        return replace(config, blocks=(*deeper, Block(80, 2, 4), Block(80, 1, 4)))
    return config


class CompactNet(nn.Module):
    """Pictures (n, channels, side, side) in 0..1 -> features (n, width) and logits (n, classes)."""

    def __init__(self, config: CompactConfig, classes: int) -> None:
        super().__init__()
        self.config = config
        layers: list[nn.Module] = [_convolution(config.channels, config.stem, 3, config.stem_stride)]
        width = config.stem
        for block in config.blocks:
            layers.append(InvertedResidual(width, block))
            width = block.width
        layers.append(_convolution(width, config.features, 1))
        self.trunk = nn.Sequential(*layers)
        self.pool = Pool(config.features, config.cells)
        self.classifier = nn.Linear(config.features, classes)

    def features(self, pictures: Tensor) -> Tensor:
        # centred on the middle grey: batch normalisation of the first layer learns quicker
        return cast(Tensor, self.pool(self.trunk(2 * pictures - 1)))

    def forward(self, pictures: Tensor) -> Tensor:
        return cast(Tensor, self.classifier(self.features(pictures)))


class Pool(nn.Module):
    """Mean over the map, or a learned weighting of its cells x cells averages, per feature."""

    def __init__(self, width: int, cells: int) -> None:
        super().__init__()
        self.cells = nn.AdaptiveAvgPool2d(cells)
        self.weight = nn.Parameter(torch.full((width, cells * cells), 1 / cells**2)) if cells > 1 else None

    def forward(self, maps: Tensor) -> Tensor:
        averaged: Tensor = self.cells(maps).flatten(2)
        return averaged.squeeze(2) if self.weight is None else (averaged * self.weight).sum(2)


class InvertedResidual(nn.Module):
    """Widen by 1x1, filter each channel by 3x3, narrow by 1x1; added to its input where shapes allow."""

    def __init__(self, width: int, block: Block) -> None:
        super().__init__()
        middle = width * block.expansion
        self.layers = nn.Sequential(
            _convolution(width, middle, 1),
            _convolution(middle, middle, 3, block.stride, groups=middle),
            _convolution(middle, block.width, 1, active=False),
        )
        self.residual = block.stride == 1 and width == block.width

    def forward(self, maps: Tensor) -> Tensor:
        changed: Tensor = self.layers(maps)
        return maps + changed if self.residual else changed


def _convolution(
    width: int, out: int, side: int, stride: int = 1, *, groups: int = 1, active: bool = True
) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(width, out, side, stride, side // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out),
    ]
    return nn.Sequential(*layers, nn.ReLU(inplace=True)) if active else nn.Sequential(*layers)


def channels_last(network: nn.Module) -> None:
    """Lay the convolutions' weights out channels last, in place: quicker on processors."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)


def folded(trunk: nn.Sequential) -> nn.Sequential:
    """A copy in eval mode with every batch normalisation folded into the convolution before it."""
    copy = deepcopy(trunk).eval()
    for module in list(copy.modules()):
        if isinstance(module, nn.Sequential) and len(module) > 1 and isinstance(module[1], nn.BatchNorm2d):
            convolution = module[0]
            assert isinstance(convolution, nn.Conv2d)
            module[0] = fuse_conv_bn_eval(convolution, module[1])
            module[1] = nn.Identity()
    return copy


@dataclass(frozen=True)
class SubwordConfig:
    """buckets: rows of the n-gram table. width: of an embedding and of the features' halves.

    layers: residual convolutions of `span` neighbouring tokens each.
    """

    buckets: int = 16_384
    width: int = 64
    layers: int = 2
    span: int = 3

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> Self:
        """Raises ArtefactError where the config is not one of this network."""
        try:
            return cls(**config)
        except TypeError as error:
            raise _strange_config("a subword network", error) from error


class SubwordNet(nn.Module):
    """Tokens (n, length, n-grams) int64, 0 for none -> features (n, 2 width) and logits (n, classes)."""

    def __init__(self, config: SubwordConfig, classes: int) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.EmbeddingBag(config.buckets, config.width, mode="mean", padding_idx=0)
        nn.init.normal_(self.embedding.weight, std=0.1)
        self.layers = nn.ModuleList(
            nn.Conv1d(config.width, config.width, config.span, padding=config.span // 2)
            for _ in range(config.layers)
        )
        self.attention = nn.Linear(config.width, 1)
        self.classifier = nn.Linear(2 * config.width, classes)

    def features(self, tokens: Tensor) -> Tensor:
        n, length, grams = tokens.shape
        present = (tokens[:, :, 0] > 0).unsqueeze(1)
        words = self.embedding(tokens.reshape(n * length, grams)).reshape(n, length, -1).transpose(1, 2)
        for layer in self.layers:
            # absent tokens stay zero, so that a text's features do not know how far it was padded
            words = (words + torch.relu(layer(words))) * present
        weight = self.attention(words.transpose(1, 2)).transpose(1, 2)
        weight = weight.masked_fill(~present, -1e4).softmax(2) * present
        attended = (words * weight).sum(2)
        strongest = words.masked_fill(~present, -1e4).amax(2) * present.any(2)
        return torch.cat([attended, strongest], 1)

    def forward(self, tokens: Tensor) -> Tensor:
        return cast(Tensor, self.classifier(self.features(tokens)))
