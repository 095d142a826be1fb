"""Training a torch network by epochs: one plain loop for `scratch`, for pretraining, for every fine-tuning.

Whatever a step draws follows from the seed and the step's number, so a run that goes on from a
checkpoint draws what it would have drawn.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from graftwork.backbones.base import Examples
from graftwork.evaluation import measure
from graftwork.model import softmax
from graftwork.records import Notify, Progress, silent
from graftwork.rows import IntArray
from graftwork.training import machine
from graftwork.training.checkpoints import Checkpoint, optimiser_tensors, restore_optimiser
from graftwork.training.dealing import batches_an_epoch, dealt
from graftwork.training.losses import Loss, Objective, mix, mixing_share
from graftwork.training.optimising import optimiser_of, schedule
from graftwork.training.plan import Epoch, Layers, Plan, Training

NOTIFY_S = 0.2
ASKED_AT_ONCE = 64


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Networks built inside start from `seed`; the caller's own random numbers go on undisturbed."""
    devices = list(range(torch.cuda.device_count())) if machine.device() == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def train(
    network: nn.Module,
    examples: Examples,
    codes: IntArray,
    plan: Plan,
    *,
    held: NDArray[np.bool_] | None = None,
    weights: NDArray[np.float64] | None = None,
    offsets: NDArray[np.float64] | None = None,
    layers: Sequence[Layers] = (),
    from_start: bool = False,
    objective: Objective | None = None,
    checkpoint: Checkpoint | None = None,
    notify: Notify = silent,
) -> Training:
    """Train `network` in place to tell `codes` (rows,) by cross-entropy; it ends in eval mode, on its device.

    held: (rows,) True for rows not learnt from; the weights of the epoch that did best on them (see
    `Plan.keep`) are kept, else the last. weights: (rows,) importance of each row. offsets: (classes,)
    added to the logits while learning. layers: what learns and how fast, early layers first; none for
    every parameter alike. from_start: the weights at the start count as epoch 0, which may be kept.
    objective: what is minimised instead of cross-entropy; no rows are held then.
    checkpoint: kept up as it goes, gone on from where it holds a state.
    """
    assert objective is None or held is None, "held rows are judged by cross-entropy alone"
    run = Run(network, examples, codes, plan, held, weights, offsets, layers, objective, checkpoint, notify)
    with seeded(plan.seed), machine.roomy():
        return run.all(from_start)


