"""The models that can be asked, in memory: those fitted or brought here, and those that lie under ROOT."""

import logging
import threading
import time
from bisect import bisect_right, insort
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import select

from graftwork.errors import ArtefactError
from graftwork.rows import Kind
from graftwork.service.callers import Caller
from graftwork.service.database import Database, tables
from graftwork.service.database.tables import OPERATOR
from graftwork.service.problems import Pointer, Problem, not_found
from graftwork.service.settings import Settings
from graftwork.service.shapes import when
from graftwork.serving.records import Shelved
from graftwork.serving.shelf import shelf

if TYPE_CHECKING:
    from graftwork.serving import Serving

LOOK_S = 1.0
"""How old the catalogue may be while a model is asked; a name that it does not know makes it look at once."""
LATE_S = 600.0
"""An id is made before its row is committed, on a machine whose clock may differ, but never by so much."""
_SHELF = "shelf_"
LOG = logging.getLogger("graftwork.service")


@dataclass(frozen=True)
class Known:
    """One model that can be asked. place: "service" for a row of the database, "root" for one under ROOT."""

    id: str
    name: str
    owner_id: str
    place: Literal["service", "root"]
    folder: Path
    kind: Kind
    labels: Sequence[str]
    strategy: str
    source: str | None
    digest: str
    fingerprint: str
    summary: dict[str, Any]
    dataset: str | None
    job: str | None
    created: str

    def shape(self) -> dict[str, Any]:
        """As `shapes.Model`."""
        kept = {name: value for name, value in vars(self).items() if name not in ("owner_id", "folder")}
        return {**kept, "labels": list(self.labels)}


