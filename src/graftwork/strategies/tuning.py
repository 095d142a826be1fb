"""What strategies that change the backbone share: the start from a probe, the training, the model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from graftwork.backbones.base import Backbone, Cut, Tunable, labelled_matrix, plain
from graftwork.backbones.examples import Distorted
from graftwork.errors import RequestError
from graftwork.model import Model
from graftwork.records import Notify
from graftwork.strategies.averaging import averaged, mixed, state_of
from graftwork.strategies.balancing import chosen
from graftwork.strategies.base import Task
from graftwork.strategies.classifier import Classifier, heat_of, linear_of, started
from graftwork.strategies.options import Options
from graftwork.strategies.scratch import held_rows
from graftwork.training import Layers, Plan, Training, distortion, mirrorable, train
from graftwork.training.balance import Balance, balanced
from graftwork.training.checkpoints import Checkpoint

TOLD_BY_SCORE = 100
"""Held rows from which the score tells epochs apart; of fewer the loss says more."""
FIRST = 0.5
"""Share of the time allowed that the training with held rows may take where one with all rows follows."""


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


def learnt_of(network: nn.Module, cut: Cut, before: Mapping[str, Tensor]) -> dict[str, NDArray[np.float32]]:
    """The tensors of the tuned network that are others than `before`, by the backbone's own names."""
    found = {}
    for name, value in network.state_dict().items():
        own = name.removeprefix(cut.prefix)
        if own in before and not torch.equal(value.cpu(), before[own]):
            found[own] = np.array(value.detach().cpu().float().numpy())
    return found


def plan_of(options: Options, task: Task) -> Plan:
    """The training that settled options ask for."""
    names = {field.name for field in fields(Plan)} & {field.name for field in fields(Options)}
    said = {name: getattr(options, name) for name in names}
    said = {name: value for name, value in said.items() if value is not None}
    return Plan(seed=task.seed, keep="score", metric=task.metric, seconds=task.seconds, **said)


def layers_of(cut: Cut, blocks: Sequence[str], decay: float) -> tuple[Layers, ...]:
    """The layers that may learn, early ones first and slower; the head comes last, at the full rate.

    What lies before the blocks (a stem, embeddings) is slower than the first of them; what lies between
    two goes with the earlier one; what follows the last is as fast as the head. Each parameter that
    `cut` names is in one group exactly.
    """
    places = {block: place for place, block in enumerate(blocks, start=1)}
    groups: dict[int, set[str]] = {}
    place, last = 0, len(blocks) + 1
    for name, _ in cut.network.named_parameters():
        own = name.removeprefix(cut.prefix)
        inside = next((at for block, at in places.items() if own.startswith(f"{block}.")), None)
        if inside is not None:
            place = inside
        elif place == len(blocks):
            place = last
        if name in cut.learnable:
            groups.setdefault(place if inside is None else inside, set()).add(f"features.{name}")
    parts = [Layers(frozenset(groups[at]), decay ** (last - at)) for at in sorted(groups)]
    return (*parts, Layers(frozenset({"head.weight", "head.bias"}), pulled=False))


def held_out(task: Task) -> tuple[NDArray[np.bool_], str | None]:
    """(rows,) True for rows that choose the epoch, never learnt from meanwhile; a remark for the user."""
    held = held_rows(task)
    if not held.any():
        return held, f"{len(held)} rows are too few to hold some out: the last epoch was kept"
    unseen = np.setdiff1d(task.codes, task.codes[held])
    if not len(unseen):
        return held, None
    names = ", ".join(repr(task.labels[code]) for code in unseen[:3]) + (", ..." if len(unseen) > 3 else "")
    return held, f"no held row is of class {names}: it is learnt, but nothing checks it, so no early stop"


