"""What strategies that change the backbone share: options, the start from a probe, the model at the end."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from graftwork.backbones.base import Backbone, Cut, Tunable, labelled_matrix, plain
from graftwork.errors import RequestError
from graftwork.heads import LinearHead, temperature
from graftwork.model import Model
from graftwork.records import Notify
from graftwork.strategies.base import Task
from graftwork.strategies.probe import fit_head
from graftwork.strategies.scratch import held_rows
from graftwork.training import Layers, Plan, Training, train
from graftwork.training.checkpoints import Checkpoint


class Classifier(nn.Module):
    """A backbone's network and a linear head: what `Examples.batch` gives -> logits (rows, classes)."""

    def __init__(self, features: nn.Module, head: LinearHead) -> None:
        super().__init__()
        self.features = features
        weights, bias = head.arrays["weights"], head.arrays["bias"] / head.config["temperature"]
        self.head = nn.Linear(*weights.shape)
        with torch.no_grad():
            self.head.weight.copy_(torch.from_numpy(weights.T / head.config["temperature"]))
            self.head.bias.copy_(torch.from_numpy(bias))

    def forward(self, *inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(*inputs))
        return logits


def tunable(strategy: str, basis: Backbone | None) -> Tunable:
    """The backbone whose network may learn; raises RequestError where it is none."""
    if basis is None:
        raise RequestError(
            f"strategy {strategy!r} tunes a pretrained model; no source was given; try: --source NAME (graft "
            "sources lists them)"
        )
    found = plain(basis)
    if not isinstance(found, Tunable):
        source = found.state().source
        name = "this source" if source is None else f"source {source.name!r}"
        raise RequestError(
            f"{name} gives features only: its network cannot learn, so strategy {strategy!r} cannot take "
            "it; try --strategy probe or mlp, or another source"
        )
    return found


def started(task: Task, basis: Backbone, held: NDArray[np.bool_], notify: Notify) -> LinearHead:
    """The linear probe of the rows that are learnt from, to start from (Kumar et al. 2022, "LP-FT")."""
    learnt = task.part(np.flatnonzero(~held))
    head, _ = fit_head(labelled_matrix(basis, learnt.rows, notify), learnt, "logistic")
    assert isinstance(head, LinearHead)
    return head


def learnt_of(network: nn.Module, cut: Cut, before: Mapping[str, Tensor]) -> dict[str, NDArray[np.float32]]:
    """The tensors of the tuned network that are others than `before`, by the backbone's own names."""
    found = {}
    for name, value in network.state_dict().items():
        own = name.removeprefix(cut.prefix)
        if own in before and not torch.equal(value.cpu(), before[own]):
            found[own] = np.array(value.detach().cpu().float().numpy())
    return found


@dataclass(frozen=True)
class Options:
    """What may be set of every strategy that changes the backbone; None leaves it to `settled`.

    epochs, batch, rate, decay, warmup, smoothing, mixup, pull, gradual, still, clip, patience, pieces,
    precision: see `training.Plan`; rate is that of the last layers and the head. layer_decay: each earlier
    block learns at so many times the rate of the one after it. average: keep the mix of the source's and
    the tuned weights that does best on held rows (WiSE-FT, Wortsman et al. 2022). balance: how unbalanced
    classes are made up for. augment: how much training rows are distorted.
    """

    epochs: int | None = None
    batch: int | None = None
    rate: float | None = None
    decay: float | None = None
    layer_decay: float | None = None
    warmup: float | None = None
    smoothing: float | None = None
    mixup: float | None = None
    pull: float | None = None
    gradual: bool | None = None
    still: bool | None = None
    clip: float | None = None
    patience: int | None = None
    pieces: int | None = None
    precision: Literal["auto", "f32", "bf16"] | None = None
    average: bool | None = None
    balance: Literal["auto", "none", "weights", "sampling", "logits"] | None = None
    augment: Literal["none", "light", "strong", "randaugment"] | None = None


def settled(given: Options, defaults: Options) -> Options:
    """`given`, with `defaults` for whatever it leaves open."""
    said = {field.name: getattr(given, field.name) for field in fields(Options)}
    return replace(defaults, **{name: value for name, value in said.items() if value is not None})