class Run:
    """One training under way: the network, what it learns from, and how far it has come."""

    def __init__(
        self,
        network: nn.Module,
        examples: Examples,
        codes: IntArray,
        plan: Plan,
        held: NDArray[np.bool_] | None,
        weights: NDArray[np.float64] | None,
        offsets: NDArray[np.float64] | None,
        layers: Sequence[Layers],
        objective: Objective | None,
        checkpoint: Checkpoint | None,
        notify: Notify,
    ) -> None:
        self.device = machine.device()
        self.network, self.examples, self.codes, self.plan = network.to(self.device), examples, codes, plan
        self.held = np.flatnonzero(held) if held is not None else np.empty(0, np.int64)
        self.learnt = np.setdiff1d(np.arange(len(codes)), self.held)
        importance = np.ones(len(codes)) if weights is None else weights
        self.loss = Loss(
            torch.from_numpy(codes).to(self.device),
            torch.from_numpy(importance).float().to(self.device),
            plan.smoothing,
            None if offsets is None else torch.from_numpy(offsets).float().to(self.device),
        )
        self.objective = self.loss if objective is None else objective
        everything = (Layers(frozenset(name for name, _ in network.named_parameters())),)
        self.layers = tuple(layers) or everything
        self.optimiser = optimiser_of(network, self.layers, plan)
        pulled = [group for group in self.layers if group.pulled]
        self.start = self._copy(named_learning(network, pulled)) if plan.pull else {}
        self.checkpoint, self.notify = checkpoint, notify
        self.epochs: list[Epoch] = []
        self.best: dict[str, Tensor] | None = None
        self.kept = 0
        self.losses: list[float] = []
        self.step, self.pieces, self.trouble = 0, plan.pieces, ""
        self.each = batches_an_epoch(len(self.learnt), plan.batch, examples.lengths is not None)
        self.begun, self.said = time.perf_counter(), 0.0

    @property
    def share(self) -> float:
        """How much of the training is done, 0..1: by steps or by time, whichever is further."""
        share = self.step / max(self.plan.epochs * self.each, 1)
        if self.plan.seconds is None:
            return share
        return max(share, (time.perf_counter() - self.begun) / self.plan.seconds)

    def all(self, from_start: bool) -> Training:
        stopped = self._resumed()
        if stopped is None:
            if from_start and not self.epochs and not self.step:
                self._end_epoch(Epoch(0, math.nan, *self.asked()))
            stopped = self._epochs()
            self._restore_best()
            self._save(stopped)
        self.network.eval()
        memory = torch.cuda.max_memory_allocated() if self.device == "cuda" else 0
        return Training(
            tuple(self.epochs),
            self.kept,
            stopped,
            time.perf_counter() - self.begun,
            self.trouble or None,
            memory,
        )

    def _epochs(self) -> Literal["epochs", "patience", "time", "trouble"]:
        first = sum(epoch.number > 0 for epoch in self.epochs) + 1
        for number in range(first, self.plan.epochs + 1):
            started = time.perf_counter()
            self._activate(number)
            order = dealt(
                self.learnt, self.codes, self.examples.lengths, self.plan.batch, self.plan.sampling,
                self.plan.seed, number,
            )  # fmt: skip
            for index in order[self.step - (number - 1) * self.each :]:
                if self.share >= 1 and self.losses:
                    break
                loss = self._learn(index)
                if not math.isfinite(loss):
                    self.trouble = f"the loss was {loss} at step {self.step + 1} (epoch {number})"
                    return "trouble"
                self.losses.append(loss)
                self.step += 1
                self._say(number, loss)
                if self.checkpoint is not None and self.checkpoint.due:
                    self._save(None)
            seconds = time.perf_counter() - started
            done = Epoch(number, float(np.mean(self.losses)), *self.asked(), seconds)
            self.losses = []
            self._end_epoch(done)
            if self.share >= 1 and number < self.plan.epochs:
                return "time"
            if self.plan.patience is not None and number - self.kept >= self.plan.patience:
                return "patience"
        return "epochs"

    def _learn(self, index: IntArray) -> float:
        """One step on the rows at `index`; the loss. On a device out of memory the rows go in more parts."""
        while True:
            try:
                return self._step(index)
            except torch.cuda.OutOfMemoryError:
                if self.pieces >= len(index):
                    raise
                self.pieces *= 2
                torch.cuda.empty_cache()

    def _step(self, index: IntArray) -> float:
        rate = self.plan.rate * schedule(self.share, self.plan.warmup)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["share"]
        torch.manual_seed(_mixed_seed(self.plan.seed, self.step))
        generator = torch.Generator().manual_seed(_mixed_seed(self.plan.seed, self.step))
        self.network.train()
        if self.plan.still:
            still(self.network)
        self.optimiser.zero_grad()
        total = 0.0
        for part in np.array_split(index, min(self.pieces, len(index))):
            loss = self._loss(part, generator) * (len(part) / len(index))
            torch.autograd.backward(loss)
            total += float(loss.detach())
        if not math.isfinite(total):
            return total  # before a number that is none reaches the weights
        learning = [p for group in self.optimiser.param_groups for p in group["params"]]
        if self.plan.clip is not None:
            nn.utils.clip_grad_norm_(learning, self.plan.clip)
        self.optimiser.step()
        if self.start:
            self._pull(rate)
        return total

    def _loss(self, index: IntArray, generator: torch.Generator) -> Tensor:
        inputs = tuple(one.to(self.device) for one in self.examples.batch(index, generator))
        rows = torch.from_numpy(index)
        if not self.plan.mixup:
            return self.objective(self._logits(inputs), rows)
        share = mixing_share(self.plan.mixup, generator)
        partner = torch.randperm(len(index), generator=generator)
        logits = self._logits(mix(inputs, share, partner.to(self.device)))
        return self.loss.mixed(logits, rows, rows[partner], share)

    def _logits(self, inputs: tuple[Tensor, ...]) -> Tensor:
        with torch.autocast(self.device, torch.bfloat16, enabled=machine.mixed(self.plan.precision)):
            logits: Tensor = self.network(*inputs)
        return logits

    def asked(self) -> tuple[float | None, float | None]:
        """(log-loss, score) on held rows, (None, None) where there are none."""
        if not len(self.held):
            return None, None
        logits = answered(self.network, self.examples, self.held, self.plan.precision)
        plain = replace(self.loss, smoothing=0.0, offsets=None)
        loss = float(plain(torch.from_numpy(logits).to(self.device), torch.from_numpy(self.held)))
        return loss, measure(self.plan.metric, self.codes[self.held], softmax(logits))

    def _activate(self, number: int) -> None:
        """Gradual unfreezing: in epoch n the last n groups of layers learn."""
        if self.plan.gradual:
            for place, group in enumerate(reversed(self.layers), start=1):
                for name, parameter in self.network.named_parameters():
                    if name in group.names:
                        parameter.requires_grad_(place <= number)

    def _pull(self, rate: float) -> None:
        for name, parameter in named_learning(self.network, self.layers).items():
            if name in self.start and parameter.requires_grad:
                parameter.data.lerp_(self.start[name], min(rate * self.plan.pull, 1.0))

    def _end_epoch(self, epoch: Epoch) -> None:
        """Log it, and keep its weights where they are the best so far."""
        better = epoch.held is None or self.best is None or self._order(epoch) < self._order(self._kept_epoch)
        self.epochs.append(epoch)
        if better:
            self.kept = epoch.number
            if epoch.held is not None:
                self.best = self._copy(self._state())

    @property
    def _kept_epoch(self) -> Epoch:
        return next(one for one in self.epochs if one.number == self.kept)

    def _order(self, epoch: Epoch) -> tuple[float, float]:
        """Smaller is better; equally good: the lower loss."""
        assert epoch.held is not None and epoch.score is not None
        return (epoch.held, 0.0) if self.plan.keep == "loss" else (-epoch.score, epoch.held)

    def _restore_best(self) -> None:
        if self.best is not None:
            self.network.load_state_dict(self.best, strict=False)

    def _state(self) -> dict[str, Tensor]:
        """What changes while it learns: the parameters that do, and every buffer."""
        learning = set(named_learning(self.network, self.layers))
        buffers = {name for name, _ in self.network.named_buffers()}
        return {k: v for k, v in self.network.state_dict().items() if k in learning or k in buffers}

    def _copy(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in tensors.items()}

    def _save(self, stopped: str | None) -> None:
        if self.checkpoint is None:
            return
        said = {
            "epochs": [asdict(epoch) for epoch in self.epochs],
            "kept": self.kept, "losses": self.losses, "step": self.step, "pieces": self.pieces,
            "seconds": time.perf_counter() - self.begun, "stopped": stopped, "trouble": self.trouble,
        }  # fmt: skip
        tensors = {f"network.{name}": value for name, value in self._state().items()}
        if stopped is None:
            tensors |= {f"optimiser.{k}": v for k, v in optimiser_tensors(self.optimiser).items()}
            tensors |= {f"best.{name}": value for name, value in (self.best or {}).items()}
        self.checkpoint.save(said, tensors)

    def _resumed(self) -> Any:
        """Go back to the checkpoint's state; how the training ended, None where it goes on."""
        found = None if self.checkpoint is None else self.checkpoint.load()
        if found is None:
            return None
        said, tensors = found
        parts: dict[str, dict[str, Tensor]] = {"network": {}, "optimiser": {}, "best": {}}
        for name, value in tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = value
        self.network.load_state_dict(parts["network"], strict=False)
        if said["stopped"] is None:
            restore_optimiser(self.optimiser, parts["optimiser"])
        self.best = {k: v.to(self.device) for k, v in parts["best"].items()} or None
        self.epochs = [Epoch(**epoch) for epoch in said["epochs"]]
        self.kept, self.losses, self.step = said["kept"], said["losses"], said["step"]
        self.pieces, self.trouble = said["pieces"], said["trouble"]
        self.begun -= said["seconds"]
        return said["stopped"]

    def _say(self, epoch: int, loss: float) -> None:
        now, total = time.perf_counter(), self.plan.epochs * self.each
        if now - self.said >= NOTIFY_S or self.step == total:
            self.said = now
            rows = self.step * self.plan.batch / max(now - self.begun, 1e-9)
            note = f"epoch {epoch} of {self.plan.epochs}, loss {loss:.3f}, {rows:,.0f} rows/s"
            self.notify(Progress("training", self.step, total, "steps", note))


