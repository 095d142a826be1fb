"""Training a torch network by epochs: one plain loop for `scratch`, for pretraining, for what comes later.

Also what such training needs and nothing else does: pictures distorted by tensor operations, and a
part of the rows held out to know when to stop.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.errors import RequestError
from graftwork.folds import folds
from graftwork.records import Notify, Progress, silent
from graftwork.rows import IntArray

Batches = Callable[[IntArray], Tensor]
"""Positions of rows -> what the network takes, rows first."""
Augment = Callable[[Tensor, torch.Generator], Tensor]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Networks built inside start from `seed`; the caller's own random numbers go on undisturbed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@dataclass(frozen=True)
class Plan:
    """How to train. rate: the highest learning rate; it rises over `warmup` (share of the whole), then
    falls along a cosine to zero. decay: decoupled weight decay. smoothing: of the labels.
    patience: epochs without a lower loss on held rows after which to stop, None for never.
    seconds: wall-clock limit; the cosine reaches zero with it, whatever epoch that is in.

    The same seed, rows and thread count give the same weights, unless `seconds` binds.
    """

    epochs: int = 60
    batch: int = 64
    optimiser: Literal["adamw", "sgd"] = "adamw"
    rate: float = 3e-3
    decay: float = 0.02
    warmup: float = 0.1
    smoothing: float = 0.1
    patience: int | None = None
    seconds: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class Epoch:
    """number: from 1. training: mean loss of its batches. held: loss on held rows, None without any."""

    number: int
    training: float
    held: float | None


@dataclass(frozen=True)
class Training:
    """How a training went. `kept` is the number of the epoch whose weights the network has now."""

    epochs: tuple[Epoch, ...]
    kept: int
    stopped: Literal["epochs", "patience", "time"]
    seconds: float


def train(
    network: nn.Module,
    batches: Batches,
    codes: IntArray,
    plan: Plan,
    *,
    held: NDArray[np.bool_] | None = None,
    weights: NDArray[np.float64] | None = None,
    augment: Augment | None = None,
    notify: Notify = silent,
) -> Training:
    """Train `network` in place to tell `codes` (rows,) by cross-entropy; it ends in eval mode.

    held: (rows,) True for rows not learnt from; the weights of the epoch with the lowest loss on them
    are kept. Without held rows the last weights are. weights: (rows,) importance of each row.
    """
    held_rows = np.flatnonzero(held) if held is not None else np.empty(0, np.int64)
    learnt = np.setdiff1d(np.arange(len(codes)), held_rows)
    importance = np.ones(len(codes)) if weights is None else weights
    run = _Run(network, batches, torch.from_numpy(codes), torch.from_numpy(importance).float(), plan, augment)
    run.steps = plan.epochs * -(-len(learnt) // plan.batch)
    rng = np.random.default_rng(plan.seed)
    epochs: list[Epoch] = []
    best = _Best()
    stopped: Literal["epochs", "patience", "time"] = "epochs"
    for number in range(1, plan.epochs + 1):
        epoch = Epoch(number, run.learn(rng.permutation(learnt)), run.loss_on(held_rows))
        epochs.append(epoch)
        best.see(epoch, network)
        notify(Progress("training", number, plan.epochs, "epochs"))
        if run.share >= 1 and number < plan.epochs:
            stopped = "time"
            break
        if plan.patience is not None and number - best.number >= plan.patience:
            stopped = "patience"
            break
    best.restore(network)
    network.eval()
    return Training(tuple(epochs), best.number, stopped, time.perf_counter() - run.begun)


class _Run:
    """One training under way: the network, what it learns from, and how far it has come."""

    def __init__(
        self,
        network: nn.Module,
        batches: Batches,
        target: Tensor,
        importance: Tensor,
        plan: Plan,
        augment: Augment | None,
    ) -> None:
        self.network, self.batches, self.target, self.importance = network, batches, target, importance
        self.plan, self.augment = plan, augment
        self.optimiser = _optimiser(network, plan)
        self.generator = torch.Generator().manual_seed(plan.seed)
        self.begun = time.perf_counter()
        self.step, self.steps = 0, 1

    @property
    def share(self) -> float:
        """How much of the training is done, 0..1: by steps or by time, whichever is further."""
        share = self.step / self.steps
        if self.plan.seconds is None:
            return share
        return max(share, (time.perf_counter() - self.begun) / self.plan.seconds)

    def learn(self, order: IntArray) -> float:
        """One pass over the rows in this order, or as much as there is time for; the mean loss."""
        self.network.train()
        losses: list[float] = []
        for index in _dealt(order, self.plan.batch):
            share = self.share
            if share >= 1 and losses:
                break
            rate = self.plan.rate * _schedule(share, self.plan.warmup)
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            loss = self._loss(index, self.augment, self.plan.smoothing)
            self.optimiser.zero_grad()
            torch.autograd.backward(loss)
            self.optimiser.step()
            self.step += 1
            losses.append(float(loss.detach()))
        return float(np.mean(losses))

    def loss_on(self, rows: IntArray) -> float | None:
        """Mean loss on rows that are not learnt from; None where there are none."""
        if not len(rows):
            return None
        self.network.eval()
        parts = [rows[start : start + 256] for start in range(0, len(rows), 256)]
        with torch.inference_mode():
            losses = [float(self._loss(part, None, 0.0)) for part in parts]
        return float(np.average(losses, weights=[float(self.importance[part].sum()) for part in parts]))

    def _loss(self, index: IntArray, augment: Augment | None, smoothing: float) -> Tensor:
        inputs = self.batches(index)
        if augment is not None:
            inputs = augment(inputs, self.generator)
        losses = F.cross_entropy(
            self.network(inputs), self.target[index], reduction="none", label_smoothing=smoothing
        )
        importance = self.importance[index]
        return (losses * importance).sum() / importance.sum()


class _Best:
    """The weights of the epoch with the lowest held-out loss; without held rows, of the last epoch."""

    def __init__(self) -> None:
        self.number, self.loss = 0, np.inf
        self.weights: dict[str, Tensor] | None = None

    def see(self, epoch: Epoch, network: nn.Module) -> None:
        if epoch.held is None:
            self.number = epoch.number
        elif epoch.held < self.loss or self.weights is None:
            self.number, self.loss = epoch.number, epoch.held
            self.weights = {name: value.clone() for name, value in network.state_dict().items()}

    def restore(self, network: nn.Module) -> None:
        if self.weights is not None:
            network.load_state_dict(self.weights)


def _optimiser(network: nn.Module, plan: Plan) -> torch.optim.Optimizer:
    # biases and normalisation hold no capacity worth shrinking
    shrunk = [value for value in network.parameters() if value.ndim > 1]
    free = [value for value in network.parameters() if value.ndim <= 1]
    groups = [{"params": shrunk, "weight_decay": plan.decay}, {"params": free, "weight_decay": 0.0}]
    if plan.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=plan.rate, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=plan.rate)


def _schedule(share: float, warmup: float) -> float:
    """Linear from 0 to 1 over the first `warmup` of the training, then a half cosine to 0."""
    if share < warmup:
        return max(share, 1e-3) / warmup
    return 0.5 + 0.5 * float(np.cos(np.pi * min((share - warmup) / (1 - warmup), 1.0)))


def _dealt(order: IntArray, batch: int) -> list[IntArray]:
    """Batches of as even a size as possible: batch normalisation cannot learn from a single row."""
    return [part for part in np.array_split(order, -(-len(order) // batch)) if len(part)]


def hold_out(codes: IntArray, groups: IntArray, share: float, seed: int) -> NDArray[np.bool_]:
    """(rows,) True for about `share` of the rows: stratified, groups whole, every class still learnt.

    None are held out where the rows do not allow it.
    """
    try:
        rows = folds(codes, groups, round(1 / share), seed)[0][1]
    except RequestError:
        rows = np.empty(0, np.int64)
    held = np.zeros(len(codes), dtype=bool)
    held[rows] = True
    return held


@dataclass(frozen=True)
class Augmentation:
    """How much pictures are distorted, each picture by its own draw. Standard deviations, except:

    rotate: degrees. scale, aspect: of the natural logarithm. shear: as a slope. shift, elastic: shares
    of the side. erase: the chance of a blanked rectangle. contrast, noise: in units of the full range.
    mirror: whether left and right may be swapped.
    """

    rotate: float = 0.0
    scale: float = 0.0
    aspect: float = 0.0
    shear: float = 0.0
    shift: float = 0.0
    elastic: float = 0.0
    erase: float = 0.0
    contrast: float = 0.0
    noise: float = 0.0
    mirror: bool = False

    def __call__(self, pictures: Tensor, generator: torch.Generator) -> Tensor:
        """Pictures (n, channels, side, side) in 0..1, distorted; outside a picture is its edge's value."""
        moved = warp(pictures, self._grid(pictures, generator))
        if self.contrast:
            moved = _contrast(moved, self.contrast, generator)
        if self.noise:
            moved = moved + self.noise * torch.randn(moved.shape, generator=generator)
        if self.erase:
            moved = _erase(moved, self.erase, generator)
        return moved.clamp(0, 1)

    def _grid(self, pictures: Tensor, generator: torch.Generator) -> Tensor:
        n, side = len(pictures), pictures.shape[-1]

        def draw(size: float) -> Tensor:
            return size * torch.randn(n, generator=generator)

        angle, slope, size, aspect = (
            draw(np.pi / 180 * self.rotate),
            draw(self.shear),
            draw(self.scale),
            draw(self.aspect),
        )
        across, down = torch.exp(size + aspect), torch.exp(size - aspect)
        if self.mirror:
            across = across * (1 - 2 * torch.randint(0, 2, (n,), generator=generator))
        matrix = torch.stack(
            [
                torch.stack([angle.cos() * across, (slope - angle.sin()) * across, draw(2 * self.shift)], 1),
                torch.stack([angle.sin() * down, angle.cos() * down, draw(2 * self.shift)], 1),
            ],
            1,
        )
        grid = F.affine_grid(matrix, [n, 1, side, side], align_corners=False)
        return grid + waves(n, side, self.elastic, generator) if self.elastic else grid


