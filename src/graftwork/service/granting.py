"""API keys made on the server's own machine, whether the server runs or not: `graft key`."""

import time
from contextlib import closing
from dataclasses import dataclass

from sqlalchemy import select

from graftwork.errors import RequestError
from graftwork.service import home
from graftwork.service.database import Database, migrate
from graftwork.service.database.tables import OPERATOR, Owner, Scope
from graftwork.service.security import new_key, new_owner
from graftwork.service.settings import Settings
from graftwork.service.shapes import plain_name


@dataclass(frozen=True)
class Granted:
    """key: what to send; it is nowhere kept. remark: what its maker may not have meant, None for nothing."""

    id: str
    key: str
    owner: str
    remark: str | None


def grant(settings: Settings, owner: str, name: str, scope: Scope, seconds: float | None) -> Granted:
    """A key of the owner of that name, who is made where there is none. seconds: None for one without end.

    Raises RequestError where ROOT is no folder, its service has another database, or a name cannot be shown,
    WorkError where the database cannot be opened.
    """
    for said in (owner, name):
        if not said or said != plain_name(said, 100):
            raise RequestError(f"the name {said!r} seen; expected up to 100 visible characters on one line")
    is_first = not settings.home.exists()
    home.prepare(settings)
    home.require_same(settings)
    with closing(Database(settings.url)) as database:
        migrate(database)
        home.require_records(settings, database)
        with database.write() as session:
            found = session.scalar(select(Owner).where(Owner.name == owner))
            row = found or new_owner(session, owner)
            expires = None if seconds is None else time.time() + seconds
            key, secret = new_key(session, row.id, name, scope, expires)
            # a slip in a name or a path makes an owner or a service too
            remark = f"no service has run in {settings.root} so far" if is_first else None
            if found is None and owner != OPERATOR:
                remark = f"{owner} is a new owner"
            return Granted(key.id, secret, row.id, remark)