def plan_of(options: Options, task: Task) -> Plan:
    """The training that settled options ask for."""
    names = {field.name for field in fields(Plan)} & {field.name for field in fields(Options)}
    said = {name: getattr(options, name) for name in names}
    said = {name: value for name, value in said.items() if value is not None}
    return Plan(seed=task.seed, keep="score", metric=task.metric, seconds=task.seconds, **said)


def layers_of(cut: Cut, blocks: Sequence[str], decay: float) -> tuple[Layers, ...]:
    """The layers that may learn, early ones first and slower; the head comes last, at the full rate."""
    names = {f"features.{name}" for name in cut.learnable}
    groups = []
    for number, block in enumerate(blocks):
        mine = frozenset(n for n in names if n.startswith(f"features.{cut.prefix}{block}."))
        if mine:
            groups.append(Layers(mine, decay ** (len(blocks) - number)))
    early = names.difference(*(group.names for group in groups))
    # what lies outside the blocks: the stem and embeddings before them, or what follows the last
    before = frozenset(early) if cut.block is None else frozenset()
    after = frozenset(early) - before
    last = frozenset({"head.weight", "head.bias"}) | after
    first = (Layers(before, decay ** (len(blocks) + 1)),) if before else ()
    return (*first, *groups, Layers(last))


def tune(
    task: Task,
    basis: Backbone,
    backbone: Tunable,
    cut: Cut,
    options: Options,
    work: Mapping[str, Any],
    notify: Notify,
) -> Model:
    """Train `cut` from the probe on, and give the model that it becomes. work: what names its checkpoint."""
    held = held_rows(task)
    before = {name: value.clone() for name, value in backbone.network().state_dict().items()}
    network = Classifier(cut.network, started(task, basis, held, notify))
    plan = plan_of(options, task)
    layers = layers_of(cut, backbone.blocks(), 1.0 if options.layer_decay is None else options.layer_decay)
    done = train(
        network, cut.examples, task.codes, plan,
        held=held, weights=task.weights, layers=layers, from_start=True,
        checkpoint=checkpoint_of(task, basis, plan, work), notify=notify,
    )  # fmt: skip
    learnt = learnt_of(network.features, cut, before)
    tuned = backbone.tuned(learnt, task.rows)
    head = head_of(network, task, tuned, held)
    return Model(tuned, head, settings=settings_of(options, plan, done, held, learnt))


def head_of(network: Classifier, task: Task, tuned: Backbone, held: NDArray[np.bool_]) -> LinearHead:
    """The network's last layer, its temperature from the held rows."""
    weight, bias = network.head.weight.detach().cpu().numpy(), network.head.bias.detach().cpu().numpy()
    head = LinearHead.of(task.labels, weight.T.astype(np.float64), bias.astype(np.float64))
    index = np.flatnonzero(held)
    if not len(index):
        return head
    logits = head.logits(labelled_matrix(tuned, task.rows.take(index)))
    heat, _ = temperature(logits, task.codes[index], task.weights[index])
    return LinearHead.of(task.labels, weight.T.astype(np.float64), bias.astype(np.float64), heat)


def checkpoint_of(task: Task, basis: Backbone, plan: Plan, work: Mapping[str, Any]) -> Checkpoint | None:
    """Where the training of these rows by this plan keeps its state; None where nothing is kept."""
    if task.checkpoints is None:
        return None
    rows = [task.rows.column.digest(i).hex() for i in range(len(task.rows))]
    key = {
        "rows": rows, "codes": task.codes.tolist(), "validation": task.validation.tolist(),
        "groups": task.groups.tolist(), "weights": task.weights.tolist(), "source": basis.fingerprint,
        "plan": plan.to_json(), **work,
    }  # fmt: skip
    return task.checkpoints.of(key)


def settings_of(
    options: Options, plan: Plan, done: Training, held: NDArray[np.bool_], learnt: Mapping[str, NDArray[Any]]
) -> dict[str, Any]:
    """What is kept of a training in the record, in plain JSON."""
    return {
        "options": {name: value for name, value in asdict(options).items() if value is not None},
        "held_rows": int(held.sum()),
        "epochs": len(done.epochs),
        "kept_epoch": done.kept,
        "stopped_by": done.stopped,
        "trouble": done.trouble,
        "tensors": len(learnt),
        "bytes": sum(array.nbytes for array in learnt.values()),
        "seconds_an_epoch": [epoch.seconds for epoch in done.epochs],
        "training_curve": [[e.number, e.training, e.held] for e in done.epochs if e.number],
        "seed": plan.seed,
    }
