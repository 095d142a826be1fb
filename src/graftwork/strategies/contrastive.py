"""`contrastive`: for few labels a class. The encoder is pulled until rows of one class lie together.

Then a linear head is fitted on what the encoder gives. It is the idea of SetFit (Tunstall et al. 2022)
without its pairs one by one: a step encodes a batch of rows once and learns from all pairs inside it.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.backbones.base import Backbone, Cut, Tunable, labelled_matrix
from graftwork.errors import RequestError
from graftwork.folds import Fold, folds
from graftwork.heads import temperature
from graftwork.model import Model
from graftwork.records import Notify, Progress
from graftwork.rows import Kind
from graftwork.strategies.base import Task
from graftwork.strategies.probe import Choice, fit_head
from graftwork.strategies.scratch import held_rows
from graftwork.strategies.setting import known_settings
from graftwork.strategies.tuning import checkpoint_of, learnt_of, tunable
from graftwork.training import Layers, Plan, Training, answered, train
from graftwork.training.dealing import batches_an_epoch

FEW = 32
"""Labels a class up to which this is meant; beyond, tuning on the labels themselves does better."""
PARTS = 3
"""A batch of texts goes through in so many parts by length, so that little of it is padding."""


@dataclass(frozen=True)
class Pairs:
    """Squared distance of each pair's cosine from 1 where the classes are the same, else from 0.

    codes: (rows,) labels.
    """

    codes: Tensor

    def __call__(self, features: Tensor, index: Tensor) -> Tensor:
        codes = self.codes.to(index.device)[index]
        unit = F.normalize(features.float(), dim=1)
        same = (codes[:, None] == codes[None]).float()
        others = 1 - torch.eye(len(codes), device=features.device)
        # a row alone has no pair
        return ((unit @ unit.T - same).square() * others).sum() / others.sum().clamp(min=1)


class ByLength(nn.Module):
    """A text network run on PARTS parts of a batch, short texts apart from long ones."""

    def __init__(self, features: nn.Module) -> None:
        super().__init__()
        self.features = features

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        lengths = mask.sum(1)
        order = torch.argsort(lengths, stable=True)
        found = []
        for part in torch.tensor_split(order, min(PARTS, len(order))):
            longest = int(lengths[part].max())
            found.append(self.features(ids[part, :longest], mask[part, :longest]))
        return torch.cat(found)[torch.argsort(order)]


@dataclass(frozen=True)
class Contrastive:
    """steps, batch, rate, decay, warmup, clip, precision: of the pulling, see `training.Plan`; a batch
    holds all rows where it can, else several rows of each of some classes. embeddings: whether the table
    of token vectors learns too, which costs time and space for little. head: as of `Probe`. calibrate:
    whether few rows are learnt from by halves too, so that probabilities are not those of seen rows.
    """

    steps: int = 40
    batch: int = 64
    rate: float = 1e-4
    decay: float = 0.01
    warmup: float = 0.1
    clip: float | None = 1.0
    precision: Literal["auto", "f32", "bf16"] = "auto"
    embeddings: bool = False
    head: Choice = "auto"
    calibrate: bool = True
    name: str = "contrastive"
    transfers: bool = True
    quick: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 2:
            raise RequestError(
                f"{self.steps} steps of {self.batch} rows asked for; expected at least one step of two rows"
            )

    def basis(self, kind: Kind, source: Backbone | None) -> Backbone | None:
        """The source itself; raises RequestError where its network cannot learn, before any work is done."""
        tunable(self.name, source)
        return source

    def fit(self, task: Task, basis: Backbone | None, notify: Notify) -> Model:
        """Pull, then fit the head. Its temperature is that of rows held out (the user's validation rows, a
        tenth of many rows); of few rows, that of either half by what the other half alone gives.
        Raises RequestError where no class has two rows, or all rows are of one.
        """
        backbone = tunable(self.name, basis)
        assert basis is not None
        held = held_rows(task)
        learnt = task.part(np.flatnonzero(~held))
        each = labels_a_class(learnt)
        if each > FEW:
            note = f"meant for up to about {FEW} labels a class; these rows have {each:.0f}"
            notify(Progress("contrastive", 0, None, "steps", note))
        halves = [] if held.any() or not self.calibrate else halves_of(learnt)
        seconds = task.seconds if task.seconds is None or not halves else task.seconds / 2
        tuned, said = self.pulled(replace(learnt, seconds=seconds), basis, backbone, notify)
        head, chosen = fit_head(labelled_matrix(tuned, learnt.rows, notify), learnt, self.head)
        heat = chosen["temperature"]
        if held.any():
            asked = task.part(np.flatnonzero(held))
            logits = head.logits(labelled_matrix(tuned, asked.rows))
            heat *= temperature(logits, asked.codes, asked.weights)[0]
        elif halves and said["tensors"]:
            heat *= self.crossed(learnt, halves, basis, backbone, notify)
        head = replace(head, config={**head.config, "temperature": heat})
        settings = {**chosen, **said, "temperature": heat, "labels_a_class": each}
        options = {name: getattr(self, name) for name in known_settings(self)}
        return Model(tuned, head, settings={**settings, "options": options, "held_rows": int(held.sum())})

    def pulled(
        self, task: Task, basis: Backbone, backbone: Tunable, notify: Notify
    ) -> tuple[Backbone, dict[str, Any]]:
        """The backbone with its encoder pulled towards the classes of `task`, and how that went, in JSON."""
        cut, done, plan = self.pull(task, basis, backbone, notify)
        before = backbone.network().state_dict()
        # weights from which a loss was no number are no better than the source's
        learnt = {} if done.trouble else learnt_of(cut.network, cut, before)
        said = {
            "epochs": len(done.epochs), "stopped_by": done.stopped,
            "trouble": done.trouble, "tensors": len(learnt), "seed": plan.seed,
            "bytes": sum(array.nbytes for array in learnt.values()),
            "training_curve": [[e.number, e.training, e.held] for e in done.epochs],
        }  # fmt: skip
        return (backbone.tuned(learnt, task.rows, settle=not task.look) if learnt else basis), said

    def crossed(
        self, task: Task, halves: list[Fold], basis: Backbone, backbone: Tunable, notify: Notify
    ) -> float:
        """How much hotter answers must be for rows that neither encoder nor head has seen.

        Out of fold on an encoder that has seen every row, all rows lie with their class. Half the steps
        do for half the rows.
        """
        fewer = replace(self, steps=-(-self.steps // 2))
        logits = np.zeros((len(task.codes), len(task.labels)))
        for learn, asked in halves:
            part = replace(task.part(learn), seconds=None if task.seconds is None else task.seconds / 4)
            cut, _, plan = fewer.pull(part, basis, backbone, notify)
            features = [
                answered(cut.network, backbone.examples(rows), np.arange(len(rows)), plan.precision)
                for rows in (part.rows, task.rows.take(asked))
            ]
            head, _ = fit_head(features[0].astype(np.float32), part, self.head)
            logits[asked] = head.logits(features[1].astype(np.float32))
        rows = np.concatenate([asked for _, asked in halves])
        return max(1.0, temperature(logits[rows], task.codes[rows], task.weights[rows])[0])

    def pull(
        self, task: Task, basis: Backbone, backbone: Tunable, notify: Notify
    ) -> tuple[Cut, Training, Plan]:
        """The backbone's whole network, pulled towards the classes of `task`."""
        cut = backbone.cut(None, task.rows, [None], lambda other: other, notify)
        network = ByLength(cut.network) if task.kind == "text" else cut.network
        place = "features." if network is not cut.network else ""
        plan = self.plan(task, cut.examples.lengths is not None)
        work = {"strategy": self.name, "embeddings": self.embeddings}
        done = train(
            network, cut.examples, task.codes, plan,
            layers=(Layers(frozenset(place + name for name in self.learnable(cut))),),
            objective=Pairs(torch.from_numpy(task.codes)),
            checkpoint=checkpoint_of(task, basis, plan, work), notify=notify,
        )  # fmt: skip
        return cut, done, plan

    def plan(self, task: Task, lengths: bool) -> Plan:
        """Epochs are as many as make about `steps` steps. lengths: whether rows differ in length."""
        each = batches_an_epoch(len(task.codes), self.batch, lengths)
        return Plan(
            epochs=max(1, round(self.steps / each)), batch=self.batch, rate=self.rate, decay=self.decay,
            warmup=self.warmup, clip=self.clip, precision=self.precision, sampling="paired", still=True,
            seconds=task.seconds, seed=task.seed,
        )  # fmt: skip

    def learnable(self, cut: Cut) -> frozenset[str]:
        """Names in the network of the parameters that learn."""
        tables = [name for name, part in cut.network.named_modules() if isinstance(part, nn.Embedding)]
        return cut.learnable if self.embeddings else cut.learnable - {f"{name}.weight" for name in tables}


def labels_a_class(task: Task) -> float:
    """Mean labels a class; raises RequestError where there are no two rows to pull together or apart."""
    counts = np.bincount(task.codes)
    counts = counts[counts > 0]
    if len(counts) < 2:
        raise RequestError(
            f"{len(task.codes)} rows of one class seen; expected at least two classes; add rows of another"
        )
    if counts.max() < 2:
        raise RequestError(
            "strategy 'contrastive' pulls rows of one class together, and here each class has one row; label "
            "a second row of some class, or take strategy probe"
        )
    return float(counts.mean())


def halves_of(task: Task) -> list[Fold]:
    """Two halves, groups whole; none where a half would hold no two rows of one class."""
    try:
        found = folds(task.codes, task.groups, 2, task.seed)
    except RequestError:
        return []
    counts = [np.bincount(task.codes[learn]) for learn, _ in found]
    return found if all(count.max() >= 2 and np.count_nonzero(count) >= 2 for count in counts) else []
