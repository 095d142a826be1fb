"""Files: what was uploaded, complete from the first answer on."""

import time
from collections.abc import AsyncIterator
from typing import Annotated, Any
from urllib.parse import unquote

from fastapi import Query, Request
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from graftwork.service import ids, shapes, usage
from graftwork.service.callers import Caller
from graftwork.service.context import Service, service
from graftwork.service.database.tables import TERMINAL, Dataset, File, Job
from graftwork.service.holdings import in_use, owned_file
from graftwork.service.idempotency import Created, IdempotencyKey, once
from graftwork.service.intake.kinds import refuse
from graftwork.service.multipart import Part, media_type, parts
from graftwork.service.pagination import Cursor, Limit, page
from graftwork.service.problems import Problem, bad_request, too_many
from graftwork.service.security import Predicts, Writes
from graftwork.service.strict import router as new_router
from graftwork.service.uploads import Received, check_digest, digest_said, keeping, receive

router = new_router("files")
_UNSAID = "application/octet-stream"
_BINARY = {"type": "string", "format": "binary"}
_BODIES = {
    "requestBody": {
        "required": True,
        "description": "The file itself, or a form with one part that has a filename.",
        "content": {
            "application/octet-stream": {"schema": _BINARY},
            "multipart/form-data": {
                "schema": {"type": "object", "required": ["file"], "properties": {"file": _BINARY}}
            },
        },
    }
}


