"""Datasets: labelled rows made of uploaded files, inspected by a job, corrected row by row."""

import os
import shutil
import time
from pathlib import Path
from typing import Any

from fastapi import Request
from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session, defer
from starlette.responses import Response

from graftwork.service import ids, shapes, usage
from graftwork.service.callers import Caller
from graftwork.service.context import Service, service
from graftwork.service.database.tables import TERMINAL, Correction, Dataset, File, Job
from graftwork.service.holdings import admit, in_use, owned_dataset, owned_file, ready
from graftwork.service.idempotency import Created, IdempotencyKey, once
from graftwork.service.jobs.queue import enqueue
from graftwork.service.pagination import Cursor, Limit, page
from graftwork.service.problems import Pointer, bad_request, not_found
from graftwork.service.security import Predicts, Writes
from graftwork.service.strict import router as new_router
from graftwork.service.uploads import flush, keeping, remove_tree

router = new_router("datasets")
_CHUNK = 500
_LONG = (defer(Dataset.inspection), defer(Dataset.files))
"""What lists leave out."""


@router.post("/datasets", status_code=202, response_model=shapes.Dataset)
def create(
    request: Request, caller: Writes, body: shapes.NewDataset, idempotency_key: IdempotencyKey = None
) -> Response:
    """One archive or table, or files with their labels; it is "inspecting" until its job has ended."""
    here = service(request)

    def make(session: Session) -> Created:
        first = _require_files(session, caller, body)
        admit(session, here, caller)
        row = Dataset(
            id=ids.new("data"),
            owner_id=caller.owner_id,
            name=body.name
            or shapes.plain_name(first.name.rpartition(".")[0] or first.name, 100)
            or "dataset",
            state="inspecting",
            files=[one.model_dump() for one in body.files],
            options=body.options.model_dump(exclude_none=True),
            bytes=0,
            created=time.time(),
        )
        session.add(row)
        session.flush()
        row.job_id = enqueue(session, caller.owner_id, "inspect", {}, dataset_id=row.id).id
        return Created(shapes.dataset(row, 0), 202, {"Location": f"/v1/datasets/{row.id}"})

    return once(request, body.model_dump(), make)


@router.get("/datasets", response_model=shapes.Page[shapes.Dataset])
def list_datasets(request: Request, caller: Predicts, cursor: Cursor = None, limit: Limit = 50) -> Any:
    return listed(service(request), caller, cursor, limit)


@router.get("/datasets/{dataset}", response_model=shapes.Dataset)
def get_dataset(request: Request, caller: Predicts, dataset: str) -> Any:
    return one(service(request), caller, dataset)


@router.delete("/datasets/{dataset}", status_code=204)
def delete_dataset(request: Request, caller: Writes, dataset: str) -> None:
    """With its rows, its corrections, and all features stored for the owner; models fitted on it stay.

    409 while a job works on it.
    """
    here = service(request)
    with here.database.write() as session:
        row = owned_dataset(session, caller, dataset, locked=True)
        alive = select(Job.id).where(Job.dataset_id == row.id, Job.state.not_in(TERMINAL)).limit(1)
        busy = session.scalar(alive)
        if busy is not None:
            raise in_use(f"the dataset {row.id}", busy)
        session.execute(delete(Correction).where(Correction.dataset_id == row.id))
        session.delete(row)
    remove_tree(here.settings, here.settings.dataset(dataset))
    # which features are of these rows alone is not known; they are but a cache
    remove_tree(here.settings, here.settings.private(caller.owner_id))


