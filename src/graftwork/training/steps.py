"""One step of a training: rows through the network and back, in pieces, and the weights moved."""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from graftwork.backbones.base import Examples
from graftwork.errors import RequestError
from graftwork.rows import IntArray
from graftwork.training import dropout, machine
from graftwork.training.feeding import ahead
from graftwork.training.losses import Loss, Objective, mix, mixing_share
from graftwork.training.optimising import optimiser_of, schedule
from graftwork.training.plan import Layers, Plan

AHEAD = 3
"""Batches that wait for a GPU."""


class Diverged(Exception):
    """A loss or a gradient is no number; the weights are still those before the step."""


@dataclass(frozen=True)
class Piece:
    """Rows that go through the network together. partner, share: how they are mixed, None for not."""

    index: IntArray
    inputs: tuple[Tensor, ...]
    partner: Tensor | None
    share: float


@dataclass(frozen=True)
class Batch:
    """The rows of one step, as the network takes them. number: of the step, from 0."""

    number: int
    index: IntArray
    pieces: tuple[Piece, ...]


class Learner:
    """A network, what it learns from and by which steps; `pieces` grows where a GPU's memory is short."""

    def __init__(
        self,
        network: nn.Module,
        examples: Examples,
        loss: Loss,
        objective: Objective | None,
        plan: Plan,
        layers: Sequence[Layers],
        steps: int,
    ) -> None:
        self.device = machine.device()
        self.network, self.examples, self.plan = machine.placed(network), examples, plan
        self.loss, self.objective = loss, objective
        self.layers = tuple(layers) or (Layers(frozenset(name for name, _ in network.named_parameters())),)
        self.optimiser = optimiser_of(network, self.layers, plan)
        self.learning = named_learning(network, self.layers)
        self.pieces = plan.pieces
        self._norms = [one for one in network.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm)]
        self._run = machine.compiled(network, steps, examples.lengths is not None)
        self._start = self._started() if plan.pull else {}
        self._drops = self.device == "cpu" and dropout.drops(network)

    def check(self, rows: int) -> None:
        """Raises RequestError where batch normalisation would have to learn from single rows."""
        alone = self.plan.batch == 1 or rows == 1
        if alone and not self.plan.still and any(self._learns(one) for one in self._norms):
            raise RequestError(
                f"batches of one row seen (batch {self.plan.batch}, {rows} rows); batch normalisation learns "
                "from two rows or more; set batch=2 or more, or still=True"
            )

    def batches(self, order: Sequence[IntArray], first: int) -> Iterator[Batch]:
        """The batches of these rows for the steps from number `first` on; for a GPU they are made ahead."""
        return ahead(
            len(order), lambda k: self._batch(order[k], first + k), AHEAD if self.device == "cuda" else 0
        )

    def learn(self, batch: Batch, share: float) -> float:
        """One step; its mean loss. share: how much of the training is done. Raises Diverged.

        Where a GPU's memory does not suffice, the rows go in twice as many pieces from then on.
        """
        while True:
            if len(batch.pieces) < min(self.pieces, self._most(batch.index)):
                batch = self._batch(batch.index, batch.number)  # it was made before memory fell short
            try:
                return self.step(batch, share)
            except torch.OutOfMemoryError:
                if self.pieces >= self._most(batch.index):
                    raise
            # outside of the handler, which would keep what did not fit alive
            self.pieces *= 2
            self.optimiser.zero_grad()
            if self.device == "cuda":
                torch.cuda.empty_cache()

    def step(self, batch: Batch, share: float) -> float:
        """One step as `learn` makes it, in the pieces that the batch has."""
        rate = schedule(share, self.plan.warmup) * self.plan.rate
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["share"]
        total = self.gradients(batch)
        if not math.isfinite(total):
            raise Diverged(f"the loss was {total}")
        self._clip()
        self.optimiser.step()
        if self._start:
            self._pull()
        return total

    def gradients(self, batch: Batch) -> float:
        """Set every parameter's gradient of the batch's mean loss, which is returned."""
        self._seed(batch.number)
        self.network.train()
        for norm in self._norms:
            if self.plan.still or not self._learns(norm):
                norm.eval()
        self.optimiser.zero_grad()
        total = 0.0
        for piece in batch.pieces:
            loss = self._loss(piece) * self._part(piece.index, batch.index)
            torch.autograd.backward(loss)
            total += float(loss.detach())
        return total

    def _seed(self, number: int) -> None:
        """As `torch.manual_seed`, which spends two milliseconds on devices that are not there."""
        seed = mixed_seed(self.plan.seed, number)
        torch.default_generator.manual_seed(seed)
        if self.device == "cuda":
            torch.cuda.manual_seed(seed)

    def _batch(self, index: IntArray, number: int) -> Batch:
        """Whatever is drawn follows from the seed and the step's number alone."""
        generator = torch.Generator().manual_seed(mixed_seed(self.plan.seed, number))
        parts = np.array_split(index, min(self.pieces, self._most(index)))
        return Batch(number, index, tuple(self._piece(part, generator) for part in parts))

    def _piece(self, index: IntArray, generator: torch.Generator) -> Piece:
        inputs = self.examples.batch(index, generator)
        if self.device == "cuda":
            inputs = tuple(one.pin_memory() for one in inputs)
        if not self.plan.mixup:
            return Piece(index, inputs, None, 1.0)
        share = mixing_share(self.plan.mixup, generator)
        return Piece(index, inputs, torch.randperm(len(index), generator=generator), share)

    def _most(self, index: IntArray) -> int:
        """Pieces that rows can go in; batch normalisation needs two rows a piece."""
        return max(1, len(index) // (1 if self.plan.still or not self._norms else 2))

    def _loss(self, piece: Piece) -> Tensor:
        inputs = tuple(one.to(self.device, non_blocking=True) for one in piece.inputs)
        rows = torch.from_numpy(piece.index).to(self.device)
        if piece.partner is None:
            objective = self.loss if self.objective is None else self.objective
            return objective(self._logits(inputs), rows)
        partner = piece.partner.to(self.device)
        logits = self._logits(mix(inputs, piece.share, partner))
        return self.loss.mixed(logits, rows, rows[partner], piece.share)

    def _logits(self, inputs: tuple[Tensor, ...]) -> Tensor:
        with ExitStack() as inside:
            if self._drops:
                inside.enter_context(dropout.Quick())
            inside.enter_context(
                torch.autocast(self.device, torch.bfloat16, enabled=machine.mixed(self.plan.precision))
            )
            logits: Tensor = self._run(*inputs)
        return logits

    def _part(self, piece: IntArray, whole: IntArray) -> float:
        """How much of the batch's mean loss a piece's mean is."""
        if len(piece) == len(whole):
            return 1.0
        importance = self.loss.importance
        total = float(importance[whole].sum())
        if self.objective is not None or total == 0:
            return len(piece) / len(whole)
        return float(importance[piece].sum()) / total

    def _clip(self) -> None:
        """Raises Diverged where the gradient is no number, which no later step would recover from."""
        learning = [one for one in self.learning.values() if one.grad is not None]
        norm = nn.utils.get_total_norm([one.grad for one in learning if one.grad is not None])
        size = float(norm)
        if not math.isfinite(size):
            raise Diverged(f"the gradient's size was {size}")
        if self.plan.clip is not None and size > self.plan.clip:
            nn.utils.clip_grads_with_norm_(learning, self.plan.clip, norm)

    def _learns(self, norm: nn.Module) -> bool:
        """A normalisation whose weights are frozen keeps its statistics as well."""
        weight = norm.weight
        return weight is None or bool(getattr(weight, "requires_grad", False))

    def _started(self) -> dict[nn.Parameter, Tensor]:
        pulled = frozenset().union(*(group.names for group in self.layers if group.pulled))
        return {one: one.detach().clone() for name, one in self.learning.items() if name in pulled}

    def _pull(self) -> None:
        """L2-SP as decoupled decay: its gradient past AdamW's division would pull all weights alike."""
        for group in self.optimiser.param_groups:
            share = min(group["lr"] * self.plan.pull, 1.0)
            for parameter in group["params"]:
                if parameter.requires_grad and parameter in self._start:
                    parameter.data.lerp_(self._start[parameter], share)


def named_learning(network: nn.Module, layers: Sequence[Layers]) -> dict[str, nn.Parameter]:
    """The parameters that the layers name, those that are off for now included."""
    names = frozenset().union(*(group.names for group in layers))
    return {name: value for name, value in network.named_parameters() if name in names}


def mixed_seed(seed: int, step: int) -> int:
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> 1)
