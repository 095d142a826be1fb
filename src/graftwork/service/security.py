"""Keys, one-time links and sessions: random secrets of which only the SHA-256 is kept."""

import hashlib
import secrets
import time
from typing import Annotated, Any

from fastapi import Depends, Request
from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Session
from starlette.responses import Response

from graftwork.service import ids
from graftwork.service.callers import Caller
from graftwork.service.context import caller
from graftwork.service.database import Database
from graftwork.service.database.tables import OPERATOR, Key, Owner, Scope, Ticket
from graftwork.service.problems import Problem

LINK_S = 24 * 3600.0
SESSION_S = 14 * 24 * 3600.0
COOKIE = "graftwork"
SECURE_COOKIE = f"__Host-{COOKIE}"


def digest(secret: str) -> str:
    """By which a secret is kept and found. It is random, so that a plain hash is enough."""
    return hashlib.sha256(secret.encode()).hexdigest()


def needs(scope: Scope) -> Any:
    """For routes: `caller: Annotated[Caller, needs("write")]`; 403 to a key of less."""

    def check(request: Request) -> Caller:
        found = caller(request)
        require(found, scope)
        return found

    check.__name__ = f"needs_{scope}"
    return Depends(check)


def require(found: Caller, scope: Scope) -> None:
    """Raises Problem 403 where `found` may not do what asks for `scope`."""
    if not found.may(scope):
        raise forbidden(f"this key's scope is {found.scope!r}, this needs {scope!r}; ask with such a key")


def forbidden(detail: str) -> Problem:
    return Problem(403, "forbidden", detail)


Predicts = Annotated[Caller, needs("predict")]
Writes = Annotated[Caller, needs("write")]
Administers = Annotated[Caller, needs("admin")]


def new_owner(session: Session, name: str) -> Owner:
    """secret: keys what is stored of the owner's rows. The operator's id is its name."""
    id = OPERATOR if name == OPERATOR else ids.new("own")
    owner = Owner(id=id, name=name, secret=new_secret(), quotas={}, created=time.time())
    session.add(owner)
    session.flush()
    return owner


def is_owner(said: str) -> bool:
    """Whether `said` has the form of an owner's id."""
    return said == OPERATOR or ids.is_one(said, "own")


def new_secret() -> str:
    """An owner's, in hex."""
    return secrets.token_hex(32)


def new_key(
    session: Session, owner_id: str, name: str, scope: Scope, expires: float | None
) -> tuple[Key, str]:
    """The key's row and the key itself, which is nowhere kept."""
    secret = f"gw_{secrets.token_urlsafe(32)}"
    key = Key(
        id=ids.new("key"),
        owner_id=owner_id,
        name=name,
        scope=scope,
        hash=digest(secret),
        prefix=secret[:9],
        created=time.time(),
        expires=expires,
        revoked=None,
    )
    session.add(key)
    return key, secret


def first_link(database: Database) -> str | None:
    """A one-time link's token where nobody can come in as admin: no operator, no key or session of one."""
    now = time.time()
    with database.write() as session:
        operator = _operator(session)
        keys = select(Key.id).where(
            Key.owner_id == operator.id,
            Key.scope == "admin",
            Key.revoked.is_(None),
            or_(Key.expires.is_(None), Key.expires > now),
        )
        sessions = select(Ticket.hash).where(
            Ticket.owner_id == operator.id,
            Ticket.what == "session",
            Ticket.scope == "admin",
            Ticket.expires > now,
        )
        if session.scalar(keys.limit(1)) or session.scalar(sessions.limit(1)):
            return None
        return _link(session, operator.id, "admin")


def new_link(database: Database) -> str:
    """Another one-time link for the operator; those not used yet are void."""
    with database.write() as session:
        return _link(session, _operator(session).id, "admin")


def owner_link(session: Session, owner_id: str) -> tuple[str, float]:
    """A one-time link's token that signs a browser in as that owner, to do all but keep owners, and when
    it ends; those not used yet are void."""
    return _link(session, owner_id, "write"), time.time() + LINK_S


def _operator(session: Session) -> Owner:
    return session.get(Owner, OPERATOR) or new_owner(session, OPERATOR)


def _link(session: Session, owner_id: str, scope: Scope) -> str:
    session.execute(delete(Ticket).where(Ticket.owner_id == owner_id, Ticket.what == "link"))
    return _ticket(session, "link", owner_id, scope, None, LINK_S)


def _ticket(
    session: Session, what: str, owner_id: str, scope: str, key_id: str | None, seconds: float
) -> str:
    secret = f"g{what[0]}_{secrets.token_urlsafe(32)}"
    now = time.time()
    session.add(
        Ticket(
            hash=digest(secret),
            what=what,
            owner_id=owner_id,
            key_id=key_id,
            scope=scope,
            csrf=secrets.token_urlsafe(32),
            created=now,
            expires=now + seconds,
        )
    )
    return secret


def open_session(database: Database, secret: str) -> str | None:
    """A session's token for an API key or a link that still holds; None otherwise. A link is spent by it."""
    hashed = digest(secret)
    with database.read() as session:  # wrong ones are many, and must not hold up those who write
        if _opener(session, hashed) is None:
            return None
    with database.write() as session:
        found = _opener(session, hashed, locked=True)
        if isinstance(found, Key):
            seconds = SESSION_S if found.expires is None else min(SESSION_S, found.expires - time.time())
            return _ticket(session, "session", found.owner_id, found.scope, found.id, seconds)
        if found is None:
            return None
        session.delete(found)
        return _ticket(session, "session", found.owner_id, found.scope, None, SESSION_S)


def _opener(session: Session, hashed: str, *, locked: bool = False) -> Key | Ticket | None:
    """The key or link of that hash, while it holds.

    locked: until the transaction ends nobody else opens with the link, or revokes the key.
    """
    now = time.time()
    wanted = select(Key).where(Key.hash == hashed, Key.revoked.is_(None))
    key = session.scalar(wanted.with_for_update() if locked else wanted)
    if key is not None:
        return key if key.expires is None or key.expires > now else None
    link = session.get(Ticket, hashed, with_for_update=locked or None)
    return link if link is not None and link.what == "link" and link.expires > now else None


def close_session(database: Database, token: str) -> None:
    """Forget it in `Passes` too."""
    with database.write() as session:
        session.execute(delete(Ticket).where(Ticket.hash == digest(token), Ticket.what == "session"))


def set_cookie(response: Response, token: str, *, secure: bool) -> None:
    """secure: the request came by https."""
    response.set_cookie(
        SECURE_COOKIE if secure else COOKIE,
        token,
        max_age=int(SESSION_S),
        path="/",
        secure=secure,
        httponly=True,
        samesite="lax",
    )


def drop_cookie(response: Response, *, secure: bool) -> None:
    name = SECURE_COOKIE if secure else COOKIE
    response.delete_cookie(name, path="/", secure=secure, httponly=True, samesite="lax")
