"""Training a torch network by epochs: one plain loop for `scratch`, for pretraining, for every fine-tuning.

Whatever a step draws follows from the seed and the step's number, so a run that goes on from a
checkpoint draws what it would have drawn.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
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
from graftwork.training.answering import answered
from graftwork.training.checkpoints import Checkpoint, optimiser_tensors, restore_optimiser
from graftwork.training.dealing import batches_an_epoch, dealt
from graftwork.training.losses import Loss, Objective
from graftwork.training.plan import Epoch, Layers, Plan, Training
from graftwork.training.steps import Diverged, Learner

NOTIFY_S = 0.2


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
    checkpoint: kept up as it goes, gone on from where it holds a state, to the very weights that the
    training would have ended with.

    Raises RequestError where batch normalisation would learn from single rows, or where mixup is asked
    of token numbers; WorkError where the checkpoint cannot be written or is damaged.
    """
    assert objective is None or held is None, "held rows are judged by cross-entropy alone"
    where = machine.device()
    importance = np.ones(len(codes)) if weights is None else weights
    loss = Loss(
        torch.from_numpy(codes).to(where),
        torch.from_numpy(importance).float().to(where),
        plan.smoothing,
        None if offsets is None else torch.from_numpy(offsets).float().to(where),
    )
    apart = np.zeros(len(codes), dtype=bool) if held is None else held
    each = batches_an_epoch(int((~apart).sum()), plan.batch, examples.lengths is not None)
    with seeded(plan.seed), machine.roomy():
        learner = Learner(network, examples, loss, objective, plan, layers, plan.epochs * each)
        return Run(learner, codes, apart, each, checkpoint, notify).all(from_start)


@dataclass
class State:
    """How far a training has come, besides its tensors, in plain JSON.

    losses: of the epoch under way. step: the next one's number, from 0. seconds, epoch_s: spent on the
    whole and on the epoch under way. threads: with which every step is made, as they shape its last bits.
    """

    epochs: list[Epoch] = field(default_factory=list)
    kept: int = 0
    losses: list[float] = field(default_factory=list)
    step: int = 0
    pieces: int = 1
    threads: int = 1
    seconds: float = 0.0
    epoch_s: float = 0.0
    stopped: Literal["epochs", "patience", "time", "trouble"] | None = None
    trouble: str | None = None
    memory: int = 0

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> "State":
        return cls(**{**said, "epochs": [Epoch(**epoch) for epoch in said["epochs"]]})


