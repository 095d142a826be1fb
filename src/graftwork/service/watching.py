"""Listeners to jobs: one look at the database serves all of them, however many there are."""

import asyncio
from collections import Counter
from typing import Any

from sqlalchemy import func, select
from starlette.concurrency import run_in_threadpool

from graftwork.service.database import Database
from graftwork.service.database.tables import Event

EVERY_S = 0.2
_CHUNK = 500


class Watch:
    """Knows the last event of every job that somebody listens to; lives on one event loop.

    streams: how many are open, by owner.
    """

    def __init__(self, database: Database) -> None:
        self.streams: Counter[str] = Counter()
        self._database = database
        self._last: dict[str, int] = {}
        self._listeners: Counter[str] = Counter()
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def newer(self, job: str, after: int, seconds: float) -> bool:
        """Wait until the job has an event after that one: True; or so long: False. True once it is gone."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        self._listeners[job] += 1
        try:
            if self._task is None or self._task.done():
                self._task = loop.create_task(self._look_again())
            while self._last.get(job, 0) <= after:
                changed = self._changed
                try:
                    async with asyncio.timeout_at(until):
                        await changed.wait()
                except TimeoutError:
                    return False
            return True
        finally:
            self._listeners[job] -= 1
            if not self._listeners[job]:
                del self._listeners[job]

    async def _look_again(self) -> None:
        idle = 0
        while idle * EVERY_S < 5:
            await asyncio.sleep(EVERY_S)
            jobs = list(self._listeners)
            idle = 0 if jobs else idle + 1
            found = await run_in_threadpool(self._look, jobs) if jobs else {}
            if found != self._last:
                self._last = found
                self._changed, changed = asyncio.Event(), self._changed
                changed.set()

    def _look(self, jobs: list[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        with self._database.read() as session:
            for start in range(0, len(jobs), _CHUNK):
                wanted = select(Event.job_id, func.max(Event.seq)).where(
                    Event.job_id.in_(jobs[start : start + _CHUNK])
                )
                found |= {job: seq for job, seq in session.execute(wanted.group_by(Event.job_id))}
        # a job that is gone wakes its listeners, who then see that it is
        return {job: found.get(job, 2**31) for job in jobs}


def watch_of(app: Any, database: Database) -> Watch:
    """The application's; made when the first listener comes, on the loop that it runs on."""
    loop = asyncio.get_running_loop()
    made: tuple[asyncio.AbstractEventLoop, Watch] | None = getattr(app.state, "watch", None)
    if made is None or made[0] is not loop:
        made = app.state.watch = (loop, Watch(database))
    return made[1]
