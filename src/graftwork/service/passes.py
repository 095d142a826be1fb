"""Who a key or a session belongs to, remembered: a request whose key is known costs no database."""

import threading
import time
from dataclasses import dataclass

from sqlalchemy import select
from starlette.concurrency import run_in_threadpool

from graftwork.service.callers import Caller
from graftwork.service.database import Database
from graftwork.service.database.tables import Key, Owner, Ticket

HELD = 20_000


@dataclass(frozen=True)
class Pass:
    """What a hash opens. expires: seconds since 1970. quotas: the owner's own, where an admin set some."""

    caller: Caller
    expires: float | None
    quotas: dict[str, int | None]

    def is_over(self) -> bool:
        return self.expires is not None and self.expires <= time.time()


class Passes:
    """Passes by the SHA-256 of their secret; what was revoked through `forget` is refused from then on."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._held: dict[str, Pass] = {}
        self._forgotten = 0
        self._lock = threading.Lock()

    def held(self, hash: str) -> Pass | None:
        """From memory alone."""
        found = self._held.get(hash)
        return None if found is None or found.is_over() else found

    def find(self, hash: str) -> Pass | None:
        """From the database; remembered for `held`."""
        before = self._forgotten
        found = self._look(hash)
        if found is None or found.is_over():
            return None
        with self._lock:
            if self._forgotten == before:  # else it may have been revoked since we looked
                if len(self._held) >= HELD:
                    self._held.clear()
                self._held[hash] = found
        return found

    async def holds(self, hash: str) -> bool:
        """Whether it opens anything still: for what goes on long after it was let in."""
        return self.held(hash) is not None or await run_in_threadpool(self.find, hash) is not None

    def forget(self, *, owner: str | None = None, key: str | None = None, hash: str | None = None) -> None:
        """After the database has it: what belongs to an owner, or a key and its sessions, or one secret."""
        with self._lock:
            self._forgotten += 1
            self._held = {
                known: one
                for known, one in self._held.items()
                if known != hash
                and (key is None or one.caller.key_id != key)
                and (owner is None or one.caller.owner_id != owner)
            }

    def _look(self, hash: str) -> Pass | None:
        with self._database.read() as session:
            key = session.scalar(select(Key).where(Key.hash == hash, Key.revoked.is_(None)))
            ticket = None if key else session.get(Ticket, hash)
            if key is None and (ticket is None or ticket.what != "session"):
                return None
            found = key or ticket
            assert found is not None
            owner = session.get(Owner, found.owner_id)
            if owner is None:  # deleted between the two looks
                return None
            caller = Caller(
                owner_id=owner.id,
                owner=owner.name,
                scope=found.scope,  # type: ignore[arg-type]  # a column of text, written from Scope alone
                key_id=key.id if key else ticket.key_id if ticket else None,
                csrf=ticket.csrf if ticket else None,
            )
            return Pass(caller, found.expires, owner.quotas)
