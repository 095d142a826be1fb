"""What a job's work is handed: its job, where things lie, and whom to tell how far it is."""

import time
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

from sqlalchemy.exc import OperationalError

from graftwork.records import Progress
from graftwork.service.artefacts import Artefacts
from graftwork.service.database import Database
from graftwork.service.database.tables import Job, JobState
from graftwork.service.jobs import queue
from graftwork.service.settings import Settings

EVERY_S, SELDOM_S = 0.25, 5.0
"""Seconds between two events of progress: at first, and once a job has taken long."""

PATIENCE_S = 60.0
Thinned = Literal["progress", "curve"]
T = TypeVar("T")


class _Pace:
    """How often one kind is told. least: seconds between two. held: what was not told since."""

    def __init__(self, least: float) -> None:
        self._least = least
        self._begun, self._told = float("inf"), float("-inf")
        self.held: Mapping[str, Any] | None = None

    def is_due(self, data: Mapping[str, Any]) -> bool:
        now = time.monotonic()
        self._begun = min(self._begun, now)
        every = min(max(self._least, (now - self._begun) / 200), SELDOM_S)
        if now - self._told < every:
            self.held = data
            return False
        self._told, self.held = now, None
        return True


class Desk:
    """One attempt at one job. Everything it writes is refused (queue.Lost) once the job is another's."""

    def __init__(self, settings: Settings, database: Database, job: Job) -> None:
        self.settings, self.database, self.job = settings, database, job
        self.artefacts = Artefacts(settings.artefacts)
        self.ended: JobState | None = None
        self._paces: dict[Thinned, _Pace] = {"progress": _Pace(EVERY_S), "curve": _Pace(0.0)}

    def notify(self, step: Progress) -> None:
        """Tell progress, four times a second at most and less often as the job grows long."""
        self._tell_in_time("progress", _said(step))

    def point(self, data: Mapping[str, Any]) -> None:
        """Tell a point of the curve: each at first, and fewer as the training grows long."""
        self._tell_in_time("curve", data)

    def event(self, kind: queue.EventKind, data: Mapping[str, Any]) -> None:
        """Tell something else: it is never left out."""
        self._catch_up()
        self._tell(kind, data)

    def finish(self, result: Mapping[str, Any] | None = None, also: queue.Also | None = None) -> JobState:
        """The work is done; `also` writes in the transaction that ends the job. Returns how it ended.

        That is "cancelled" where a cancel came first: then `also` was not called.
        """
        return self._end(also, result=result)

    def fail(self, code: str, detail: str, also: queue.Also | None = None) -> JobState:
        """The work failed; detail: one line for a person: seen, expected, next step."""
        return self._end(also, problem={"code": code, "detail": detail})

    def _end(self, also: queue.Also | None, **how: Mapping[str, Any] | None) -> JobState:
        self._catch_up()
        job = self.job
        state = _patiently(lambda: queue.finish(self.database, job.id, job.attempt, also=also, **how))
        self.ended = state
        return state

    def _tell_in_time(self, kind: Thinned, data: Mapping[str, Any]) -> None:
        if self._paces[kind].is_due(data):
            self._tell(kind, data)

    def _catch_up(self) -> None:
        """What was held back is told before whatever follows it."""
        for kind, pace in self._paces.items():
            if pace.held is not None:
                held, pace.held = pace.held, None
                self._tell(kind, held)

    def _tell(self, kind: queue.EventKind, data: Mapping[str, Any]) -> None:
        _patiently(lambda: queue.tell(self.database, self.job.id, self.job.attempt, kind, data))


def _patiently(write: Callable[[], T]) -> T:
    """What `write` returns; a database that restarts meanwhile is waited for, up to PATIENCE_S."""
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            return write()
        except OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(1.0)


def _said(step: Progress) -> dict[str, Any]:
    return {
        "stage": step.stage,
        "done": step.done,
        "total": step.total,
        "unit": step.unit,
        "note": step.note,
    }
