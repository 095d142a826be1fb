"""`python -m graftwork.service.jobs.worker`: claims jobs one after another and watches over each.

The work itself runs in a process of its own (nursery.py), so that whatever it does, the worker goes on to
keep the lease, to hear of a cancel and to end the work at its limits. It is told on stdin, one JSON object:
{settings, work: the module with `warm` and `run`, server: the process that it ends with}.
"""

import json
import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from typing import Any

from sqlalchemy.exc import OperationalError

from graftwork.errors import WorkError
from graftwork.service.database import Database
from graftwork.service.database.tables import TERMINAL, Job
from graftwork.service.jobs import names, queue
from graftwork.service.jobs.child import UNREACHABLE
from graftwork.service.jobs.nursery import Nursery
from graftwork.service.settings import from_json

IDLE_S = 0.2
"""Between two looks for a job."""
LOOK_S = 0.5
"""Between two looks at a job under way: is it cancelled, how much memory does it hold."""
TRY_AGAIN_S = 1.0
"""After the database could not be reached."""
log = logging.getLogger(__name__)


class Worker:
    """One worker. told: what came on stdin."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        self.told = told
        self.settings = from_json(json.dumps(told["settings"]))
        self.database = Database(self.settings.url)
        self.name = names.own()
        self.drained = False
        self.nursery = self._warm()

    @property
    def is_over(self) -> bool:
        """Whether it was told to end, or the server is gone."""
        return self.drained or os.getppid() != self.told["server"]

    def drain(self, *_: Any) -> None:
        """End soon: the job under way goes back to the queue."""
        self.drained = True

    def run(self) -> None:
        """Work until told to end; raises WorkError where no job can be begun."""
        try:
            ready = False
            while not self.is_over:
                if ready and not self.nursery.is_alive:
                    self.nursery.close()
                    self.nursery, ready = self._warm(), False
                ready = ready or self.nursery.wait(IDLE_S)
                if ready:
                    self._next()
        finally:
            self.nursery.close()
            self.database.close()

    def _next(self) -> None:
        try:
            job = None
            if queue.waits(self.database):
                job = queue.claim(self.database, self.name, self.settings.lease)
        except OperationalError as error:
            self._unreachable(error)
            return
        if job is None:
            time.sleep(IDLE_S)
        else:
            self._do(job)

    def _do(self, job: Job) -> None:
        log.info("%s %s attempt %d", job.kind, job.id, job.attempt)
        self.nursery.begin(job.id, job.attempt)
        watch = _Watch(self, job)
        status = None
        while status is None and watch.verdict is None:
            status = self.nursery.ended(LOOK_S)
            if status is None:
                watch.look()
        if status is None:
            self.nursery.stop()
        self._settle(job, watch.verdict, status)

    def _settle(self, job: Job, verdict: "str | dict[str, str] | None", status: int | None) -> None:
        """Bring the database in line with how the process ended; patient while it cannot be reached."""
        while True:
            try:
                state = self._written(job, verdict, status)
                log.info("%s %s attempt %d: %s", job.kind, job.id, job.attempt, state)
                if state in TERMINAL:
                    self._tidy(job, state)
                return
            except OperationalError as error:
                self._unreachable(error)
                if self.is_over:
                    return  # its lease runs out

    def _tidy(self, job: Job, state: str) -> None:
        """Remove what nothing names any more, whoever ended the job's process, and at whatever moment."""
        shutil.rmtree(self.settings.run(job.id), ignore_errors=True)
        if job.kind == "inspect" and job.dataset_id is not None and state != "succeeded":
            from graftwork.service.intake.arrange import clear  # of what a worker needs as a rule no part

            clear(self.settings.dataset(job.dataset_id))

    def _written(self, job: Job, verdict: "str | dict[str, str] | None", status: int | None) -> str:
        try:
            if isinstance(verdict, dict):
                return queue.finish(self.database, job.id, job.attempt, problem=verdict)
            if verdict is not None:
                return queue.release(self.database, job.id, job.attempt)
            if status == UNREACHABLE:
                why = "the database could not be asked"
                return queue.release(self.database, job.id, job.attempt, why)
            return queue.died(self.database, job.id, job.attempt, _how(status))
        except queue.Lost:  # as a rule because the job's process has ended it itself
            with self.database.read() as session:
                found = session.get(Job, job.id)
                return "gone" if found is None else found.state

    def _warm(self) -> Nursery:
        told = {**self.told, "worker": os.getpid()}
        return Nursery(told, {"HF_HUB_OFFLINE": "1"} if self.settings.offline else {})

    def _unreachable(self, error: OperationalError) -> None:
        log.warning("the database cannot be asked: %s", str(error.orig).strip().partition("\n")[0])
        time.sleep(TRY_AGAIN_S)


class _Watch:
    """Over one job under way. verdict: why it must end: a problem, or "released" (cancelled, lost, drain)."""

    def __init__(self, worker: Worker, job: Job) -> None:
        self.worker, self.job = worker, job
        self.verdict: str | dict[str, str] | None = None
        self._begun = self._beat = time.monotonic()

    def look(self) -> None:
        if self.worker.is_over:
            self.verdict = "released"
        else:
            self.verdict = self._over_limits() or self._unwanted()

    def _unwanted(self) -> str | None:
        """Whether it is cancelled or no longer ours; keeps the lease on the way."""
        job, database, lease = self.job, self.worker.database, self.worker.settings.lease
        try:
            if time.monotonic() - self._beat >= lease / 4:
                state = queue.heartbeat(database, job.id, job.attempt, lease)
                self._beat = time.monotonic()
            else:
                state = queue.state_of(database, job.id, job.attempt)
        except queue.Lost:
            return "released"
        except OperationalError as error:
            self.worker._unreachable(error)
            return None
        return "released" if state == "cancelling" else None

    def _over_limits(self) -> dict[str, str] | None:
        limits, held = self.worker.settings.limits, self.worker.nursery.memory()
        if held > limits.job_bytes:
            return {
                "code": "too-much-memory",
                "detail": f"the job took {held / 1e6:,.0f} MB of memory, {limits.job_bytes / 1e6:,.0f} MB at "
                "most are allowed here; try fewer or smaller rows, or a smaller source",
            }
        if time.monotonic() - self._begun > limits.job_seconds:
            return {
                "code": "too-long",
                "detail": f"the job took longer than {limits.job_seconds:,.0f} seconds, the most that is "
                "allowed here; give it a budget, or a cheaper strategy",
            }
        return None


def _how(status: int | None) -> str:
    if status is None or status >= 0:
        return f"its process ended with status {status}"
    try:
        return f"its process was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"its process was ended by signal {-status}"


def main() -> None:
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format=f"%(asctime)s worker {os.getpid()}: %(message)s"
    )
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's to handle: it ends its workers
    worker = Worker(json.loads(sys.stdin.readline()))
    signal.signal(signal.SIGTERM, worker.drain)
    try:
        worker.run()
    except WorkError as error:
        log.error("%s", error)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