@router.post("/files", status_code=201, response_model=shapes.File, openapi_extra=_BODIES)
async def upload(
    request: Request,
    caller: Writes,
    name: Annotated[str | None, Query(max_length=1000, description="its name, a label alone")] = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Take in a file. Repr-Digest or X-Content-SHA256 is checked where it is sent."""
    here = service(request)
    said = digest_said(request.headers)
    free, bound = await run_in_threadpool(_free, here, caller)
    most = here.settings.limits.upload

    mine = 0

    def grow(total: int) -> None:
        nonlocal mine
        if total > most:
            raise Problem(413, "content-too-large", f"more than {most:,} bytes seen; send smaller files")
        if total > mine:
            here.arriving[caller.owner_id] += total - mine
            mine = total
        if free is not None and here.arriving[caller.owner_id] > free:
            raise _full(free, bound or 0)

    try:
        length = request.headers.get("content-length", "")
        grow(int(length) if length.isdecimal() and len(length) < 20 and _is_raw(request) else 0)
        body = _Body(request, name)
        await body.begin()
        received = await receive(
            body.content(), here.settings.uploads(caller.owner_id), lambda head: refuse(body.name, head), grow
        )
        try:
            check_digest(received, said)
            answer = await run_in_threadpool(_keep, request, here, caller, received, body)
        finally:
            received.drop()
    finally:
        here.arriving[caller.owner_id] -= mine
    here.meter.count(caller.owner_id, "uploaded_bytes", received.bytes)
    return answer


@router.get("/files", response_model=shapes.Page[shapes.File])
def list_files(request: Request, caller: Predicts, cursor: Cursor = None, limit: Limit = 50) -> Any:
    with service(request).database.read() as session:
        wanted = select(File).where(File.owner_id == caller.owner_id)
        found = page(session, wanted, File, cursor, limit)
        return found.json([shapes.file(row) for row in found.items])


@router.get("/files/{file}", response_model=shapes.File)
def get_file(request: Request, caller: Predicts, file: str) -> Any:
    with service(request).database.read() as session:
        return shapes.file(owned_file(session, caller, file))


@router.delete("/files/{file}", status_code=204)
def delete_file(request: Request, caller: Writes, file: str) -> None:
    """Datasets made of it keep their rows; 409 while a job still reads it."""
    here = service(request)
    with keeping:
        with here.database.write() as session:
            row = owned_file(session, caller, file)
            _require_idle(session, row)
            session.delete(row)
            session.flush()
            shared = _is_kept(session, caller.owner_id, row.sha256)
        if not shared:
            (here.settings.uploads(caller.owner_id) / row.sha256).unlink(missing_ok=True)


class _Body:
    """The file in a request: the body itself, or the first part of a form that has a filename."""

    def __init__(self, request: Request, name: str | None) -> None:
        self._request = request
        self._name = name or unquote(request.headers.get("x-file-name", ""))
        self._parts = None if _is_raw(request) else parts(request)
        self.media = media_type(request.headers.get("content-type")) or _UNSAID
        if self.media == "application/x-www-form-urlencoded":  # what curl says of any --data-binary
            self.media = _UNSAID

    @property
    def name(self) -> str:
        return shapes.plain_name(self._name or "") or "file"

    async def begin(self) -> None:
        """Read a form as far as its file."""
        if self._parts is None:
            return
        async for one in self._parts:
            if isinstance(one, Part) and one.filename is not None:
                self._name = self._name or one.filename
                self.media = one.media_type or _UNSAID
                return
        raise bad_request(
            "the form has no file; expected a part with a filename, as curl -F file=@NAME sends"
        )

    async def content(self) -> AsyncIterator[bytes]:
        if self._parts is None:
            async for piece in self._request.stream():
                yield piece
            return
        async for one in self._parts:
            if isinstance(one, Part):
                raise bad_request(
                    "a form with more than its file seen; send one file a request, the file last"
                )
            yield one


def _is_raw(request: Request) -> bool:
    return media_type(request.headers.get("content-type")) != "multipart/form-data"


def _free(here: Service, caller: Caller) -> tuple[int | None, int | None]:
    """Bytes that the owner may still upload, and of how many; None for no bound."""
    with here.database.read() as session:
        bound = usage.quotas_of(usage.owner_of(session, caller), here.settings.quotas).bytes
        if bound is None:
            return None, None
        free = bound - usage.has(session, caller.owner_id, "bytes")
    if free <= 0:
        raise _full(free, bound)
    return free, bound


def _full(free: int, bound: int) -> Problem:
    detail = (
        f"bytes: {max(free, 0):,} left of {bound:,}, what you upload now has more; delete files or datasets"
    )
    return too_many("quota-exceeded", detail, 3600)


def _keep(request: Request, here: Service, caller: Caller, received: Received, body: _Body) -> JSONResponse:
    def make(session: Session) -> Created:
        usage.require(session, caller, here.settings.quotas, "bytes", received.bytes)
        row = File(
            id=ids.new("file"),
            owner_id=caller.owner_id,
            name=body.name,
            media_type=body.media,
            bytes=received.bytes,
            sha256=received.sha256,
            created=time.time(),
        )
        received.keep()
        session.add(row)
        return Created(shapes.file(row), 201, {"Location": f"/v1/files/{row.id}"})

    with keeping:
        try:
            return once(request, {"name": body.name, "sha256": received.sha256}, make)
        except BaseException:
            with here.database.read() as session:
                kept = _is_kept(session, caller.owner_id, received.sha256)
            if not kept:
                received.path.with_name(received.sha256).unlink(missing_ok=True)
            raise


def _is_kept(session: Session, owner_id: str, sha256: str) -> bool:
    found = select(File.id).where(File.owner_id == owner_id, File.sha256 == sha256).limit(1)
    return session.scalar(found) is not None


def _require_idle(session: Session, row: File) -> None:
    """Raise where a job that has not ended reads the file: an import, or a dataset's inspection."""
    alive = select(Job).where(Job.owner_id == row.owner_id, Job.state.not_in(TERMINAL))
    for job in session.scalars(alive.where(Job.kind.in_(("import", "inspect")))):
        dataset = session.get(Dataset, job.dataset_id) if job.dataset_id else None
        read = {job.request.get("file"), *(one["file"] for one in (dataset.files if dataset else ()))}
        if row.id in read:
            raise in_use(f"the file {row.id}", job.id)
