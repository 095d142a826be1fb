"""How to train: every number a training follows, in one frozen record of plain JSON."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from graftwork.records import Metric


@dataclass(frozen=True)
class Plan:
    """rate: the highest learning rate, of the head; it rises over `warmup` (share of the whole), then
    falls along a cosine to zero. decay: decoupled weight decay. smoothing: of the labels.
    patience: epochs without a better held score after which to stop, None for never.
    seconds: wall-clock limit; the cosine reaches zero with it, whatever epoch that is in.

    batch: rows a step; one or two more where a step of a single row would remain. pieces: a step's rows
    go through the network in so many parts, their gradients added up (gradient accumulation). clip:
    largest norm of the gradient, None for any. mixup: the Beta distribution's parameter (Zhang et al.
    2018), 0 for none. pull: strength of L2-SP (Li et al. 2018), towards the weights at the start: a step
    at rate r undoes r x pull of the way from there. gradual: one more group of layers begins to learn in
    each of the first epochs (Howard and Ruder 2018). still: batch normalisation keeps its statistics.
    keep: which epoch's weights are kept where rows are held: of the best score, of the lowest loss.
    precision: "bf16" where the machine has it ("auto"), else float32.

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
    pieces: int = 1
    clip: float | None = None
    mixup: float = 0.0
    pull: float = 0.0
    gradual: bool = False
    still: bool = False
    keep: Literal["loss", "score"] = "loss"
    metric: Metric = "accuracy"
    precision: Literal["auto", "f32", "bf16"] = "f32"
    sampling: Literal["plain", "balanced", "paired"] = "plain"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Layers:
    """Parameters (by name) that learn at `rate` times the plan's rate; early layers come first.

    pulled: whether `Plan.pull` holds them to where they start; a head has no source to be held to.
    """

    names: frozenset[str]
    rate: float = 1.0
    pulled: bool = True


@dataclass(frozen=True)
class Epoch:
    """number: from 1. training: mean loss of its batches. held, score: loss and metric on held rows.

    seconds: wall-clock seconds of its steps, without what was asked of the held rows.
    """

    number: int
    training: float
    held: float | None
    score: float | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Training:
    """How a training went. `kept` is the number of the epoch whose weights the network has now, 0 for
    those that it began with.

    trouble: why it stopped before its end, such as a loss that was no number; None where it did not.
    memory: the most bytes that were in use on a GPU at once, 0 without one.
    """

    epochs: tuple[Epoch, ...]
    kept: int
    stopped: Literal["epochs", "patience", "time", "trouble"]
    seconds: float
    trouble: str | None = None
    memory: int = 0
