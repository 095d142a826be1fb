"""A backbone's network with a linear head on it: where tuning starts, and the head that it ends with."""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from graftwork.backbones.base import Backbone, Examples, labelled_matrix
from graftwork.heads import LinearHead, temperature
from graftwork.records import Notify
from graftwork.rows import IntArray
from graftwork.strategies.base import Task
from graftwork.strategies.probe import fit_head
from graftwork.training import Plan, answered


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


def started(task: Task, basis: Backbone, held: NDArray[np.bool_], notify: Notify) -> LinearHead:
    """The linear probe of the rows that are learnt from, to start from (Kumar et al. 2022, "LP-FT")."""
    learnt = task.part(np.flatnonzero(~held))
    head, _ = fit_head(labelled_matrix(basis, learnt.rows, notify), learnt, "logistic")
    assert isinstance(head, LinearHead)
    return head


def heat_of(network: Classifier, examples: Examples, task: Task, held: IntArray, plan: Plan) -> float:
    """The temperature that suits the held rows (positions); 1 where there are none."""
    if not len(held):
        return 1.0
    logits = answered(network, examples, held, plan.precision)
    return temperature(logits, task.codes[held], task.weights[held])[0]


def linear_of(network: Classifier, task: Task, heat: float) -> LinearHead:
    """The network's last layer as a head; a label that no row carries is answered as all but impossible."""
    weight, bias = network.head.weight.detach().cpu().numpy(), network.head.bias.detach().cpu().numpy()
    head = LinearHead.of(task.labels, weight.T.astype(np.float64), bias.astype(np.float64), heat)
    absent = np.setdiff1d(np.arange(len(task.labels)), task.codes)
    return replace(head, config={**head.config, "absent": absent.tolist()}) if len(absent) else head
