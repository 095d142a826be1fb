"""Graftwork: reuse a pretrained model for a new task, and say honestly whether the transfer helped.

Names are imported when they are first used, so that `import graftwork` stays quick.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graftwork.choosing import rank
    from graftwork.client import Client
    from graftwork.datasets import load
    from graftwork.errors import GraftworkError, RequestError, WorkError
    from graftwork.estimator import TransferClassifier
    from graftwork.inspection import inspect
    from graftwork.model import Model
    from graftwork.pretraining import pretrain
    from graftwork.records import Score, Verdict
    from graftwork.rows import Dataset
    from graftwork.transfer import Outcome, evaluate, fit

_HOME = {
    "Client": "client",
    "Dataset": "rows",
    "GraftworkError": "errors",
    "Model": "model",
    "Outcome": "transfer",
    "RequestError": "errors",
    "Score": "records",
    "TransferClassifier": "estimator",
    "Verdict": "records",
    "WorkError": "errors",
    "evaluate": "transfer",
    "fit": "transfer",
    "inspect": "inspection",
    "load": "datasets",
    "pretrain": "pretraining",
    "rank": "choosing",
}

__all__ = [
    "Client",
    "Dataset",
    "GraftworkError",
    "Model",
    "Outcome",
    "RequestError",
    "Score",
    "TransferClassifier",
    "Verdict",
    "WorkError",
    "evaluate",
    "fit",
    "inspect",
    "load",
    "pretrain",
    "rank",
]
__version__ = "0.1.0"

# Read when torch and numpy are first imported. Threads that spin while they wait take the cores from
# those they wait for; see docs/decisions/0007-threads-wait-passively.md
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'graftwork' has no attribute {name!r}")
    return getattr(import_module(f"graftwork.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
