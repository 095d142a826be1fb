"""What a job's work is handed: its job, where things lie, and whom to tell how far it is."""

import time
from collections.abc import Mapping
from typing import Any

from graftwork.records import Progress
from graftwork.service.artefacts import Artefacts
from graftwork.service.database import Database
from graftwork.service.database.tables import Job, JobState
from graftwork.service.jobs import queue
from graftwork.service.settings import Settings

EVERY_S, SELDOM_S = 0.25, 5.0
"""Seconds between two events of progress: at first, and once a job has taken long."""


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
        self._catch_up()
        self.ended = queue.finish(self.database, self.job.id, self.job.attempt, result=result, also=also)
        return self.ended

    def fail(self, code: str, detail: str, also: queue.Also | None = None) -> JobState:
        """The work failed; detail: one line for a person: seen, expected, next step."""
        self._catch_up()
        problem = {"code": code, "detail": detail}
        self.ended = queue.finish(self.database, self.job.id, self.job.attempt, problem=problem, also=also)
        return self.ended

    def _catch_up(self) -> None:
        """The last step that was held back is told before whatever follows it."""
        if self._held is not None:
            step, self._held = self._held, None
            self._tell("progress", _said(step))

    def _tell(self, kind: queue.EventKind, data: Mapping[str, Any]) -> None:
        queue.tell(self.database, self.job.id, self.job.attempt, kind, data)


def _said(step: Progress) -> dict[str, Any]:
    return {
        "stage": step.stage,
        "done": step.done,
        "total": step.total,
        "unit": step.unit,
        "note": step.note,
    }
