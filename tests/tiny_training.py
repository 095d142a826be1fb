"""Tiny networks and rows for tests of the training loop."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from graftwork.training import Checkpoint, Epoch, Fed, Layers, Plan, Training, train

ROWS, WIDTH, CLASSES = 60, 6, 3


def values_and_codes(rows: int = ROWS, seed: int = 0) -> tuple[Tensor, NDArray[np.int64]]:
    """Rows of `CLASSES` classes that lie apart, with some overlap."""
    rng = np.random.default_rng(seed)
    codes = np.arange(rows) % CLASSES
    values = rng.normal(size=(rows, WIDTH)) + 1.5 * np.eye(CLASSES, WIDTH)[codes]
    return torch.from_numpy(values).float(), codes.astype(np.int64)


def fed(values: Tensor, noise: float = 0.0) -> Fed:
    def augment(batch: Tensor, generator: torch.Generator) -> Tensor:
        return batch + noise * torch.randn(batch.shape, generator=generator)

    return Fed(lambda index: values[index], augment if noise else None)


def plain(seed: int = 0) -> nn.Sequential:
    """Without anything that depends on a batch or on chance."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(WIDTH, 8), nn.Tanh(), nn.Linear(8, CLASSES))


class Convolving(nn.Module):
    """Channels-last convolutions, batch normalisation and dropout: all that a state is made of."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.norm = nn.Conv2d(2, 4, (1, 2), bias=False), nn.BatchNorm2d(4)
        self.second, self.drop, self.head = nn.Conv2d(4, 6, (1, 2)), nn.Dropout(0.2), nn.Linear(6, CLASSES)
        for one in (self.first, self.second):
            one.weight.data = one.weight.data.contiguous(memory_format=torch.channels_last)

    def forward(self, values: Tensor) -> Tensor:
        maps = torch.relu(self.norm(self.first(values.view(-1, 2, 1, 3))))
        logits: Tensor = self.head(self.drop(self.second(maps).flatten(1)))
        return logits

    def layers(self) -> tuple[Layers, ...]:
        parts: list[set[str]] = [
            {"first.weight", "norm.weight", "norm.bias"},
            {"second.weight", "second.bias"},
        ]
        head = Layers(frozenset({"head.weight", "head.bias"}), pulled=False)
        return (Layers(frozenset(parts[0]), 0.5), Layers(frozenset(parts[1]), 0.8), head)


def weights(network: nn.Module) -> list[NDArray[Any]]:
    """Every tensor of its state."""
    return [value.detach().numpy().copy() for value in network.state_dict().values()]


def same(one: list[NDArray[Any]], other: list[NDArray[Any]]) -> bool:
    """Whether the states are equal in every bit."""
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


RICH = Plan(
    epochs=4, batch=7, rate=0.05, seed=3, pieces=2, clip=1.0, mixup=0.1, pull=0.5, gradual=True,
    patience=4, keep="score", sampling="balanced",
)  # fmt: skip
"""A plan that uses whatever a state could forget; 7 steps an epoch."""


def rich(path: Path | None, every_s: float = 0.0, **told: Any) -> tuple[list[NDArray[Any]], Training]:
    """The weights and the log of a training with held rows, chance and all; gone on with at `path`."""
    values, codes = values_and_codes()
    network = Convolving()
    plan = told.pop("plan", RICH)
    checkpoint = None if path is None else told.pop("checkpoint", Checkpoint(path, every_s))
    done = train(
        network, fed(values, 0.1), codes, plan, held=np.arange(ROWS) % 5 == 0, layers=network.layers(),
        from_start=True, checkpoint=checkpoint, **told,
    )  # fmt: skip
    return weights(network), done


def logged(done: Training) -> tuple[Any, ...]:
    """All of a training's log that is not time; NaN as None, since it equals nothing."""
    epochs = [replace(epoch, seconds=0.0) for epoch in done.epochs]
    return [_plain(epoch) for epoch in epochs], done.kept, done.stopped, done.trouble  # type: ignore[return-value]


def _plain(epoch: Epoch) -> tuple[Any, ...]:
    training = None if np.isnan(epoch.training) else epoch.training
    return epoch.number, training, epoch.held, epoch.score
