"""Jobs: fits, rankings and imports that run in workers; told as they go."""

import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Header, Query, Request
from sqlalchemy import select
from sqlalchemy.orm import Session, defer
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response, StreamingResponse

from graftwork import registry
from graftwork.service import shapes, usage
from graftwork.service.callers import Caller
from graftwork.service.context import Service, service
from graftwork.service.database.tables import TERMINAL, Event, Job, JobState
from graftwork.service.holdings import admit, owned_dataset, owned_file, owned_job, ready
from graftwork.service.idempotency import Created, IdempotencyKey, once
from graftwork.service.jobs import queue
from graftwork.service.pagination import Cursor, Limit, page
from graftwork.service.problems import Pointer, bad_request, not_found, too_many
from graftwork.service.security import Predicts, Writes
from graftwork.service.strict import router as new_router
from graftwork.service.watching import Watch, watch_of

router = new_router("jobs")
AT_ONCE = 500
"""Events that are read at once."""
BEAT_S = 10.0
"""A stream in which nothing happens says so this often, so that nobody on the way closes it."""
TICK_S = 0.4
STREAMS = 100
"""Streams that one owner may listen to at a time: each takes a connection."""
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A page of events, or with Accept: text/event-stream a stream of all from there on, "
        "which ends when the job has ended",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    },
    204: {"description": "A stream was asked for, and nothing will follow"},
}


@router.post("/jobs", status_code=202, response_model=shapes.Job)
def create(
    request: Request, caller: Writes, body: shapes.NewJob, idempotency_key: IdempotencyKey = None
) -> Response:
    """Queue a job; its Location tells how it goes. 409 where its dataset is not ready, or its model's name
    is that of an artefact under ROOT.
    """
    here = service(request)

    def make(session: Session) -> Created:
        said = body.model_dump()
        kind, dataset = said.pop("kind"), said.get("dataset")
        if isinstance(body, shapes.NewImport):
            uploaded = owned_file(session, caller, body.file)
            said["name"] = body.name or shapes.model_name(uploaded.name)
        else:
            row = ready(owned_dataset(session, caller, body.dataset, locked=True))
            if isinstance(body, shapes.NewFit):
                said["name"] = body.name or shapes.model_name(row.name)
        if kind != "rank":
            here.models.require_free(caller, said["name"])
            usage.require(session, caller, here.settings.quotas, "models", 1)
        admit(session, here, caller)
        job = queue.enqueue(session, caller.owner_id, kind, said, dataset_id=dataset)
        return Created(shapes.job(job), 202, {"Location": f"/v1/jobs/{job.id}"})

    if isinstance(body, shapes.NewFit):
        _require_strategy(body.strategy)
    return once(request, body.model_dump(), make)


@router.get("/jobs", response_model=shapes.Page[shapes.Job])
def list_jobs(
    request: Request,
    caller: Predicts,
    cursor: Cursor = None,
    limit: Limit = 50,
    dataset: Annotated[str | None, Query(max_length=80)] = None,
    state: JobState | None = None,
) -> Any:
    return listed(service(request), caller, cursor, limit, dataset, state)


@router.get("/jobs/{job}", response_model=shapes.Job)
def get_job(request: Request, caller: Predicts, job: str) -> Any:
    return one(service(request), caller, job)


@router.post("/jobs/{job}/cancel", status_code=202, response_model=shapes.Job)
def cancel(request: Request, caller: Writes, job: str) -> Any:
    """Ask it to end, which it does within seconds; one that has ended stays as it ended."""
    here = service(request)
    with here.database.read() as session:
        owned_job(session, caller, job)
    try:
        queue.cancel(here.database, job)
    except queue.Lost:  # deleted since
        raise not_found("job", job) from None
    return one(here, caller, job)


