"""`scratch`: a network with fresh weights, trained on the task's rows alone. The honest rival of transfer.

Pictures: the compact network, at a resolution that suits them; recordings: the same on log-mel
spectrograms. Texts: the subword network. It learns for as many epochs as the rows ask for and the time
allows, and keeps the epoch that did best on held rows where there are enough of them to hold some out.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from graftwork.backbones.base import Backbone, labelled_matrix
from graftwork.backbones.compact import Compact, Preparation, open_compact, read_picture, weights
from graftwork.backbones.logmel import BANDS
from graftwork.backbones.subwords import Subwords, batches, read_tokens
from graftwork.errors import RequestError, Unreadable
from graftwork.heads import LinearHead, temperature
from graftwork.images import decode
from graftwork.model import Model
from graftwork.networks import (
    CompactConfig,
    CompactNet,
    SubwordConfig,
    SubwordNet,
    channels_last,
    compact_config,
)
from graftwork.records import Notify, Progress
from graftwork.rows import Kind, Rows
from graftwork.sources import COMPACT, Source
from graftwork.strategies.base import Task
from graftwork.training import (
    AUGMENTATIONS,
    Augment,
    Augmentation,
    Batches,
    Fed,
    Plan,
    Training,
    hold_out,
    mirrorable,
    seeded,
    train,
)

SECONDS = 20.0
"""What it may spend where nobody says."""

Amount = Literal["none", "light", "strong"]
T = TypeVar("T")

STEPS: dict[Kind, int] = {"image": 1_200, "text": 400, "audio": 1_200}
"""A few rows are seen again until this many steps are made."""

FEWEST_TO_HOLD_OUT = 200
_PATIENCE = 8
_LOOKED_AT = 48
_IN_MEMORY = 64_000_000


@dataclass(frozen=True)
class Scratch:
    """augment: how much the training rows are distorted. like: a compact source whose very network
    (not its weights) is trained, so that pretraining alone makes the difference; None: a default one.
    """

    augment: Amount = "light"
    like: Source | None = None
    name: str = "scratch"
    transfers: bool = False
    quick: bool = False

    def basis(self, kind: Kind, source: Backbone | None) -> Backbone | None:
        """None: every layer is learnt anew."""
        return None

    def fit(self, task: Task, basis: Backbone | None, notify: Notify) -> Model:
        """A network trained on `task`; raises Unreadable, RequestError where `like` is no compact source."""
        begun = time.perf_counter()
        with seeded(task.seed):
            made = self._made(task, notify)
        seconds = SECONDS if task.seconds is None else task.seconds
        # reading the rows counts, but a slow disk must not leave the network untrained
        left = max(seconds - (time.perf_counter() - begun), seconds / 2)
        held = held_rows(task)
        rows = len(task.codes) - int(held.sum())
        plan = plan_for(rows, STEPS[task.kind], left, seed=task.seed, held=bool(held.any()))
        training = train(
            made.network, Fed(made.batches, made.augment), task.codes, plan,
            held=held, weights=task.weights, notify=notify,
        )  # fmt: skip
        made.network.cpu()  # its features run there, wherever it learnt
        backbone = made.backbone()
        head = linear_head(made.network, task.labels)
        if held.any():
            index = np.flatnonzero(held)
            logits = head.logits(labelled_matrix(backbone, task.rows.take(index)))
            heat, _ = temperature(logits, task.codes[index], task.weights[index])
            head = linear_head(made.network, task.labels, heat)
        return Model(backbone, head, settings=self._settings(made, plan, training, held, head))

    def _made(self, task: Task, notify: Notify) -> "Made":
        if task.kind == "text":
            return _texts(task, self.augment)
        config, preparation = suited(task.rows) if self.like is None else _like(self.like)
        made = made_of_pictures(task.rows, config, preparation, len(task.labels), self.augment, notify)
        if isinstance(made.augment, Augmentation) and not mirrorable(task.labels):
            made = replace(made, augment=replace(made.augment, mirror=False))
        return made

    def _settings(
        self, made: "Made", plan: Plan, training: Training, held: NDArray[np.bool_], head: LinearHead
    ) -> dict[str, Any]:
        return {
            "network": made.described,
            "augment": self.augment,
            "like": None if self.like is None else self.like.name,
            "held_rows": int(held.sum()),
            "temperature": head.config["temperature"],
            "plan": asdict(plan),
            "epochs": len(training.epochs),
            "kept_epoch": training.kept,
            "stopped_by": training.stopped,
            "training_curve": [[e.number, e.training, e.held] for e in training.epochs],
        }


@dataclass(frozen=True)
class Made:
    """A network with fresh weights, what feeds it, and the backbone that it becomes."""

    network: "CompactNet | SubwordNet"
    batches: Batches
    augment: Augment | None
    backbone: Callable[[], Backbone]
    described: dict[str, Any]


def plan_for(rows: int, steps: int, seconds: float | None, *, seed: int, held: bool) -> Plan:
    """Epochs enough for about `steps` steps, between 30 and 600, in batches of 32 or (many rows) 64."""
    batch = 64 if rows > 1_000 else 32
    epochs = int(np.clip(steps / np.ceil(rows / batch), 30, 600))
    return Plan(epochs, batch, patience=_PATIENCE if held else None, seconds=seconds, seed=seed)


def held_rows(task: Task) -> NDArray[np.bool_]:
    """The rows that say when to stop: the user's validation rows, else a tenth of many rows, else none."""
    learnt = task.codes[~task.validation]
    if task.validation.any() and len(np.unique(learnt)) == len(np.unique(task.codes)):
        return task.validation
    if len(task.codes) < FEWEST_TO_HOLD_OUT:
        return np.zeros(len(task.codes), dtype=bool)
    return hold_out(task.codes, task.groups, 0.1, task.seed)