AUGMENTATIONS: dict[tuple[str, str], Augmentation | None] = {
    **{("none", frame): None for frame in ("whole", "ink", "sound")},
    ("light", "whole"): Augmentation(rotate=4, scale=0.08, shift=0.04, contrast=0.1, mirror=True),
    ("light", "ink"): Augmentation(rotate=4, scale=0.06, shear=0.06, shift=0.03),
    ("light", "sound"): Augmentation(scale=0.04, aspect=0.06, shift=0.03, contrast=0.1, noise=0.03),
    ("strong", "whole"): Augmentation(12, 0.2, 0.08, 0.1, 0.08, 0.02, 0.5, 0.25, 0.02, True),
    ("strong", "ink"): Augmentation(10, 0.12, 0.1, 0.18, 0.05, 0.05, 0.25, 0.2, 0.04),
    ("strong", "sound"): Augmentation(0, 0.08, 0.1, 0, 0.06, 0.02, 0.5, 0.2, 0.06),
}
"""(how much, how a compact network frames what it sees) -> augmentation; sounds are never turned."""


def warp(pictures: Tensor, grid: Tensor) -> Tensor:
    """Pictures sampled at `grid` (n, height, width, 2), bilinear; beyond the edge, the edge."""
    return F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)


def waves(n: int, side: int, size: float, generator: torch.Generator) -> Tensor:
    """Smooth random displacements (n, side, side, 2) with a standard deviation of `size` sides."""
    knots = torch.randn(n, 2, 4, 4, generator=generator)
    # a grid runs over 2 units a side; interpolating between knots takes off a fifth
    smooth = F.interpolate(knots, size=(side, side), mode="bicubic", align_corners=True)
    return 2.46 * size * smooth.permute(0, 2, 3, 1)


def _contrast(pictures: Tensor, size: float, generator: torch.Generator) -> Tensor:
    n = len(pictures)
    slope = torch.exp(size * torch.randn(n, 1, 1, 1, generator=generator))
    lift = 0.5 * size * torch.randn(n, 1, 1, 1, generator=generator)
    mean = pictures.mean((1, 2, 3), keepdim=True)
    return (pictures - mean) * slope + mean + lift


def _erase(pictures: Tensor, chance: float, generator: torch.Generator) -> Tensor:
    """Blank a rectangle of a random place and size (Zhong et al. 2020) with the picture's mean."""
    n, _, high, wide = pictures.shape
    middle = torch.rand(n, 2, generator=generator)
    half = 0.05 + 0.15 * torch.rand(n, 2, generator=generator)
    down = (torch.arange(high).add(0.5).div(high) - middle[:, :1]).abs() < half[:, :1]
    across = (torch.arange(wide).add(0.5).div(wide) - middle[:, 1:]).abs() < half[:, 1:]
    chosen = torch.rand(n, generator=generator) < chance
    hole = (down[:, :, None] & across[:, None, :] & chosen[:, None, None])[:, None]
    return torch.where(hole, pictures.mean((1, 2, 3), keepdim=True), pictures)
