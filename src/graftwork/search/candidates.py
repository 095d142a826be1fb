"""What is worth trying on rows of some kind and size, in which order, and about how long it takes.

What is written down here is where the search begins; measured times and scores decide from there on. See
docs/decisions/0012.
"""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Any

import numpy as np

from graftwork.backbones.base import Backbone, Tunable, plain
from graftwork.errors import GraftworkError
from graftwork.rows import Kind
from graftwork.search.halving import Lane
from graftwork.strategies.base import Task
from graftwork.strategies.options import defaults
from graftwork.training.machine import mixed, roomy

CHEAP = frozenset({"probe", "mlp", "layers", "classical"})
"""Strategies that train no network of their own: seconds."""
TUNING = frozenset({"partial", "full", "lora", "contrastive"})
"""Strategies that change the source's network."""
RANKS: Mapping[str, int] = {
    "probe": 0, "mlp": 1, "classical": 2, "layers": 3, "scratch": 4,
    "lora": 5, "partial": 6, "contrastive": 7, "full": 8,
}  # fmt: skip
"""What a model costs to keep and to ask beside others on the same source; a stranger's costs most."""
FEW = 32
"""Labels a class up to which contrastive learning comes first."""
_STARTS_S, _ENDS_S = 5.0, 6.0
"""Seconds that a training takes before its first step and after its last one, until they are measured."""
_LOOKED_AT, _PASSES = 16, 3
_A_VIEW = 0.6
"""What a kept view of a row costs to distort and extract, in passes of a training through the network."""
_VIEWS_SHARE = 0.15
"""Share of the time that may go into views of rows kept at a cut; fewer views are kept where it is little."""


@dataclass(frozen=True)
class Candidate:
    """A strategy and what is set of it apart from its defaults, by the names of its settings."""

    strategy: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash((self.strategy, tuple(sorted(self.settings))))

    @property
    def cheap(self) -> bool:
        return self.strategy in CHEAP

    @property
    def rank(self) -> int:
        return RANKS.get(self.strategy, len(RANKS))

    @property
    def label(self) -> str:
        """Unique among candidates, and short."""
        said = ", ".join(f"{name} {value}" for name, value in self.settings.items())
        return f"{self.strategy} ({said})" if said else self.strategy


@dataclass(frozen=True)
class Situation:
    """What the order of candidates and their first cost follow from.

    rows: to learn from. per_class: the median class's. blocks: of the source's network, 0 where it cannot
    learn. attention: whether it has any. forward_s: seconds that one row takes through it, as a training
    runs it. losing: whether the best model without transfer leads the probe.
    """

    kind: Kind
    rows: int
    per_class: float
    blocks: int = 0
    attention: bool = False
    forward_s: float = 0.0
    losing: bool = False


def situation_of(task: Task, rows: int) -> Situation:
    """What the labels say. rows: to learn from."""
    counts = np.bincount(task.codes)
    return Situation(task.kind, rows, float(np.median(counts[counts > 0])))


def looked_into(at: Situation, task: Task, basis: Backbone) -> Situation:
    """What a few rows that run through the source's network say besides; that takes seconds."""
    blocks, attention, forward_s = _network(task, basis)
    return replace(at, blocks=blocks, attention=attention, forward_s=forward_s)


def cheap(registered: Collection[str]) -> list[Candidate]:
    """Beside the probe: what takes seconds."""
    return [Candidate(name) for name in ("classical", "mlp", "layers") if name in registered]


def trainings(at: Situation, registered: Collection[str], seconds: float = np.inf) -> list[Candidate]:
    """Trainings that suit the situation, the most promising first; only of registered strategies.

    seconds: of the whole search.
    """
    counts: list[dict[str, Any]] = [{"blocks": k} for k in (2, 4) if k < at.blocks] or [{}]
    partial = [Candidate("partial", {**count, **_fewer_views(at, seconds)}) for count in counts]
    full, lora, pairs = Candidate("full"), Candidate("lora"), Candidate("contrastive")
    if at.kind == "text" and at.per_class <= FEW:
        order = [pairs, full, lora, *partial]
    elif at.kind == "text":
        order = [full, lora, *partial]
    elif at.per_class <= FEW:
        order = [partial[0], pairs, full, *partial[1:], lora]
    else:
        order = [partial[0], full, *partial[1:], lora]
    scratch = Candidate("scratch")
    order = [scratch, *order] if at.losing or at.kind == "audio" else [*order, scratch]
    strangers = [Candidate(name) for name in sorted(set(registered) - set(RANKS) - {"auto"})]
    able = [one for one in [*order, *strangers] if one.strategy in registered]
    return [one for one in able if not _hopeless(one, at)]