def checked(task: Task, options: Options, cut: Cut, strategy: str) -> None:
    """Raises RequestError where such rows, or such options, cannot be tuned on."""
    rows, counts = len(task.codes), np.bincount(task.codes, minlength=len(task.labels))
    if np.count_nonzero(counts) < 2:
        raise RequestError(
            f"{rows} rows of one class seen; expected two classes at least; add another's rows"
        )
    if rows < len(task.labels):
        raise RequestError(
            f"{rows} rows of {len(task.labels)} classes seen; strategy {strategy!r} needs a row of each at "
            "least; label more rows, or take strategy probe"
        )
    if counts.max() < 2:
        raise RequestError(
            f"one row of each class seen; strategy {strategy!r} needs two of some; label more rows, or take "
            "strategy probe"
        )
    assert options.batch is not None
    normalised = any(isinstance(one, nn.modules.batchnorm._BatchNorm) for one in cut.network.modules())
    if normalised and not options.still and options.batch == 1:
        raise RequestError(
            "batch=1 and still=false seen; batch normalisation needs two rows at least to take a mean of; "
            "set batch=2 or more, or still=true"
        )
    if options.mixup and not cut.examples.batch(np.array([0]))[0].is_floating_point():
        raise RequestError(f"mixup={options.mixup:g} seen; token numbers cannot be mixed; set mixup=0")


@dataclass
class Tuning:
    """One task's training of one cut, on part of the rows or on all of them.

    method: how unequal classes are made up for. source: the cut network's own tensors, to begin from.
    """

    task: Task
    basis: Backbone
    cut: Cut
    layers: Sequence[Layers]
    method: str
    work: Mapping[str, Any]
    source: Mapping[str, Tensor]
    notify: Notify

    def run(self, plan: Plan, held: NDArray[np.bool_]) -> tuple[Classifier, Training, dict[str, Tensor]]:
        """From the probe on: the trained network, how it went, and what the network was at the start."""
        task = self.task
        network, balance = self.start(held)
        start = state_of(network)
        plan = replace(plan, sampling=balance.sampling)
        # the same plan on all rows is another training than beside held ones
        work = {**self.work, "balance": self.method, "held": np.flatnonzero(held).tolist()}
        done = train(
            network, self.cut.examples, task.codes, plan,
            held=held, weights=balance.weights, offsets=balance.offsets, layers=self.layers,
            from_start=True, checkpoint=checkpoint_of(task, self.basis, plan, work), notify=self.notify,
        )  # fmt: skip
        return network, done, start

    def start(self, held: NDArray[np.bool_]) -> tuple[Classifier, Balance]:
        """The source's network with the probe of the rows that are not held on it, balanced as asked."""
        task = self.task
        balance = balanced(self.method, task.codes, len(task.labels), task.weights, held)
        self.cut.network.load_state_dict(self.source)
        head = started(replace(task, weights=balance.weights), self.basis, held, self.notify)
        network = Classifier(self.cut.network, head)
        if balance.offsets is not None:
            # the probe has learnt how common classes are; from now on that is added while learning alone
            with torch.no_grad():
                network.head.bias.sub_(torch.from_numpy(balance.offsets).float())
        return network, balance


def tune(
    task: Task,
    basis: Backbone,
    backbone: Tunable,
    cut: Cut,
    options: Options,
    work: Mapping[str, Any],
    notify: Notify,
    read: Callable[[nn.Module, Cut, Mapping[str, Tensor]], dict[str, NDArray[np.float32]]] = learnt_of,
) -> Model:
    """Train `cut` from the probe on, and give the model that it becomes. work: what names its checkpoint.

    options: settled ones. read: what the trained network has learnt, for `Tunable.tuned`.
    Raises RequestError for rows or options that cannot be tuned on.
    """
    checked(task, options, cut, str(work["strategy"]))
    cut = distorted(cut, backbone, options, task)
    held, remark = held_out(task)
    plan = replace(plan_of(options, task), keep="score" if held.sum() >= TOLD_BY_SCORE else "loss")
    if remark is not None:
        plan = replace(plan, patience=None)
    method, why = balance_of(options, task, basis, held)
    layers = layers_of(cut, backbone.blocks(), 1.0 if options.layer_decay is None else options.layer_decay)
    work = {**work, "layer_decay": options.layer_decay, "augment": options.augment}
    tuning = Tuning(task, basis, cut, layers, method, work, state_of(cut.network), notify)
    refit = bool(options.refit) and bool(held.any()) and not task.look
    first = replace(plan, seconds=FIRST * plan.seconds) if refit and plan.seconds is not None else plan
    network, done, start = tuning.run(first, held)
    index = np.flatnonzero(held)
    if done.trouble and not len(index):
        # nothing tells whether an epoch before it was any good
        network.load_state_dict(start)
        done = replace(done, kept=0)
        remark = f"{len(held)} rows are too few to hold some out: the start was kept"
    share = 1.0
    if options.average and len(index) and done.kept:
        share = averaged(network, start, cut.examples, task, index, plan.precision)
    heat = heat_of(network, cut.examples, task, index, plan)
    said = {"remark": remark, "balance": why, "share_of_tuned": share, "refit_epochs": 0}
    if refit and not done.trouble:
        said["refit_epochs"] = done.kept
        network = refitted(tuning, network, done, plan, share)
    before = {name.removeprefix(cut.prefix): value for name, value in tuning.source.items()}
    learnt = read(network.features, cut, before)
    tuned = backbone.tuned(learnt, task.rows, settle=not task.look) if learnt else basis
    head = linear_of(network, task, heat)
    return Model(tuned, head, settings={**settings_of(options, plan, done, held, learnt), **said})