def named_learning(network: nn.Module, layers: Sequence[Layers]) -> dict[str, nn.Parameter]:
    """The parameters that the layers name, those that are off for now included."""
    names = frozenset().union(*(group.names for group in layers))
    return {name: value for name, value in network.named_parameters() if name in names}


def answered(
    network: nn.Module, examples: Examples, rows: IntArray, precision: Literal["auto", "f32", "bf16"]
) -> NDArray[np.float64]:
    """The network's logits (rows, classes) for the rows at these positions; it is left in eval mode."""
    network.eval()
    where = next(network.parameters()).device
    order = np.arange(len(rows))
    if examples.lengths is not None:
        order = np.argsort(examples.lengths[rows], kind="stable")
    found: list[tuple[IntArray, NDArray[np.float64]]] = []
    with torch.inference_mode(), torch.autocast(where.type, torch.bfloat16, enabled=machine.mixed(precision)):
        for part in np.array_split(order, -(-len(order) // ASKED_AT_ONCE)):
            inputs = tuple(one.to(where) for one in examples.batch(rows[part], None))
            found.append((part, network(*inputs).float().cpu().numpy().astype(np.float64)))
    logits = np.empty((len(rows), found[0][1].shape[1]))
    for part, values in found:
        logits[part] = values
    return logits


def still(network: nn.Module) -> None:
    """Batch normalisation keeps its statistics: those of few rows are worse than the source's."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def _mixed_seed(seed: int, step: int) -> int:
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> 1)
