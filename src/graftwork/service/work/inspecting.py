"""The job that makes a dataset of uploaded files: lay them out, read every row once, say what was found."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from graftwork.datasets.columns import ColumnsUnclear
from graftwork.errors import RequestError
from graftwork.inspection import Inspection, inspect, prepare
from graftwork.service.database import tables
from graftwork.service.database.tables import File, Job, Owner
from graftwork.service.intake.arrange import Arranged, Sent, arrange, clear
from graftwork.service.jobs.desk import Desk
from graftwork.service.problems import Problem, not_found, too_many
from graftwork.service.settings import Quotas
from graftwork.service.usage import quotas_of, used
from graftwork.service.work import data
from graftwork.service.work.said import Said
from graftwork.store import remember

LISTED = 1_000
"""Entries of each list of a record, such as unreadable rows; how many there are is said beside them."""


def work(job: Job, desk: Desk) -> None:
    """Make the dataset ready, or refuse it and free its disk; the job fails with the reason then."""
    settings = desk.settings
    with desk.database.read() as session:
        dataset = data.row(session, job.dataset_id)
        sent = _sent(session, desk, dataset)
        quotas, room = _bounds(session, desk, dataset)
    said = Said(settings, dataset)
    found: Inspection | None = None
    folder = settings.dataset(dataset.id)
    try:
        done = arrange(
            sent, folder, settings.limits, asked=bool(data.asked(dataset)), room=room, rows=quotas.rows
        )
        loaded = data.load(dataset, settings)
        _require_rows(len(loaded), quotas)
        found = inspect(loaded, remember, desk.notify)
        prepare(loaded, found)  # what a fit would refuse is refused now
    except (Problem, RequestError) as error:
        problem = _problem(error, said)
        clear(folder)
        desk.fail(problem["code"], problem["detail"], also=_refused(dataset.id, problem, found, said))
        return
    record = _record(found, said)
    try:
        ended = desk.finish(
            {"rows": found.rows, "kind": found.kind}, also=_ready(dataset.id, done, found, record)
        )
    except (
        Problem
    ):  # the dataset was deleted meanwhile; where the job was lost, another attempt uses the files
        clear(folder)
        raise
    if ended == "cancelled":
        clear(folder)


def _sent(session: Session, desk: Desk, dataset: tables.Dataset) -> list[Sent]:
    wanted = [one["file"] for one in dataset.files]
    rows = session.scalars(select(File).where(File.id.in_(wanted), File.owner_id == dataset.owner_id))
    files = {file.id: file for file in rows}
    sent = []
    for one in dataset.files:
        file = files.get(one["file"])
        path = None if file is None else desk.settings.uploads(dataset.owner_id) / file.sha256
        if file is None or path is None or not path.is_file():
            raise not_found("file", str(one["file"]))
        sent.append(Sent(path, file.name, one.get("label")))
    return sent


def _bounds(session: Session, desk: Desk, dataset: tables.Dataset) -> tuple[Quotas, int | None]:
    """The owner's quotas, and the bytes that are left of them without this dataset."""
    owner = session.get(Owner, dataset.owner_id)
    quotas = desk.settings.quotas if owner is None else quotas_of(owner, desk.settings.quotas)
    if quotas.bytes is None:
        return quotas, None
    return quotas, quotas.bytes - used(session, dataset.owner_id)["bytes"] + dataset.bytes


def _require_rows(rows: int, quotas: Quotas) -> None:
    if quotas.rows is not None and rows > quotas.rows:
        raise too_many(
            "quota-exceeded", f"{rows:,} rows; a dataset may have {quotas.rows:,}: send fewer", 3600
        )


def _problem(error: Problem | RequestError, said: Said) -> dict[str, Any]:
    if isinstance(error, ColumnsUnclear):
        columns = [said.text(name)[:1_000] for name in error.columns[:LISTED]]
        return {"code": "columns-unclear", "detail": said.problem(str(error)), "columns": columns}
    return {"code": error.code, "detail": said.problem(str(error))}


def _record(found: Inspection, said: Said) -> dict[str, Any]:
    """The inspection in plain JSON, its longest lists cut."""
    record = found.to_json()
    record["unreadable"] = dict(list(record["unreadable"].items())[:LISTED])
    clean: dict[str, Any] = said.json(_cut(record))
    return {**clean, "unreadable_rows": len(found.unreadable_rows)}


def _cut(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _cut(one) for key, one in value.items()}
    return [_cut(one) for one in value[:LISTED]] if isinstance(value, list | tuple) else value


def _ready(dataset_id: str, done: Arranged, found: Inspection, record: dict[str, Any]) -> Any:
    def also(session: Session) -> None:
        row = data.row(session, dataset_id)
        row.state, row.problem = "ready", None
        row.kind, row.rows, row.inspection, row.bytes = found.kind, found.rows, record, done.bytes

    return also


def _refused(dataset_id: str, problem: dict[str, Any], found: Inspection | None, said: Said) -> Any:
    def also(session: Session) -> None:
        row = data.row(session, dataset_id)
        row.state, row.problem, row.bytes = "refused", problem, 0
        if found is not None:
            row.kind, row.rows, row.inspection = found.kind, found.rows, _record(found, said)

    return also