def refitted(tuning: Tuning, network: Classifier, done: Training, plan: Plan, share: float) -> Classifier:
    """The same training on all rows, for as many epochs as held rows chose, at the same mix."""
    kept = state_of(network)
    everything = np.zeros(len(tuning.task.codes), dtype=bool)
    if not done.kept:
        return tuning.start(everything)[0]
    left = None if plan.seconds is None else max(plan.seconds - done.seconds, 1e-3)
    again = replace(plan, epochs=done.kept, patience=None, seconds=left)
    other, last, start = tuning.run(again, everything)
    if last.trouble:
        other.load_state_dict(kept)
    elif share < 1:
        mixed(other, start, state_of(other), share)
    return other


def distorted(cut: Cut, backbone: Tunable, options: Options, task: Task) -> Cut:
    """The cut, its rows distorted while learning where it is a whole network; at a cut views are kept."""
    if cut.block is not None or options.augment in (None, "none"):
        return cut
    assert options.augment is not None
    found = distortion(task.kind, options.augment, backbone.frame, mirror=mirrorable(task.labels))
    return cut if found is None else replace(cut, examples=Distorted(cut.examples, found))


def balance_of(
    options: Options, task: Task, basis: Backbone, held: NDArray[np.bool_]
) -> tuple[str, dict[str, Any] | None]:
    """How unequal classes are made up for, and why where that was chosen here."""
    if options.balance not in (None, "auto"):
        return str(options.balance), None
    return chosen(labelled_matrix(basis, task.rows), task, held)


def checkpoint_of(task: Task, basis: Backbone, plan: Plan, work: Mapping[str, Any]) -> Checkpoint | None:
    """Where the training of these rows by this plan keeps its state; None where nothing is kept."""
    if task.checkpoints is None:
        return None
    rows = [task.rows.column.digest(i).hex() for i in range(len(task.rows))]
    key = {
        "rows": rows, "codes": task.codes.tolist(), "validation": task.validation.tolist(),
        "groups": task.groups.tolist(), "weights": task.weights.tolist(), "source": basis.fingerprint,
        # what is left of the time allowed is another at each start
        "plan": {**plan.to_json(), "seconds": task.seconds}, **work,
    }  # fmt: skip
    return task.checkpoints.of(key)


def settings_of(
    options: Options, plan: Plan, done: Training, held: NDArray[np.bool_], learnt: Mapping[str, NDArray[Any]]
) -> dict[str, Any]:
    """What is kept of a training in the record, in plain JSON."""
    return {
        "options": {name: value for name, value in asdict(options).items() if value is not None},
        "held_rows": int(held.sum()),
        "epochs": sum(epoch.number > 0 for epoch in done.epochs),
        "kept_epoch": done.kept,
        "stopped_by": done.stopped,
        "trouble": done.trouble,
        "tensors": len(learnt),
        "bytes": sum(array.nbytes for array in learnt.values()),
        "seconds_an_epoch": [epoch.seconds for epoch in done.epochs if epoch.number],
        "training_curve": [[e.number, e.training, e.held] for e in done.epochs if e.number],
        "memory": done.memory,
        "seed": plan.seed,
    }
