"""What a job's work is handed: its job, where things lie, and whom to tell how far it is."""

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

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
T = TypeVar("T")


class Desk:
    """One attempt at one job. Everything it writes is refused (queue.Lost) once the job is another's."""

    def __init__(self, settings: Settings, database: Database, job: Job) -> None:
        self.settings, self.database, self.job = settings, database, job
        self.artefacts = Artefacts(settings.artefacts)
        self.ended: JobState | None = None
        self._begun = time.monotonic()
        self._told = float("-inf")
        self._held: Progress | None = None

    def notify(self, step: Progress) -> None:
        """Tell progress, four times a second at most and less often as the job grows long."""
        now = time.monotonic()
        every = min(max(EVERY_S, (now - self._begun) / 200), SELDOM_S)
        if now - self._told < every:
            self._held = step
            return
        self._told, self._held = now, None
        self._tell("progress", _said(step))

    def event(self, kind: queue.EventKind, data: Mapping[str, Any]) -> None:
        """Tell something else than progress: it is never left out."""
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

    def _catch_up(self) -> None:
        """The last step that was held back is told before whatever follows it."""
        if self._held is not None:
            step, self._held = self._held, None
            self._tell("progress", _said(step))

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
