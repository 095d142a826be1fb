"""Rows distorted the same way every time, so that what a network makes of them can be stored."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from graftwork.backbones.base import View
from graftwork.backbones.examples import Distort
from graftwork.rows import Kind
from graftwork.training.distorting import covered, distortion

VERSION = 2
"""Of all distortions; part of every key."""


def views(
    kind: Kind, amount: str, count: int, frame: str = "whole", *, mirror: bool = True
) -> list[View | None]:
    """`count` ways to see each row: None, the row itself, and `count` - 1 fixed distortions of it.

    With amount "none" there is the row itself alone. Raises what `distortion` raises.
    """
    distort = distortion(kind, amount, frame, mirror=mirror)
    if distort is None:
        return [None]
    if kind == "text":
        distort = covered(amount)
    said = {"amount": amount, "frame": frame, "kind": kind, "mirror": mirror}
    return [None, *(Fixed(distort, said, number) for number in range(1, count))]


@dataclass(frozen=True)
class Fixed:
    """One of the fixed distortions of a row; every draw follows from its number and the row's content."""

    distort: Distort
    said: Mapping[str, Any]
    number: int

    @property
    def key(self) -> Mapping[str, Any]:
        # another torch may round, draw or interpolate otherwise
        return {**self.said, "number": self.number, "version": VERSION, "torch": torch.__version__}

    def __call__(self, inputs: tuple[NDArray[Any], ...], digest: bytes) -> tuple[NDArray[Any], ...]:
        """See `View`; what is not of floating point is rounded back to its own dtype."""
        described = json.dumps(self.key, sort_keys=True).encode()
        seed = hashlib.blake2b(described + b"\0" + digest, digest_size=8).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(seed, "little") >> 1)
        first = inputs[0]
        counted = first.dtype == np.uint8
        tensors = [torch.from_numpy(np.array(one)) for one in inputs]
        if counted:
            tensors[0] = tensors[0].float()
        found = [one.numpy() for one in self.distort(tuple(tensors), generator)]
        if counted:
            found[0] = np.rint(found[0])
        return tuple(np.ascontiguousarray(a, dtype=b.dtype) for a, b in zip(found, inputs, strict=True))
