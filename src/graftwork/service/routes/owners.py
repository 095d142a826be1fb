"""Owners: made and bounded by admins; everybody may delete all that is their own."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from graftwork.service.context import Here, Service
from graftwork.service.database.tables import OPERATOR, Owner
from graftwork.service.erasing import erase
from graftwork.service.idempotency import Created, IdempotencyKey, once
from graftwork.service.pagination import Cursor, Limit, page
from graftwork.service.problems import Pointer, Problem, not_found
from graftwork.service.security import Administers, Predicts, Writes, is_owner, new_owner, owner_link
from graftwork.service.shapes import Asked, Name, Page, Shown, when
from graftwork.service.strict import router as strict_router
from graftwork.service.usage import quotas_of

router: APIRouter = strict_router("owners")
Bound = int | None
_Asked = Annotated[Bound, Field(ge=0, le=2**53)]


class QuotasAsked(Asked):
    """Only what is given changes; null for no bound."""

    bytes: _Asked = None
    rows: _Asked = None
    jobs: _Asked = None
    requests: _Asked = None
    models: _Asked = None


class OwnerAsked(Asked):
    name: Name
    quotas: QuotasAsked = QuotasAsked()


class OwnerChanged(Asked):
    """default: forget what was set before, so that the service's own bounds hold again."""

    quotas: QuotasAsked = QuotasAsked()
    default: bool = False


class OwnerShown(Shown):
    id: str
    name: str
    quotas: dict[str, Bound]
    created: str


class OwnerLink(Shown):
    """link: the last part of /sign-in/LINK, which signs one browser in; it is not kept nor shown again."""

    link: str | None = None
    expires: str


@router.post("/owners", status_code=201, response_model=OwnerShown)
def create_owner(
    here: Here, caller: Administers, request: Request, asked: OwnerAsked, key: IdempotencyKey = None
) -> JSONResponse:
    """An owner without keys: make it one with POST /v1/keys."""

    def make(session: Session) -> Created:
        if session.scalar(select(Owner.id).where(Owner.name == asked.name)) is not None:
            raise Problem(
                409, "name-taken", f"an owner {asked.name!r} is there; take another name", [_at("/name")]
            )
        row = new_owner(session, asked.name)
        row.quotas = asked.quotas.model_dump(exclude_unset=True)
        return Created(_shape(here, row), headers={"Location": f"/v1/owners/{row.id}"})

    return once(request, asked.model_dump(mode="json", exclude_unset=True), make)


@router.get("/owners", response_model=Page[OwnerShown])
def list_owners(here: Here, caller: Administers, cursor: Cursor = None, limit: Limit = 50) -> Any:
    with here.database.read() as session:
        found = page(session, select(Owner), Owner, cursor, limit)
        return found.json([_shape(here, row) for row in found.items])


@router.get("/owners/{id}", response_model=OwnerShown)
def get_owner(here: Here, caller: Predicts, id: str) -> Any:
    """`me` is whoever asks; others for admins."""
    with here.database.read() as session:
        wanted = caller.owner_id if id == "me" else id
        if wanted != caller.owner_id and not caller.may("admin"):
            raise not_found("owner", id)
        return _shape(here, _find(session, wanted))


@router.patch("/owners/{id}", response_model=OwnerShown)
def change_owner(here: Here, caller: Administers, id: str, asked: OwnerChanged) -> Any:
    """Set bounds of an owner's own."""
    with here.database.write() as session:
        row = _find(session, id)
        kept = {} if asked.default else row.quotas
        row.quotas = {**kept, **asked.quotas.model_dump(exclude_unset=True)}
        shape = _shape(here, row)
    here.passes.forget(owner=id)
    return shape


@router.post("/owners/{id}/links", status_code=201, response_model=OwnerLink)
def create_link(
    here: Here, caller: Administers, request: Request, id: str, key: IdempotencyKey = None
) -> JSONResponse:
    """A one-time link by which somebody signs in as the owner, scope "write"; older ones are void."""

    def make(session: Session) -> Created:
        link, expires = owner_link(session, _find(session, id).id)
        return Created({"expires": when(expires)}, shown={"link": link})

    return once(request, {"owner": id}, make)


@router.delete("/owners/me/data", status_code=204, response_class=Response)
def delete_data(here: Here, caller: Writes) -> None:
    """Files, datasets, jobs, models and all that was stored of them; keys and sessions stay."""
    erase(here, caller.owner_id, owner_too=False)


@router.delete("/owners/{id}", status_code=204, response_class=Response)
def delete_owner(here: Here, caller: Administers, id: str) -> None:
    """The owner with all of its data and keys."""
    with here.database.read() as session:
        _find(session, id)
    if id == OPERATOR:
        raise Problem(409, "conflict", "the operator stays; DELETE /v1/owners/me/data deletes its data")
    erase(here, id, owner_too=True)


def _find(session: Session, id: str) -> Owner:
    found = session.get(Owner, id) if is_owner(id) else None
    if found is None:
        raise not_found("owner", id)
    return found


def _at(pointer: str) -> Pointer:
    return Pointer(pointer, "taken")


def _shape(here: Service, row: Owner) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "quotas": asdict(quotas_of(row, here.settings.quotas)),
        "created": when(row.created),
    }