class Run:
    """One training under way. each: steps an epoch."""

    def __init__(
        self,
        learner: Learner,
        codes: IntArray,
        held: NDArray[np.bool_],
        each: int,
        checkpoint: Checkpoint | None,
        notify: Notify,
    ) -> None:
        self.learner, self.plan, self.codes, self.each = learner, learner.plan, codes, each
        self.held, self.learnt = np.flatnonzero(held), np.flatnonzero(~held)
        self.checkpoint, self.notify = checkpoint, notify
        self.state = State(pieces=self.plan.pieces)
        # the weights to fall back on: of the epoch that is kept
        self.best = self._copy()
        self.begun = time.perf_counter()
        self.earlier, self.first, self.said = 0.0, 0, 0.0

    @property
    def total(self) -> int:
        return self.plan.epochs * self.each

    @property
    def seconds(self) -> float:
        """Spent so far, before an interruption too."""
        return self.earlier + time.perf_counter() - self.begun

    @property
    def share(self) -> float:
        """How much of the training is done, 0..1: by steps or by time, whichever is further."""
        share = self.state.step / max(self.total, 1)
        return share if self.plan.seconds is None else max(share, self.seconds / self.plan.seconds)

    def all(self, from_start: bool) -> Training:
        self.learner.check(len(self.learnt))
        if self.learner.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        if not self._resumed():
            self.state.threads = self._threads()
        torch.set_num_threads(self.state.threads)
        if self.state.stopped is None:
            if from_start and not self.state.epochs:
                self._end_epoch(Epoch(0, math.nan, *self.asked()))
            self.state.stopped = self._epochs()
            self.learner.network.load_state_dict(self.best, strict=False)
            self._save()
        self.learner.network.eval()
        done = self.state
        assert done.stopped is not None
        return Training(tuple(done.epochs), done.kept, done.stopped, self.seconds, done.trouble, done.memory)

    def _epochs(self) -> Literal["epochs", "patience", "time", "trouble"]:
        done = self.state
        for number in range(sum(epoch.number > 0 for epoch in done.epochs) + 1, self.plan.epochs + 1):
            try:
                whole = self._epoch(number)
            except Diverged as reason:
                done.trouble = f"{reason} at step {done.step + 1} (epoch {number})"
                return "trouble"
            self._end_epoch(Epoch(number, float(np.mean(done.losses)), *self.asked(), done.epoch_s))
            done.losses, done.epoch_s = [], 0.0
            if not whole or (self.share >= 1 and number < self.plan.epochs):
                return "time"
            if self.plan.patience is not None and number - done.kept >= self.plan.patience:
                return "patience"
            # of what goes on alone: a state from here would be gone on with whatever was decided above
            self._save_if_due()
        return "epochs"

    def _epoch(self, number: int) -> bool:
        """The steps of an epoch that are left; whether all were made before the time was up."""
        done = self.state
        self._unfreeze(number)
        order = dealt(
            self.learnt, self.codes, self.learner.examples.lengths, self.plan.batch, self.plan.sampling,
            self.plan.seed, number,
        )  # fmt: skip
        left = order[done.step - (number - 1) * self.each :]
        started = time.perf_counter()
        for batch in self.learner.batches(left, done.step):
            if self.share >= 1 and done.losses:
                return False
            done.losses.append(self.learner.learn(batch, self.share))
            done.step, now = done.step + 1, time.perf_counter()
            done.epoch_s, started = done.epoch_s + now - started, now
            self._save_if_due()
            self._say(number)
        return True

    def _unfreeze(self, number: int) -> None:
        """Gradual unfreezing: in epoch n the last n groups of layers learn."""
        if self.plan.gradual:
            for place, group in enumerate(reversed(self.learner.layers), start=1):
                for name in group.names & set(self.learner.learning):
                    self.learner.learning[name].requires_grad_(place <= number)

    def asked(self) -> tuple[float | None, float | None]:
        """(log-loss, score) on held rows, (None, None) where there are none."""
        if not len(self.held):
            return None, None
        logits = answered(self.learner.network, self.learner.examples, self.held, self.plan.precision)
        plain = replace(self.learner.loss, smoothing=0.0, offsets=None)
        loss = float(plain(torch.from_numpy(logits).to(self.learner.device), torch.from_numpy(self.held)))
        return loss, measure(self.plan.metric, self.codes[self.held], softmax(logits))

    def _end_epoch(self, epoch: Epoch) -> None:
        """Log it, and keep its weights where they are the best so far."""
        kept = next((one for one in self.state.epochs if one.number == self.state.kept), None)
        self.state.epochs.append(epoch)
        if epoch.number:
            self._tell(epoch.number, epoch.training, (epoch.number, epoch.training, epoch.held))
        if kept is None or self._order(epoch) < self._order(kept) or epoch.held is None:
            self.state.kept, self.best = epoch.number, self._copy()

    def _order(self, epoch: Epoch) -> tuple[float, float]:
        """Smaller is better; equally good: the lower loss. A loss that is no number is the worst."""
        loss = math.inf if epoch.held is None or math.isnan(epoch.held) else epoch.held
        if self.plan.keep == "loss" or epoch.score is None or math.isinf(loss):
            return (loss, 0.0)
        return (-epoch.score, loss)

    def _threads(self) -> int:
        """As many as make a step quickest; tried out where the training is long enough and on a processor."""
        if self.total < machine.WORTH_MEASURING or self.learner.device == "cuda":
            return torch.get_num_threads()
        learner, before = self.learner, self._copy()
        order = dealt(
            self.learnt, self.codes, learner.examples.lengths, self.plan.batch, self.plan.sampling, 0, 0
        )
        (batch,) = learner.batches(order[:1], 0)
        shapes = [list(value.shape) for value in learner.network.parameters()]
        inputs = [list(one.shape) for piece in batch.pieces for one in piece.inputs]
        key = {"network": shapes, "inputs": inputs, "precision": self.plan.precision}
        found = machine.threads(key, lambda: learner.gradients(batch))
        learner.network.load_state_dict(before, strict=False)
        return found

    def _tensors(self) -> dict[str, Tensor]:
        """What changes while it learns: the parameters that do, and every buffer."""
        network = self.learner.network
        changing = set(self.learner.learning) | {name for name, _ in network.named_buffers()}
        return {name: value for name, value in network.state_dict().items() if name in changing}

    def _copy(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self._tensors().items()}

    def _save_if_due(self) -> None:
        if self.checkpoint is not None and self.checkpoint.due:
            self._save()

    def _save(self) -> None:
        done = self.state
        done.seconds, done.pieces = self.seconds, self.learner.pieces
        if self.learner.device == "cuda":
            done.memory = max(done.memory, torch.cuda.max_memory_allocated())
        if self.checkpoint is None:
            return
        tensors = {f"network.{name}": value for name, value in self._tensors().items()}
        if done.stopped is None:
            state = optimiser_tensors(self.learner.optimiser)
            tensors |= {f"optimiser.{name}": value for name, value in state.items()}
            tensors |= {f"best.{name}": value for name, value in self.best.items()}
        self.checkpoint.save(asdict(done), tensors)

    def _resumed(self) -> bool:
        """Go back to the checkpoint's state, if it holds one."""
        found = None if self.checkpoint is None else self.checkpoint.load()
        if self.checkpoint is None or found is None:
            return False
        said, tensors = found
        parts: dict[str, dict[str, Tensor]] = {"network": {}, "optimiser": {}, "best": {}}
        try:
            for name, value in tensors.items():
                part, _, rest = name.partition(".")
                parts[part][rest] = value.to(self.learner.device)
            self.state = State.from_json(said)
            self._take(parts["network"])
            if self.state.stopped is None:
                restore_optimiser(self.learner.optimiser, parts["optimiser"])
                self.best = parts["best"]
        except (KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:
            raise self.checkpoint.damaged(f"it is of another network or version: {error}") from error
        self.learner.pieces, self.earlier, self.first = self.state.pieces, self.state.seconds, self.state.step
        return True

    def _take(self, tensors: Mapping[str, Tensor]) -> None:
        if set(tensors) != set(self._tensors()):
            raise ValueError(f"{len(tensors)} tensors where {len(self._tensors())} change")
        self.learner.network.load_state_dict(tensors, strict=False)

    def _say(self, epoch: int) -> None:
        now, made = time.perf_counter(), self.state.step
        if now - self.said < NOTIFY_S and made < self.total:
            return
        self.said = now
        self._tell(epoch, self.state.losses[-1])

    def _tell(self, epoch: int, loss: float, point: tuple[int, float, float | None] | None = None) -> None:
        made = self.state.step
        seconds = max(time.perf_counter() - self.begun, 1e-9)
        rows = (made - self.first) * len(self.learnt) / self.each / seconds
        note = f"epoch {epoch} of {self.plan.epochs}, loss {loss:.3f}, {rows:,.0f} rows/s"
        # where time runs out before the steps do, the time that is left says how far it has come
        done = max(made, min(int(self.share * self.total), self.total - 1))
        self.notify(Progress("training", done, self.total, "steps", note, point))