class Models:
    """The catalogue. `get` reads memory alone; `find`, `of` and `look` may read the database and the disk.

    Rows appear when other processes insert them, and change or go only through `rename` and `forget`.
    """

    def __init__(self, settings: Settings, database: Database, serving: "Serving") -> None:
        self._settings = settings
        self._database = database
        self._serving = serving
        self._shelf = shelf(settings.root)
        self._faulty: frozenset[str] = frozenset()
        self._shelved: dict[str, Known] = {}
        self._rows: dict[str, Known] = {}
        self._named: dict[tuple[str, str], list[str]] = {}
        self._owned: dict[str, list[str]] = {}
        self._gone: set[str] = set()
        self._newest = 0.0
        self._looked = 0.0
        self._lock = threading.RLock()
        self._looker = ThreadPoolExecutor(1, thread_name_prefix="models")
        self._looking = False

    def get(self, caller: Caller, said: str) -> Known | None:
        """The model of that id, or the newest of that name; an older catalogue is renewed behind it."""
        is_old = time.monotonic() - self._looked > LOOK_S
        if is_old and not self._looking:
            self._looking = True
            self._looker.submit(self._renew)
        row = self._rows.get(said)
        if row is None:
            ids = self._named.get((caller.owner_id, said))
            row = self._rows.get(ids[-1]) if ids else None
        if row is not None and row.owner_id == caller.owner_id:
            return row
        if caller.owner != OPERATOR:
            return None
        shelved = self._shelved.get(said) or self._shelved.get(_name_in(said))
        if shelved and is_old and not (shelved.folder / "manifest.json").exists():
            return None  # removed while nobody asked; at other times the next look finds out
        return shelved

    def find(self, caller: Caller, said: str) -> Known:
        """As `get`, after another look where it finds none; raises a Problem (404) where there is none."""
        found = self.get(caller, said)
        if found is None:
            if caller.owner == OPERATOR:
                self._require_whole(_name_in(said) or said)
            self.look()
            found = self.get(caller, said)
        if found is None:
            raise not_found("model", said)
        return found

    def require_free(self, caller: Caller, name: str) -> None:
        """Raise a Problem (409) where an artefact under ROOT has the name, and would be hidden."""
        if caller.owner != OPERATOR:
            return
        try:
            is_taken = self._shelf.get(name) is not None
        except ArtefactError:  # it may be mended, and then expects to answer
            is_taken = True
        if is_taken:
            raise Problem(
                409,
                "name-taken",
                f"an artefact under ROOT has the name {name!r}, and a model made here would answer in its "
                "place; give another name",
                [Pointer("/name", "is taken")],
            )

    def of(self, caller: Caller) -> list[Known]:
        """All of an owner's: those under ROOT by name, then the others, newest first."""
        self.look()  # a list that lacks what its reader has just added would be wrong
        with self._lock:
            under_root = self._shelved.values() if caller.owner == OPERATOR else ()
            shelved = sorted(under_root, key=lambda one: one.id)
            return [*shelved, *(self._rows[one] for one in reversed(self._owned.get(caller.owner_id, [])))]

    def page(self, caller: Caller, cursor: str | None, limit: int) -> tuple[list[Known], str | None]:
        """Up to `limit` of `of` after the one whose id is `cursor`, and the next page's cursor."""
        every = self.of(caller)
        split = sum(one.place == "root" for one in every)
        start = 0
        if cursor is not None and cursor.startswith(_SHELF):
            start = bisect_right(every, cursor, 0, split, key=lambda one: one.id)
        elif cursor is not None:
            start = split + sum(one.id >= cursor for one in every[split:])
        found = every[start : start + limit]
        return found, found[-1].id if start + limit < len(every) else None

    def count(self, owner_id: str) -> int:
        """Models of an owner that lie in the service."""
        return len(self._owned.get(owner_id, ()))

    def know(self, model_id: str | None) -> None:
        """Look at once for a model that somebody has just been told of."""
        if model_id is not None and model_id not in self._rows and model_id not in self._gone:
            self.look()

    def look(self) -> None:
        """Read what is new in the database and under ROOT."""
        with self._lock:
            # a row from a clock that is ahead must not hide those of clocks that are right
            since = max(0, int((min(self._newest, time.time()) - LATE_S) * 1000))
            with self._database.read() as session:
                rows = session.scalars(select(tables.Model).where(tables.Model.id > f"model_{since:012x}"))
                for row in rows:
                    self._newest = max(self._newest, row.created)
                    if row.id not in self._rows and row.id not in self._gone:
                        self._put(self._known(row))
            self._put_shelved()
            self._looked = time.monotonic()

    def rename(self, model_id: str, name: str) -> Known:
        """After the database was told."""
        with self._lock:
            row = self._rows.get(model_id)
            if row is None:  # deleted meanwhile
                raise not_found("model", model_id)
            self._take(row)
            self._put(replace(row, name=name))
            return self._rows[model_id]

    def forget(self, model_id: str) -> None:
        """After its row was deleted."""
        with self._lock:
            self._gone.add(model_id)
            if model_id in self._rows:
                self._take(self._rows[model_id])

    def forget_owner(self, owner_id: str) -> None:
        """After all rows of an owner were deleted."""
        for model_id in list(self._owned.get(owner_id, ())):
            self.forget(model_id)

    def close(self) -> None:
        self._looker.shutdown(wait=True)

    def _require_whole(self, name: str) -> None:
        """Look under ROOT at once; raise a Problem (409) where what lies there cannot be used."""
        try:
            self._shelf.get(name)
        except ArtefactError as error:
            detail = str(error).replace(str(self._settings.root.resolve()), "ROOT")
            raise Problem(409, "artefact-damaged", detail) from error

    def _renew(self) -> None:
        try:
            self.look()
        except Exception:
            LOG.exception("the models could not be looked for; those known answer on")
        finally:
            self._looking = False

    def _known(self, row: tables.Model) -> Known:
        return Known(
            row.id,
            row.name,
            row.owner_id,
            "service",
            self._settings.artefacts / row.digest,
            row.kind,  # type: ignore[arg-type]  # written from a manifest, which knows no other
            tuple(row.labels),
            row.strategy,
            row.source,
            row.digest,
            row.fingerprint,
            row.summary,
            row.dataset_id,
            row.job_id,
            when(row.created) or "",
        )

    def _put(self, row: Known) -> None:
        self._rows[row.id] = row
        insort(self._named.setdefault((row.owner_id, row.name), []), row.id)
        if row.id not in self._owned.setdefault(row.owner_id, []):
            insort(self._owned[row.owner_id], row.id)

    def _take(self, row: Known) -> None:
        del self._rows[row.id]
        self._named[row.owner_id, row.name].remove(row.id)
        self._owned[row.owner_id].remove(row.id)

    def _put_shelved(self) -> None:
        """Take over what lies under ROOT now; what was replaced or removed is forgotten by `serving`."""
        found = self._shelf.found()
        then = self._shelved
        now = {
            name: then[name] if name in then and then[name].digest == one.digest else _shelved(one)
            for name, one in found.items()
        }
        self._shelved = now
        faults = self._shelf.faults()
        for name in faults.keys() - self._faulty:
            LOG.warning("an artefact under ROOT is not served: %s", faults[name])
        self._faulty = frozenset(faults)
        for name, one in then.items():
            if now.get(name) is not one:
                self._serving.forget(one.folder)


def _shelved(one: Shelved) -> Known:
    # the id says the name, so that it stays the same over restarts, and sorts as names do
    return Known(
        _SHELF + one.name.encode().hex(),
        one.name,
        OPERATOR,
        "root",
        one.folder,
        one.kind,
        one.labels,
        one.strategy,
        one.source,
        one.digest,
        one.fingerprint,
        {"bytes": one.bytes},
        None,
        None,
        one.created,
    )


def _name_in(said: str) -> str:
    """The name that an id of an artefact under ROOT says; "" where it is no such id."""
    if not said.startswith(_SHELF):
        return ""
    try:
        return bytes.fromhex(said.removeprefix(_SHELF)).decode()
    except ValueError:
        return ""
