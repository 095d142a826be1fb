"""Creates that are asked twice and done once: the answer is kept with what it created, in one transaction."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Header, Request
from fastapi.responses import JSONResponse
from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from graftwork.service.context import caller, service
from graftwork.service.database import Database
from graftwork.service.database.tables import Answered
from graftwork.service.problems import Pointer, Problem

HEADER = "Idempotency-Key"
KEPT_S = 48 * 3600.0

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias=HEADER,
        pattern="^[ -~]{1,255}$",
        description="chosen by you, for each request another; the same again creates nothing",
    ),
]
"""A parameter of every create: it is checked there, and `once` takes it from the request."""


@dataclass(frozen=True)
class Created:
    """What a create answers. body: JSON. shown: what more is said this once, and never kept."""

    body: Mapping[str, Any]
    status: int = 201
    headers: Mapping[str, str] = field(default_factory=dict)
    shown: Mapping[str, Any] = field(default_factory=dict)

    def response(self) -> JSONResponse:
        return JSONResponse({**self.body, **self.shown}, self.status, dict(self.headers))


def once(request: Request, payload: Any, make: Callable[[Session], Created]) -> JSONResponse:
    """What `make` answers, or has answered to the same Idempotency-Key of the same owner.

    payload: whatever the answer follows from, as JSON; for an upload its digest and name. `make` writes into
    the session it is handed; where it raises, nothing is kept and the key is free again. Raises Problem 422
    "idempotency-key-reused" for another payload or route. Of two at the same time one waits for the other.
    """
    database, owner = service(request).database, caller(request).owner_id
    key = request.headers.get(HEADER)
    if key is None:
        with database.write() as session:
            return make(session).response()
    sent = json.dumps([request.method, request.url.path, payload], sort_keys=True)
    digest = hashlib.sha256(sent.encode()).hexdigest()
    try:
        return _once(database, owner, key, digest, make)
    except IntegrityError:  # PostgreSQL: a twin was first; what it answered is there now
        if _found(database, owner, key) is None:
            raise
        return _once(database, owner, key, digest, make)


def _once(
    database: Database, owner: str, key: str, digest: str, make: Callable[[Session], Created]
) -> JSONResponse:
    with database.write() as session:
        found = session.get(Answered, (owner, key))
        if found is not None:
            if found.created > time.time() - KEPT_S:
                return _again(found, digest)
            session.delete(found)
            session.flush()
        row = Answered(
            owner_id=owner, key=key, payload=digest, status=0, headers={}, body={}, created=time.time()
        )
        session.add(row)
        session.flush()  # a twin waits here until we are done
        created = make(session)
        row.status, row.headers, row.body = created.status, dict(created.headers), dict(created.body)
        return created.response()


def _again(found: Answered, digest: str) -> JSONResponse:
    if found.payload != digest:
        raise Problem(
            422,
            "idempotency-key-reused",
            f"{HEADER} {found.key[:40]!r} was used for another request; take a new one for each",
            [Pointer(f"header:{HEADER}", "used before with another payload")],
        )
    return JSONResponse(found.body, found.status, {**found.headers, "Idempotency-Replayed": "true"})


def _found(database: Database, owner: str, key: str) -> Answered | None:
    with database.read() as session:
        return session.get(Answered, (owner, key))


def sweep(database: Database) -> None:
    """Forgets answers older than they are kept."""
    with database.write() as session:
        session.execute(delete(Answered).where(Answered.created < time.time() - KEPT_S))