def _fewer_views(at: Situation, seconds: float) -> dict[str, int]:
    """How many views `partial` keeps, where its own number would take too much of the time."""
    usual = defaults("partial", at.kind, at.rows).views
    assert usual is not None
    views = usual
    while views > 1 and at.rows * views * at.forward_s * _A_VIEW > _VIEWS_SHARE * seconds:
        views //= 2
    return {} if views == usual else {"views": views}


def variants(best: Candidate, settings: Mapping[str, Any]) -> list[Candidate]:
    """Neighbours of the best training, for time that is left over; a neighbour has none of its own.

    settings: of the model that it gave.
    """
    rate = dict(settings.get("options", {})).get("rate")
    if best.strategy not in TUNING or not isinstance(rate, float) or "rate" in best.settings:
        return []
    return [Candidate(best.strategy, {**best.settings, "rate": rate * by}) for by in (0.4, 2.5)]


def lane_of(candidate: Candidate, at: Situation) -> Lane:
    """What one trial may cost, as far as that can be known before any."""
    return Lane(candidate.cheap, *_seconds(candidate, at))


def _seconds(candidate: Candidate, at: Situation) -> tuple[float, float, float]:
    """(whole, before and after the training, least training that says anything)."""
    rows = at.rows
    if candidate.strategy == "classical":
        return 2.0 + rows * (0.001 if at.kind == "text" else 0.005), 0.0, 0.0
    if candidate.strategy == "layers":
        return 3.0 + rows * (0.003 if at.kind == "text" else 0.004), 0.0, 0.0
    if candidate.cheap:
        return 1.0 + rows * 0.0005, 0.0, 0.0
    if candidate.strategy == "scratch":
        return 22.0, 2.0, 5.0
    fixed, share = _STARTS_S + _ENDS_S, 1.0
    usual = defaults(candidate.strategy, at.kind, rows)
    assert usual.epochs is not None and usual.views is not None
    if candidate.strategy == "partial":
        share = min(1.0, candidate.settings.get("blocks", 2) / max(at.blocks, 1))
        fixed += rows * candidate.settings.get("views", usual.views) * at.forward_s * _A_VIEW
    if candidate.strategy == "contrastive":
        return fixed + 8_000 * at.forward_s, fixed, 1_000 * at.forward_s
    epoch = 3.0 * at.forward_s * rows * share
    return fixed + usual.epochs * epoch, fixed, 0.4 * epoch


def _hopeless(candidate: Candidate, at: Situation) -> bool:
    """Whether it is known beforehand that it cannot be done, or that too few rows stand behind it."""
    if candidate.strategy == "lora":
        return not at.blocks or not at.attention or find_spec("peft") is None
    if candidate.strategy == "scratch":
        return at.rows < 50
    if candidate.strategy == "contrastive" and at.per_class > FEW:
        return True
    return candidate.strategy in TUNING and not at.blocks


def _network(task: Task, basis: Backbone) -> tuple[int, bool, float]:
    """(blocks, whether it has attention, seconds a row forward); (0, False, 0) where it cannot learn."""
    import torch

    found = plain(basis)
    if not isinstance(found, Tunable):
        return 0, False, 0.0
    index = np.linspace(0, len(task.codes) - 1, min(_LOOKED_AT, len(task.codes))).astype(np.int64)
    try:
        network, examples = found.network(), found.examples(task.rows.take(index))
    except GraftworkError:  # such as a family that only gives features: it says so when it is asked
        return 0, False, 0.0
    inputs = examples.batch(np.arange(len(index)), None)
    attention = any("attention" in type(module).__name__.lower() for module in network.modules())
    took = []
    # as a training runs it: its memory, its precision; the least of a few, as the first one warms up
    with roomy(), torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=mixed("auto")):
        for _ in range(_PASSES):
            start = time.perf_counter()
            network(*inputs)
            took.append(time.perf_counter() - start)
    return max(len(found.blocks()), 1), attention, min(took) / len(index)
