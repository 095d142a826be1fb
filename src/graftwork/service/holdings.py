"""What a caller has, by its id; the same 404 whether there is none or it belongs to another."""

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from graftwork.service import ids, usage
from graftwork.service.callers import Caller
from graftwork.service.context import Service
from graftwork.service.database.tables import Dataset, File, Job
from graftwork.service.problems import Problem, not_found, too_many

QUEUE = 1_000
"""Jobs that may wait, of all owners together."""


def owned_file(session: Session, caller: Caller, file: str) -> File:
    row = session.get(File, file) if ids.is_one(file, "file") else None
    if row is None or row.owner_id != caller.owner_id:
        raise not_found("file", file)
    return row


def owned_dataset(session: Session, caller: Caller, dataset: str, *, locked: bool = False) -> Dataset:
    """locked: until the session's transaction ends, so that none can change or delete it."""
    row = session.get(Dataset, dataset, with_for_update=locked) if ids.is_one(dataset, "data") else None
    if row is None or row.owner_id != caller.owner_id:
        raise not_found("dataset", dataset)
    return row


def owned_job(session: Session, caller: Caller, job: str) -> Job:
    row = session.get(Job, job) if ids.is_one(job, "job") else None
    if row is None or row.owner_id != caller.owner_id:
        raise not_found("job", job)
    return row


def ready(row: Dataset) -> Dataset:
    """Raise a Problem (409) where the dataset cannot be worked on."""
    if row.state == "inspecting":
        detail = f"the dataset {row.id} is still being inspected; wait for {row.job_id}"
        raise Problem(409, "dataset-not-ready", detail)
    if row.state == "refused":
        why = (row.problem or {}).get("detail", "it could not be read")
        raise Problem(409, "dataset-refused", f"the dataset {row.id} was refused: {why}")
    return row


def in_use(what: str, job_id: str) -> Problem:
    return Problem(409, "in-use", f"{what} is used by {job_id}; wait for its end, or cancel it first")


def admit(session: Session, here: Service, caller: Caller) -> None:
    """Raise a Problem (429) where another job of the caller's may not be queued."""
    usage.require(session, caller, here.settings.quotas, "jobs", 1)
    waiting = session.scalar(select(func.count(Job.id)).where(Job.state == "queued")) or 0
    if waiting >= QUEUE:
        raise too_many("queue-full", f"{waiting:,} jobs are waiting; send this one later", 30)
