"""Small network on frozen features: one hidden layer, dropout, AdamW, early stopping on rows set apart."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from graftwork.backbones.base import Backbone, labelled_matrix
from graftwork.errors import RequestError
from graftwork.heads import MLPHead, temperature
from graftwork.logistic import grouped_folds
from graftwork.model import Model
from graftwork.records import Notify, Progress
from graftwork.rows import IntArray, Kind
from graftwork.spectrum import Float64, blocks
from graftwork.strategies.base import Task

BATCH = 512
"""Largest number of rows a step; small data take smaller steps."""
BLIND_EPOCHS = 40
"""At most, where no row is set apart to tell when to stop."""
PATIENCE = 8
"""Epochs without a better loss on the rows set apart."""


@dataclass(frozen=True)
class MLP:
    """Strategy "mlp". units: width of the hidden layer; rate, decay: of AdamW; epochs: at most."""

    units: int = 256
    dropout: float = 0.5
    rate: float = 1e-3
    decay: float = 1e-2
    epochs: int = 200
    name: str = "mlp"
    transfers: bool = True
    quick: bool = True

    def basis(self, kind: Kind, source: Backbone | None) -> Backbone:
        """The source itself; raises RequestError where there is none."""
        if source is None:
            raise RequestError(
                f"strategy 'mlp' learns on a pretrained model's features; no source was given for {kind} "
                "rows; try: --source NAME (graft sources lists them), or --strategy scratch"
            )
        return source

    def fit(self, task: Task, basis: Backbone | None, notify: Notify) -> Model:
        """Train on the training rows, stop and calibrate on the rows set apart.

        Those are the task's validation rows; where there are none, a stratified fifth of whole groups.
        """
        backbone = self.basis(task.kind, basis)
        features = labelled_matrix(backbone, task.rows, notify)
        head, settings = self.fit_head(features, task, notify)
        return Model(backbone, head, settings=settings)

    def fit_head(
        self, features: NDArray[np.float32], task: Task, notify: Notify
    ) -> tuple[MLPHead, dict[str, Any]]:
        """The head on (rows, width) features, and how its training went, in plain JSON."""
        present, codes = np.unique(task.codes, return_inverse=True)
        known = replace(task, codes=codes, labels=tuple(task.labels[code] for code in present))
        apart = set_apart(known)
        training = _Training(self, features, known, np.flatnonzero(~apart), np.flatnonzero(apart))
        curve = training.run(notify)
        arrays = training.arrays()
        heat, loss = 1.0, None
        if apart.any():
            seen = MLPHead.of(known.labels, arrays).logits(features[apart])
            heat, loss = temperature(seen, codes[apart], task.weights[apart])
        settings = {
            "head": "mlp",
            "units": self.units,
            "dropout": self.dropout,
            "rate": self.rate,
            "decay": self.decay,
            "epochs": len(curve),
            "temperature": heat,
            "log_loss": loss,
            "rows_out_of_fold": int(apart.sum()),
            "training_curve": curve,
        }
        head = MLPHead.of(known.labels, arrays, heat)
        return (head if len(present) == len(task.labels) else head.over(task.labels)), settings


def set_apart(task: Task) -> NDArray[np.bool_]:
    """Rows that stop the training: validation rows, else a fifth; never a class's only group.

    A validation row whose group also has training rows would leak, and trains instead.
    """
    shared = np.isin(task.groups, task.groups[~task.validation])
    apart = np.asarray(task.validation & ~shared)
    if not apart.any() or apart.all():
        apart = grouped_folds(task.codes, task.groups, 5, task.seed) == 0
    missing = np.setdiff1d(task.codes[apart], task.codes[~apart])
    keep = np.isin(task.groups, task.groups[np.isin(task.codes, missing)])
    return np.asarray(apart & ~keep)


class _Training:
    """One run of AdamW; rows are read in batches, so a memory map is never copied whole."""

    def __init__(
        self, recipe: MLP, features: NDArray[np.float32], task: Task, train: IntArray, apart: IntArray
    ) -> None:
        self.features, self.task, self.train, self.apart = features, task, train, apart
        self.centre, self.scale = _moments(features, train)
        # small data: small batches, so that an epoch is still a dozen steps
        self.batch = int(np.clip(len(train) // 16, 16, BATCH))
        self.rng = np.random.default_rng(task.seed)
        self.noise = torch.Generator().manual_seed(task.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(task.seed)
            self.first = nn.Linear(features.shape[1], recipe.units)
            self.last = nn.Linear(recipe.units, len(task.labels))
        self.dropout, self.epochs = recipe.dropout, recipe.epochs
        self.optimiser = torch.optim.AdamW(
            [*self.first.parameters(), *self.last.parameters()], lr=recipe.rate, weight_decay=recipe.decay
        )

    def run(self, notify: Notify) -> list[list[float | None]]:
        """(epoch, training loss, loss of the rows set apart) of each epoch; the best state is kept."""
        curve: list[list[float | None]] = []
        best, kept, waited = float("inf"), self.arrays(), 0
        until = None if self.task.seconds is None else time.monotonic() + self.task.seconds
        epochs = self.epochs if len(self.apart) else min(self.epochs, BLIND_EPOCHS)
        for epoch in range(epochs):
            loss = self.epoch()
            held = self.held_loss() if len(self.apart) else None
            curve.append([epoch + 1, loss, held])
            notify(Progress("head", epoch + 1, epochs, "epochs"))
            if held is None or held < best:
                best, kept, waited = loss if held is None else held, self.arrays(), 0
            else:
                waited += 1
            if waited >= PATIENCE or (until is not None and time.monotonic() > until):
                break
        self.keep(kept)
        return curve

    def epoch(self) -> float:
        """One pass over the training rows in a new order; the weighted mean loss."""
        order, total = self.rng.permutation(self.train), 0.0
        for rows in blocks(len(order), self.batch):
            index = order[rows]
            hidden = self.hidden(index)
            kept = torch.rand(hidden.shape, generator=self.noise) >= self.dropout
            loss = self.loss(self.last(hidden * kept / (1.0 - self.dropout)), index)
            self.optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimiser.step()
            total += float(loss.detach()) * len(index)
        return total / len(order)

    @torch.no_grad()
    def held_loss(self) -> float:
        """Weighted mean loss of the rows set apart."""
        total = 0.0
        for rows in blocks(len(self.apart)):
            index = self.apart[rows]
            total += float(self.loss(self.last(self.hidden(index)), index)) * len(index)
        return total / len(self.apart)

    def hidden(self, index: IntArray) -> Tensor:
        rows = (self.features[index] - self.centre) / self.scale
        return torch.relu(self.first(torch.from_numpy(rows)))

    def loss(self, logits: Tensor, index: IntArray) -> Tensor:
        codes = torch.from_numpy(self.task.codes[index])
        weights = torch.from_numpy(self.task.weights[index].astype(np.float32))
        return (nn.functional.cross_entropy(logits, codes, reduction="none") * weights).mean()

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """The network as MLPHead keeps it (copies)."""
        named = {"hidden": self.first.weight.T, "hidden_bias": self.first.bias}
        named |= {"out": self.last.weight.T, "out_bias": self.last.bias}
        copies = {name: tensor.detach().numpy().copy() for name, tensor in named.items()}
        return {"centre": self.centre, "scale": self.scale, **copies}

    @torch.no_grad()
    def keep(self, arrays: Mapping[str, NDArray[np.float32]]) -> None:
        """Take back a state that `arrays` gave."""
        self.first.weight.copy_(torch.from_numpy(arrays["hidden"].T))
        self.first.bias.copy_(torch.from_numpy(arrays["hidden_bias"]))
        self.last.weight.copy_(torch.from_numpy(arrays["out"].T))
        self.last.bias.copy_(torch.from_numpy(arrays["out_bias"]))


def _moments(
    features: NDArray[np.float32], rows: IntArray
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation of each feature over `rows`; a nearly constant one is left small."""
    total, squares = np.zeros(features.shape[1]), np.zeros(features.shape[1])
    for part in blocks(len(rows)):
        total += features[rows[part]].sum(axis=0, dtype=np.float64)
    mean: Float64 = total / len(rows)
    for part in blocks(len(rows)):
        squares += ((features[rows[part]] - mean) ** 2).sum(axis=0)
    deviation = np.sqrt(squares / len(rows))
    usual = float(np.sqrt((deviation**2).mean()))
    # a feature that hardly varies in training must not explode on a new row
    scale = np.maximum(deviation, 0.1 * usual) if usual > 0 else np.ones_like(deviation)
    return mean.astype(np.float32), scale.astype(np.float32)
