"""What jobs do: one module a kind. Runs in a process of its own, which may be killed at any moment."""

from collections.abc import Callable, Iterator
from importlib import import_module
from types import ModuleType

from graftwork.errors import GraftworkError
from graftwork.service.database.tables import Dataset, Job
from graftwork.service.jobs.desk import Desk
from graftwork.service.problems import Problem
from graftwork.service.work.said import Said

_MODULES = {"inspect": "inspecting", "rank": "ranking", "fit": "fitting", "import": "importing"}


def run(job: Job, desk: Desk) -> None:
    """Do the job and finish it, or raise why it cannot be done: a Problem or an error of Graftwork, in words
    that its owner may read.
    """
    work: Callable[[Job, Desk], None] = _module(job.kind).work
    try:
        work(job, desk)
    except Problem as problem:
        problem.detail = _said(job, desk).problem(problem.detail)
        raise
    except GraftworkError as error:
        error.args = (_said(job, desk).problem(str(error)),)
        raise


def warm() -> Iterator[None]:
    """Import what any job needs, step by step, and nothing else: processes are forked from one that has."""
    for name in _MODULES.values():
        import_module(f"{__name__}.{name}")
        yield
    for name in ("torch", "transformers", "sklearn.linear_model", "pyarrow.parquet", "PIL.Image"):
        import_module(name)
        yield
    from graftwork.backbones.converted import openvino

    openvino()  # by the one way that reports to nobody and starts no thread
    yield


def _module(kind: str) -> ModuleType:
    return import_module(f"{__name__}.{_MODULES[kind]}")


def _said(job: Job, desk: Desk) -> Said:
    with desk.database.read() as session:
        return Said(desk.settings, session.get(Dataset, job.dataset_id) if job.dataset_id else None)
