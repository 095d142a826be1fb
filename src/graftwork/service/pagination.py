"""Lists in pages: newest first, by a cursor that newer rows do not shift."""

from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Query
from sqlalchemy import Select
from sqlalchemy.orm import Session

from graftwork.service.database.tables import OPERATOR

T = TypeVar("T")
MOST = 200

_ID = rf"^({OPERATOR}|[a-z]+_[0-9a-f]{{12}}_[0-9a-f]{{16}})$"
Cursor = Annotated[str | None, Query(pattern=_ID, description="next_cursor of the page before")]
"""The last id of the page before; clients need not know."""
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
        wanted = wanted.where(column < cursor)
    found: list[Any] = list(session.scalars(wanted.order_by(column.desc()).limit(limit + 1)))
    return Page(found[:limit], found[limit - 1].id if len(found) > limit else None)