def linear_head(network: "CompactNet | SubwordNet", labels: tuple[str, ...], heat: float = 1.0) -> LinearHead:
    """The network's last layer as a head of its backbone, its logits divided by `heat`."""
    layer = network.classifier
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    return LinearHead.of(labels, weight.T.astype(np.float64), bias.astype(np.float64), heat)


def made_of_pictures(
    rows: Rows, config: CompactConfig, preparation: Preparation, classes: int, amount: Amount, notify: Notify
) -> Made:
    """A fresh compact network for these rows; raises Unreadable."""
    network = CompactNet(config, classes)
    channels_last(network)
    pictures = read_pictures(rows, config, preparation, notify)

    def some(index: NDArray[np.int64]) -> torch.Tensor:
        batch = torch.from_numpy(pictures[index]) / 255
        return batch.contiguous(memory_format=torch.channels_last)

    return Made(
        network,
        some,
        AUGMENTATIONS[amount, preparation.frame],
        lambda: Compact(config, preparation, weights(network)),
        {"family": "compact", **config.to_json(), "preparation": asdict(preparation)},
    )


def _texts(task: Task, amount: Amount) -> Made:
    config = SubwordConfig()
    network = SubwordNet(config, len(task.labels))
    texts = [
        _named(task.rows, i, lambda i: read_tokens(task.rows, i, config.buckets))
        for i in range(len(task.rows))
    ]
    dropped = {"none": 0.0, "light": 0.1, "strong": 0.25}[amount]
    return Made(
        network,
        lambda index: batches(texts, index),
        _without_some_tokens(dropped) if dropped else None,
        lambda: Subwords(config, weights(network)),
        {"family": "subwords", **config.to_json()},
    )


def _named(rows: Rows, i: int, read: Callable[[int], T]) -> T:
    """What `read` makes of row i; raises Unreadable, naming the row."""
    try:
        return read(i)
    except Unreadable as reason:
        raise Unreadable(f"{rows.names[i]} {reason}; remove or replace it, then run again") from reason


def _without_some_tokens(share: float) -> Augment:
    def drop(tokens: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        kept = torch.rand(tokens.shape[:2], generator=generator) >= share
        return tokens * kept[:, :, None]

    return drop


def read_pictures(
    rows: Rows, config: CompactConfig, preparation: Preparation, notify: Notify
) -> NDArray[np.uint8]:
    """All rows prepared, (rows, channels, size, size) uint8; raises Unreadable, naming the row.

    More than 64 MB lie in a temporary file that vanishes with the array.
    """
    shape = (len(rows), config.channels, config.size, config.size)
    if np.prod(shape) <= _IN_MEMORY:
        pictures = np.empty(shape, dtype=np.uint8)
    else:
        with tempfile.TemporaryFile() as file:
            pictures = np.memmap(file, np.uint8, "w+", shape=shape)
    for i in range(len(rows)):
        pictures[i] = _named(rows, i, lambda i: read_picture(rows, config, preparation, i))
        if i % 256 == 255:
            notify(Progress("reading", i + 1, len(rows)))
    return pictures


def suited(rows: Rows) -> tuple[CompactConfig, Preparation]:
    """The network and preparation for such pictures, from a look at 48 of them; raises Unreadable.

    32 pixels a side for small pictures, 64 for others. Ink on a ground is what is grey and has a
    border of mostly one value. Recordings are all looked at as spectrograms of 64 bands.
    """
    if rows.kind == "audio":
        # as in a drawing: at which pitch and when something sounds says as much as that it does
        return compact_config(1, BANDS, cells=4), Preparation("sound")
    index = np.unique(np.linspace(0, len(rows) - 1, _LOOKED_AT).astype(int))
    looked_at = [_named(rows, int(i), lambda i: decode(rows.column.read(i), 128)) for i in index]
    pictures = [np.asarray(picture, dtype=np.float32) for picture in looked_at]
    small = np.median([max(picture.shape[:2]) for picture in pictures]) <= 40
    grey = bool(np.mean([np.ptp(picture, axis=2).mean() <= 4 for picture in pictures]) > 0.95)
    drawn = grey and float(np.mean([_on_one_ground(picture[..., 0]) for picture in pictures])) > 0.8
    # in a drawing, where a stroke lies says as much as that there is one; in a photo it does not
    config = compact_config(1 if grey else 3, 32 if small else 64, cells=4 if drawn else 1)
    return config, Preparation("ink" if drawn else "whole")


def _on_one_ground(picture: NDArray[np.float32]) -> bool:
    """Whether at least 70% of the border lies within a fifth of the range of its median."""
    border = np.concatenate([picture[0], picture[-1], picture[1:-1, 0], picture[1:-1, -1]])
    near = np.abs(border - np.median(border)) <= 0.2 * np.ptp(picture)
    return bool(near.mean() >= 0.7)


def _like(source: Source) -> tuple[CompactConfig, Preparation]:
    if source.json("config.json").get("model_type") != COMPACT:
        raise RequestError(
            f"source {source.name!r} is no compact network, so none like it can be trained from scratch; "
            "expected one that graft pretrain made"
        )
    opened = open_compact(source)
    return opened.config, opened.preparation
