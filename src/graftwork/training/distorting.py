"""Training rows distorted by chance as the network takes them: pictures, token numbers, sounds."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor

from graftwork.backbones.examples import Distort
from graftwork.errors import RequestError, UnknownName
from graftwork.rows import Kind
from graftwork.training.augmentation import AUGMENTATIONS, Augment, Augmentation
from graftwork.training.hearing import Sounds
from graftwork.training.randaugment import GEOMETRY, RandAugment

Amount = Literal["none", "light", "strong", "randaugment"]

PICTURES: dict[tuple[str, str], tuple[Augmentation | RandAugment, ...]] = {
    ("light", "whole"): (Augmentation(crop=0.6, colour=0.15, mirror=True),),
    ("strong", "whole"): (Augmentation(rotate=6, crop=0.35, colour=0.4, hue=0.03, erase=0.25, mirror=True),),
    ("randaugment", "whole"): (Augmentation(crop=0.6, mirror=True), RandAugment()),
    ("randaugment", "ink"): (RandAugment(GEOMETRY),),
}
"""What a network that others pretrained on photos bears; of ink and sounds, what `scratch` bears too."""
SOUNDS = {
    "light": Sounds(shift=0.05, gain=0.2, stretch=0.1, band=0.15, masks=1),
    "strong": Sounds(shift=0.1, gain=0.4, stretch=0.15, band=0.25, masks=2),
}
DROPPED = {"light": 0.1, "strong": 0.2}
"""Share of a text's tokens that are left out."""


def distortion(kind: Kind, amount: str, frame: str = "whole", *, mirror: bool = True) -> Distort | None:
    """What distorts a batch of rows of this kind, each by its own draw; None for "none".

    It takes a batch as `Examples.batch` gives it and returns one of the same shapes and dtypes.
    frame: how pictures are framed: "whole", "ink" (never mirrored) or "sound" (a recording seen as its
    spectrogram). mirror: whether left and right may be swapped (see `mirrorable`). Raises UnknownName
    for an amount that is not known, RequestError for "randaugment" of anything but pictures.
    """
    if amount not in get_args(Amount):
        raise UnknownName("augmentation", amount, get_args(Amount))
    if amount == "none":
        return None
    if amount == "randaugment" and (kind != "image" or frame == "sound"):
        raise RequestError(
            f"augmentation 'randaugment' is for pictures, these rows are of kind {kind}; try light or strong"
        )
    if frame == "sound" or kind == "image":
        return _seen(_pictures(amount, frame, mirror))
    if kind == "audio":
        return SOUNDS[amount]
    if kind == "text":
        return _without_some(DROPPED[amount])
    raise RequestError(f"rows of kind {kind} cannot be distorted; leave augmentation at none")


def mirrorable(labels: Sequence[str]) -> bool:
    """Whether pictures of these labels keep them when left and right are swapped.

    Not where a label speaks of a side or a turn, nor where labels are single letters or digits.
    """
    signs = sum(len(label.strip()) == 1 for label in labels)
    return signs <= len(labels) / 2 and not any(_DIRECTION.search(_spaced(label)) for label in labels)


_DIRECTION = re.compile(
    r"\b(left|right|leftwards?|rightwards?|(counter|anti)?clockwise|east|west|port|starboard"
    r"|links|rechts|gauche|droite|izquierd[ao]|derech[ao]|sinistr[ao]|destr[ao]|esquerd[ao]|direit[ao])\b"
    r"|[左右]|顺时针|逆时针|лев|прав",
    re.IGNORECASE,
)


def _spaced(label: str) -> str:
    """turn_left, TurnLeft, turn-left2 -> words apart."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|[_\W\d]+", " ", label)


def _pictures(amount: str, frame: str, mirror: bool) -> tuple[Augment, ...]:
    if (amount, frame) in PICTURES:
        found = PICTURES[amount, frame]
    else:
        augmentation = AUGMENTATIONS[amount, frame]
        assert augmentation is not None
        found = (augmentation,)
    return tuple(
        replace(one, mirror=one.mirror and mirror) if isinstance(one, Augmentation) else one for one in found
    )


def _seen(steps: tuple[Augment, ...]) -> Distort:
    """`steps`, which take channels first and 0..1, for pictures (rows, height, width, channels) in 0..255."""

    def distort(inputs: tuple[Tensor, ...], generator: torch.Generator) -> tuple[Tensor, ...]:
        pictures, *others = inputs
        seen = pictures.permute(0, 3, 1, 2) / 255
        for step in steps:
            seen = step(seen, generator)
        # laid out as undistorted ones are: convolutions are fastest with channels last
        return ((255 * seen.permute(0, 2, 3, 1)).contiguous(), *others)

    return distort


def _without_some(share: float) -> Distort:
    """Token numbers and mask (rows, longest) with some tokens left out and those behind them moved up.

    A text's first and last token stay, which is where special ones are; one that would lose all others
    keeps them all. What is left at the end is padding: 0, masked.
    """

    def distort(inputs: tuple[Tensor, ...], generator: torch.Generator) -> tuple[Tensor, ...]:
        ids, mask, *others = inputs
        kept = _kept(mask, share, generator)
        # a stable sort of False before True: kept tokens move to the front in their order
        order = torch.argsort((~kept).to(torch.int8), dim=1, stable=True)
        fewer = kept.gather(1, order)
        return (ids.gather(1, order) * fewer, fewer.to(mask.dtype), *others)

    return distort


def covered(amount: str) -> Distort:
    """As many tokens as are else left out are covered by a copy of the one before: the mask stays.

    For stored views, whose rows share one mask.
    """

    def distort(inputs: tuple[Tensor, ...], generator: torch.Generator) -> tuple[Tensor, ...]:
        ids, mask, *others = inputs
        kept = _kept(mask, DROPPED[amount], generator) | ~mask.bool()
        place = torch.arange(ids.shape[1], device=ids.device)
        # the last kept place up to here; the first token always is one
        source = torch.where(kept, place, 0).cummax(1).values
        return (ids.gather(1, source), mask, *others)

    return distort


def _kept(mask: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """(rows, longest) True for tokens that stay."""
    place = torch.arange(mask.shape[1], device=mask.device)
    last = (mask * (place + 1)).amax(1, keepdim=True) - 1
    edge = (place == 0) | (place == last)
    lucky = torch.rand(mask.shape, generator=generator).to(mask.device) >= share
    inner = mask.bool() & ~edge
    none_left = ~(lucky & inner).any(1, keepdim=True)
    return mask.bool() & (lucky | edge | none_left)
