"""Lists in pages: newest first, by a cursor that newer rows do not shift."""

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Query
from sqlalchemy import Select
from sqlalchemy.orm import Session

from graftwork.service.problems import Pointer, bad_request

T = TypeVar("T")
MOST = 200

Cursor = Annotated[str | None, Query(max_length=100, description="next_cursor of the page before")]
Limit = Annotated[int, Query(ge=1, le=MOST, description="the most rows of one page")]


@dataclass(frozen=True)
class Page(Generic[T]):
    """items: newest first. next_cursor: asks for what follows; None at the end."""

    items: list[T]
    next_cursor: str | None

    def json(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        """The answer of a list, with each row as JSON."""
        return {"items": items, "next_cursor": self.next_cursor}


def page(session: Session, wanted: Select[T], table: type[T], cursor: str | None, limit: int) -> Page[T]:
    """The rows of `wanted` after `cursor`. `table` has ids that sort by time, as `ids.new` gives them."""
    column: Any = table.id  # type: ignore[attr-defined]  # every table that is listed has one
    if cursor is not None:
        wanted = wanted.where(column < _read(cursor))
    found = list(session.scalars(wanted.order_by(column.desc()).limit(limit + 1)))
    if len(found) <= limit:
        return Page(found, None)
    return Page(found[:limit], _write(found[limit - 1].id))  # type: ignore[attr-defined]  # as above


def _write(id: str) -> str:
    return base64.urlsafe_b64encode(id.encode()).decode().rstrip("=")


def _read(cursor: str) -> str:
    try:
        said = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        said = ""
    if not re.fullmatch(r"[a-z]+_[0-9a-f]{12}_[0-9a-f]{16}", said):
        raise bad_request(
            "cursor is none of ours; take next_cursor of the page before", Pointer("?cursor", "no cursor")
        )
    return said
