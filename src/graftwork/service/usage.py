"""What owners use and may use: counted in memory, written each second; bounds are checked on making."""

import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from graftwork.service.callers import Caller
from graftwork.service.database import Database
from graftwork.service.database.tables import TERMINAL, Dataset, File, Job, Model, Owner, Usage
from graftwork.service.problems import Problem, too_many
from graftwork.service.settings import Quotas, Settings

Bounded = Literal["bytes", "rows", "jobs", "models"]
Counted = Literal["requests", "predictions", "uploaded_bytes"]
_ADVICE: dict[Bounded, tuple[str, float]] = {  # what to do, and when it may help to ask again
    "bytes": ("delete files or datasets", 3600.0),
    "rows": ("send fewer rows", 3600.0),
    "jobs": ("wait for one to end, or cancel it", 15.0),
    "models": ("delete one", 3600.0),
}


def quotas_of(owner: Owner | dict[str, Any], default: Quotas) -> Quotas:
    """The default, where nothing else was set for this owner."""
    own = owner if isinstance(owner, dict) else owner.quotas
    return replace(default, **{name: bound for name, bound in own.items() if name in QUOTAS})


QUOTAS = tuple(one.name for one in fields(Quotas))


def used(session: Session, owner_id: str) -> dict[Bounded, int]:
    """What an owner has now of everything that is bounded."""
    return {what: has(session, owner_id, what) for what in _ADVICE}


def has(session: Session, owner_id: str, what: Bounded) -> int:
    """What an owner has now. rows: of its largest dataset."""

    def total(said: Any, table: type[File | Dataset | Job | Model], *where: Any) -> int:
        wanted = select(func.coalesce(said, 0)).where(table.owner_id == owner_id, *where)
        return int(session.scalar(wanted) or 0)

    match what:
        case "bytes":
            of_models = total(func.sum(Model.summary["bytes"].as_float()), Model)
            return total(func.sum(File.bytes), File) + total(func.sum(Dataset.bytes), Dataset) + of_models
        case "rows":
            return total(func.max(Dataset.rows), Dataset)
        case "jobs":
            return total(func.count(Job.id), Job, Job.state.not_in(TERMINAL))
        case "models":
            return total(func.count(Model.id), Model)


def owner_of(session: Session, caller: Caller, **how: Any) -> Owner:
    """Who asks; raises Problem 401 where the owner was deleted since the request began."""
    found = session.get(Owner, caller.owner_id, **how)
    if found is None:
        raise Problem(401, "unauthorized", "this key's owner is gone; sign in with another")
    return found


def require(session: Session, caller: Caller, default: Quotas, what: Bounded, more: int) -> None:
    """Raises Problem 429 "quota-exceeded" where `more` would be too much.

    Call it in the transaction that makes more: the owner's row is locked, so that two at once cannot both
    fit. rows: `more` are the rows of one dataset.
    """
    owner = owner_of(session, caller, with_for_update={"key_share": True}, populate_existing=True)
    bound = getattr(quotas_of(owner, default), what)
    if bound is None:
        return
    have = 0 if what == "rows" else has(session, caller.owner_id, what)
    if have + more > bound:
        advice, after_s = _ADVICE[what]
        raise too_many(
            "quota-exceeded", f"{what}: {have:,} used of {bound:,}, this adds {more:,}; {advice}", after_s
        )


@dataclass
class _Bucket:
    left: float
    at: float


class Meter:
    """Counts what owners do, and bounds their requests a minute. Safe from several threads."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._default = settings.quotas
        self._counted: dict[tuple[str, str], dict[str, int]] = defaultdict(lambda: defaultdict(int))
        self._buckets: dict[str, _Bucket] = {}
        self._lock = threading.Lock()

    def count(self, owner_id: str, what: Counted, more: int = 1) -> None:
        """Takes effect in the database with the next `flush`."""
        with self._lock:
            self._counted[owner_id, _today()][what] += more

    def request(self, owner_id: str, own: dict[str, Any]) -> None:
        """Counts one request. Raises Problem 429 "rate-limited" where this minute's are spent.

        own: the owner's own quotas. What is allowed a minute comes back evenly, and may be used in one go.
        """
        self.count(owner_id, "requests")
        a_minute = own.get("requests", self._default.requests)
        if a_minute is None:
            return
        wait = self.wait(owner_id, a_minute)
        if wait:
            raise too_many("rate-limited", f"more than {a_minute:,} requests a minute; slow down", wait)

    def wait(self, who: str, a_minute: int) -> float:
        """Takes one of `a_minute` from `who`; 0, or the seconds until there is one again."""
        now = time.monotonic()
        with self._lock:
            bucket = self._buckets.get(who)
            if bucket is None:
                bucket = self._buckets[who] = _Bucket(a_minute, now)
            bucket.left = min(a_minute, bucket.left + (now - bucket.at) * a_minute / 60)
            bucket.at = now
            if bucket.left >= 1:
                bucket.left -= 1
                return 0.0
            return 60.0 if a_minute == 0 else (1 - bucket.left) * 60 / a_minute

    def flush(self) -> None:
        """Writes what was counted since the last one. Owners deleted meanwhile are left out."""
        with self._lock:
            counted, self._counted = self._counted, defaultdict(lambda: defaultdict(int))
            old = time.monotonic() - 60  # full again: as if it had never been there
            self._buckets = {who: one for who, one in self._buckets.items() if one.at > old}
        if not counted:
            return
        try:
            self._write(counted)
        except BaseException:
            with self._lock:
                for where, counts in counted.items():
                    for what, more in counts.items():
                        self._counted[where][what] += more
            raise

    def _write(self, counted: dict[tuple[str, str], dict[str, int]]) -> None:
        with self._database.write() as session:
            there = set(
                session.scalars(select(Owner.id).where(Owner.id.in_({owner for owner, _ in counted})))
            )
            for (owner_id, day), counts in sorted(counted.items()):
                if owner_id in there:
                    _add(session, owner_id, day, counts)


def counted_job(session: Session, owner_id: str, seconds: float) -> None:
    """One more job of the owner has ended, after that long."""
    _add(session, owner_id, _today(), {"jobs": 1, "job_seconds": seconds})


def _add(session: Session, owner_id: str, day: str, more: Mapping[str, float]) -> None:
    """One statement, so that nobody who adds to the same day meets another half-way."""
    insert: Any = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    columns = ("requests", "predictions", "uploaded_bytes", "jobs", "job_seconds")
    row = {name: more.get(name, 0) for name in columns}
    session.execute(
        insert(Usage)
        .values(owner_id=owner_id, day=day, **row)
        .on_conflict_do_update(
            index_elements=["owner_id", "day"], set_={name: getattr(Usage, name) + row[name] for name in more}
        )
    )


def _today() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d")


def report(session: Session, owner: Owner, default: Quotas, days: int) -> dict[str, Any]:
    """What GET /v1/usage answers: what the owner has, what it may have, and its last days."""
    rows = session.scalars(
        select(Usage).where(Usage.owner_id == owner.id).order_by(Usage.day.desc()).limit(days)
    )
    return {
        "owner": owner.id,
        "name": owner.name,
        "used": used(session, owner.id),
        "quotas": asdict(quotas_of(owner, default)),
        "days": [
            {
                "day": row.day,
                "requests": row.requests,
                "predictions": row.predictions,
                "uploaded_bytes": row.uploaded_bytes,
                "jobs": row.jobs,
                "job_seconds": row.job_seconds,
            }
            for row in rows
        ],
    }