@router.post("/datasets/{dataset}/rows", status_code=201, response_model=shapes.Row)
def correct(
    request: Request,
    caller: Writes,
    dataset: str,
    body: shapes.NewRow,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Add a row that a person has labelled; the next fit on the dataset learns from it."""
    here = service(request)

    def make(session: Session) -> Created:
        row = ready(owned_dataset(session, caller, dataset, locked=True))
        wanted = "text" if row.kind == "text" else "file"
        if getattr(body, wanted) is None:
            raise bad_request(
                f"the rows of {row.name!r} are of kind {row.kind}; expected the field {wanted}",
                Pointer(f"/{wanted}", "is missing"),
            )
        content = None if body.file is None else owned_file(session, caller, body.file)
        size = len((body.text or "").encode()) if content is None else content.bytes
        count = _corrections(session, [row.id]).get(row.id, 0)
        usage.require(session, caller, here.settings.quotas, "rows", (row.rows or 0) + count + 1)
        usage.require(session, caller, here.settings.quotas, "bytes", size)
        if content is not None:
            _link(here, caller, content, row)
        row.bytes += size
        added = Correction(
            id=ids.new("row"),
            dataset_id=row.id,
            owner_id=caller.owner_id,
            label=body.label,
            text=body.text,
            sha256=None if content is None else content.sha256,
            created=time.time(),
        )
        session.add(added)
        location = {"Location": f"/v1/datasets/{row.id}/rows/{added.id}"}
        return Created(shapes.correction(added), 201, location)

    with keeping:
        return once(request, body.model_dump(), make)


@router.get("/datasets/{dataset}/rows", response_model=shapes.Page[shapes.Row])
def list_corrections(
    request: Request, caller: Predicts, dataset: str, cursor: Cursor = None, limit: Limit = 50
) -> Any:
    """Rows that were added by hand."""
    with service(request).database.read() as session:
        row = owned_dataset(session, caller, dataset)
        wanted = select(Correction).where(Correction.dataset_id == row.id)
        found = page(session, wanted, Correction, cursor, limit)
        return found.json([shapes.correction(each) for each in found.items])


@router.delete("/datasets/{dataset}/rows/{row}", status_code=204)
def delete_correction(request: Request, caller: Writes, dataset: str, row: str) -> None:
    here = service(request)
    with here.database.write() as session:
        owner = owned_dataset(session, caller, dataset, locked=True)
        found = session.get(Correction, row) if ids.is_one(row, "row") else None
        if found is None or found.dataset_id != owner.id:
            raise not_found("row of the dataset", row)
        session.delete(found)
        # the bytes of a file stay until the dataset goes: a running job, or another row, may read them
        owner.bytes -= len((found.text or "").encode())


def one(here: Service, caller: Caller, dataset: str) -> dict[str, Any]:
    """The caller's dataset, as `shapes.Dataset`."""
    with here.database.read() as session:
        row = owned_dataset(session, caller, dataset)
        return shapes.dataset(row, _corrections(session, [row.id]).get(row.id, 0))


def listed(here: Service, caller: Caller, cursor: str | None, limit: int) -> dict[str, Any]:
    """A page of the caller's datasets, as `shapes.Page[shapes.Dataset]`."""
    with here.database.read() as session:
        wanted = select(Dataset).where(Dataset.owner_id == caller.owner_id).options(*_LONG)
        found = page(session, wanted, Dataset, cursor, limit)
        counts = _corrections(session, [row.id for row in found.items])
        return found.json([shapes.dataset(row, counts.get(row.id, 0), brief=True) for row in found.items])


def _require_files(session: Session, caller: Caller, body: shapes.NewDataset) -> File:
    """The first of the files; raises a Problem (422) that points at each that is not the caller's."""
    said = [each.file for each in body.files]
    known: dict[str, File] = {}
    for start in range(0, len(said), _CHUNK):
        wanted = File.id.in_(said[start : start + _CHUNK])
        rows = session.scalars(select(File).where(wanted, File.owner_id == caller.owner_id))
        known |= {row.id: row for row in rows}
    missing = [i for i, file in enumerate(said) if file not in known]
    if missing:
        pointers = [Pointer(f"/files/{i}/file", "no such file") for i in missing[:100]]
        raise bad_request(f"no file {said[missing[0]]!r} here; upload it first: POST /v1/files", *pointers)
    unlabelled = [i for i, each in enumerate(body.files) if each.label is None]
    if 0 < len(unlabelled) < len(said):
        pointers = [Pointer(f"/files/{i}/label", "is missing") for i in unlabelled[:100]]
        raise bad_request("some files have a label and others none; give all of them one, or none", *pointers)
    return known[said[0]]


def _corrections(session: Session, datasets: list[str]) -> dict[str, int]:
    wanted = select(Correction.dataset_id, func.count()).where(Correction.dataset_id.in_(datasets))
    return {dataset: count for dataset, count in session.execute(wanted.group_by(Correction.dataset_id))}


def _link(here: Service, caller: Caller, file: File, row: Dataset) -> None:
    """The uploaded bytes, under their digest among the dataset's corrections."""
    source = here.settings.uploads(caller.owner_id) / file.sha256
    folder = here.settings.dataset(row.id) / "corrections"
    folder.mkdir(parents=True, exist_ok=True)
    _same_bytes(source, folder / file.sha256)
    flush(folder)


def _same_bytes(source: Path, place: Path) -> None:
    if place.exists():
        return
    try:
        os.link(source, place)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, place)
