"""API keys: made, listed, revoked; shown once."""

import time
from datetime import MAXYEAR, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import AwareDatetime, field_validator
from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from graftwork.service import ids
from graftwork.service.callers import Caller
from graftwork.service.context import Here
from graftwork.service.database.tables import Key, Owner, Scope, Ticket
from graftwork.service.idempotency import Created, IdempotencyKey, once
from graftwork.service.pagination import Cursor, Limit, page
from graftwork.service.problems import Pointer, bad_request, not_found, too_many
from graftwork.service.security import Writes, is_owner, new_key, require
from graftwork.service.shapes import Asked, Name, Page, Shown, when
from graftwork.service.strict import router as strict_router

router: APIRouter = strict_router("keys")
MOST = 1_000
"""Keys of one owner that hold."""
OwnerId = Annotated[str | None, Query(max_length=80, description="another owner's id; for admins")]


class KeyAsked(Asked):
    """owner: another's id, for admins. expires: with its time zone; never where it is left out."""

    name: Name
    scope: Scope = "write"
    expires: AwareDatetime | None = None
    owner: str | None = None

    @field_validator("expires")
    @classmethod
    def _showable(cls, said: datetime | None) -> datetime | None:
        if said is not None and said.year >= MAXYEAR:  # in UTC it may lie beyond what a date can say
            raise ValueError(f"expected a year before {MAXYEAR}, or nothing for a key without end")
        return said


class KeyShown(Shown):
    """prefix: the key's first letters, by which to know it."""

    id: str
    owner: str
    name: str
    scope: Scope
    prefix: str
    created: str
    expires: str | None


class NewKey(KeyShown):
    """key: what to send; it is not kept and never shown again, so a repeated request answers without it."""

    key: str | None = None


@router.post("/keys", status_code=201, response_model=NewKey)
def create_key(
    here: Here, caller: Writes, request: Request, asked: KeyAsked, key: IdempotencyKey = None
) -> JSONResponse:
    """A new key of at most the asking key's scope."""
    require(caller, asked.scope)
    expires = None if asked.expires is None else asked.expires.timestamp()

    def make(session: Session) -> Created:
        owner_id = _whose(session, caller, asked.owner)
        if expires is not None and expires <= time.time():
            raise bad_request("expires is in the past", Pointer("/expires", "in the past"))
        held = select(func.count()).where(Key.owner_id == owner_id, Key.revoked.is_(None))
        if (session.scalar(held) or 0) >= MOST:
            raise too_many("quota-exceeded", f"keys: {MOST:,} held of {MOST:,}; revoke one", 3600.0)
        row, secret = new_key(session, owner_id, asked.name, asked.scope, expires)
        return Created(_shape(row), headers={"Location": f"/v1/keys/{row.id}"}, shown={"key": secret})

    return once(request, asked.model_dump(mode="json"), make)


@router.get("/keys", response_model=Page[KeyShown])
def list_keys(
    here: Here, caller: Writes, owner: OwnerId = None, cursor: Cursor = None, limit: Limit = 50
) -> Any:
    """Those that were not revoked, newest first."""
    with here.database.read() as session:
        wanted = select(Key).where(Key.owner_id == _whose(session, caller, owner), Key.revoked.is_(None))
        found = page(session, wanted, Key, cursor, limit)
        return found.json([_shape(row) for row in found.items])


@router.get("/keys/{id}", response_model=KeyShown)
def get_key(here: Here, caller: Writes, id: str) -> Any:
    with here.database.read() as session:
        return _shape(_find(session, caller, id))


@router.delete("/keys/{id}", status_code=204, response_class=Response)
def revoke_key(here: Here, caller: Writes, id: str) -> None:
    """It opens nothing from now on, nor do the sessions that it has opened."""
    with here.database.write() as session:
        row = _find(session, caller, id)
        row.revoked = time.time()
        session.execute(delete(Ticket).where(Ticket.key_id == id))
    here.passes.forget(key=id)


def _whose(session: Session, caller: Caller, owner: str | None) -> str:
    if owner is None or owner == caller.owner_id:
        return caller.owner_id
    require(caller, "admin")
    if not is_owner(owner) or session.get(Owner, owner) is None:
        raise not_found("owner", owner)
    return owner


def _find(session: Session, caller: Caller, id: str) -> Key:
    found = session.get(Key, id) if ids.is_one(id, "key") else None
    theirs = found is not None and found.owner_id != caller.owner_id and not caller.may("admin")
    if found is None or found.revoked is not None or theirs:
        raise not_found("key", id)
    return found


def _shape(row: Key) -> dict[str, Any]:
    return {
        "id": row.id,
        "owner": row.owner_id,
        "name": row.name,
        "scope": row.scope,
        "prefix": row.prefix,
        "created": when(row.created),
        "expires": when(row.expires),
    }