@router.get("/jobs/{job}/events", response_model=shapes.Events, responses=_STREAM)
async def events(
    request: Request,
    caller: Predicts,
    job: str,
    after: Annotated[int, Query(ge=0, lt=2**31, description="the last event already known")] = 0,
    limit: Annotated[int, Query(ge=1, le=AT_ONCE)] = AT_ONCE,
    last_event_id: Annotated[str | None, Header(max_length=20)] = None,
) -> Any:
    """What happened since `after`. A stream begins after Last-Event-ID where that is sent."""
    here = service(request)
    if last_event_id is not None and last_event_id.isascii() and last_event_id.isdecimal():
        after = min(int(last_event_id), 2**31 - 1)
    rows, has_ended = await run_in_threadpool(_first, here, caller, job, after, limit)
    if "text/event-stream" not in request.headers.get("accept", ""):
        said = [shapes.event(row) for row in rows]
        last = rows[-1].seq if rows else after
        return JSONResponse({"items": said, "next_after": last, "is_terminal": has_ended})
    if has_ended and not rows:
        return Response(status_code=204)  # which tells an EventSource to ask no more
    watch = watch_of(request.app, here.database)
    if watch.streams[caller.owner_id] >= STREAMS:
        raise too_many("rate-limited", f"{STREAMS} streams of yours are open; close one, or ask for JSON", 5)
    return StreamingResponse(
        _counted(_stream(here, watch, job, after, request.state.hash), watch.streams, caller.owner_id),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


def one(here: Service, caller: Caller, job: str) -> dict[str, Any]:
    """The caller's job, as `shapes.Job`."""
    with here.database.read() as session:
        row = owned_job(session, caller, job)
    here.models.know(row.model_id)  # who is told of a model may ask it at once
    return shapes.job(row)


def listed(
    here: Service,
    caller: Caller,
    cursor: str | None,
    limit: int,
    dataset: str | None = None,
    state: JobState | None = None,
) -> dict[str, Any]:
    """A page of the caller's jobs, as `shapes.Page[shapes.Job]`."""
    wanted = select(Job).where(Job.owner_id == caller.owner_id).options(defer(Job.result))
    if dataset is not None:
        wanted = wanted.where(Job.dataset_id == dataset)
    if state is not None:
        wanted = wanted.where(Job.state == state)
    with here.database.read() as session:
        found = page(session, wanted, Job, cursor, limit)
        return found.json([shapes.job(row, brief=True) for row in found.items])


def _require_strategy(name: str) -> None:
    known = registry.names("strategies")
    if name not in known:
        detail = f"no strategy {name!r}; known: {', '.join(known)}"
        raise bad_request(detail, Pointer("/strategy", "is not known"))


def _first(here: Service, caller: Caller, job: str, after: int, limit: int) -> tuple[list[Event], bool]:
    with here.database.read() as session:
        owned_job(session, caller, job)
    return _read(here, job, after, limit) or ([], True)


def _read(here: Service, job: str, after: int, limit: int = AT_ONCE) -> tuple[list[Event], bool] | None:
    """Events after that one, and whether they are the last there will be; None where the job is gone."""
    with here.database.read() as session:
        row = session.get(Job, job)
        if row is None:
            return None
        found = list(queue.events(session, job, after, limit))
    has_ended = row.state in TERMINAL and len(found) < limit
    if has_ended:
        here.models.know(row.model_id)
    return found, has_ended


async def _counted(stream: AsyncIterator[str], streams: Counter[str], owner_id: str) -> AsyncIterator[str]:
    streams[owner_id] += 1
    try:
        async for text in stream:
            yield text
    finally:
        streams[owner_id] -= 1


async def _stream(here: Service, watch: Watch, job: str, after: int, hashed: str) -> AsyncIterator[str]:
    """Server-sent events, as long as the secret of that hash opens anything; no session and no thread is held
    while nothing happens."""
    yield "retry: 2000\n\n"
    beaten = time.monotonic()
    while not here.draining:
        if not await here.passes.holds(hashed):
            return
        found = await run_in_threadpool(_read, here, job, after)
        if found is None:
            return
        rows, has_ended = found
        for row in rows:
            after = row.seq
            yield f"id: {row.seq}\nevent: {row.kind}\ndata: {json.dumps(shapes.event(row))}\n\n"
        if has_ended:
            return
        if len(rows) == AT_ONCE:
            continue
        while not (here.draining or await watch.newer(job, after, TICK_S)):
            if not await here.passes.holds(hashed):
                return
            if time.monotonic() - beaten > BEAT_S:
                beaten = time.monotonic()
                yield ": nothing new\n\n"
    yield ": the server is ending; ask again in a moment\n\n"
