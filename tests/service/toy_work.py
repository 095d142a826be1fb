"""Work for tests of the workers: each kind of behaviour by the job's request."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy.exc import OperationalError

from graftwork.errors import RequestError, WorkError
from graftwork.records import Progress
from graftwork.service.database.tables import Job
from graftwork.service.jobs.desk import Desk
from graftwork.service.problems import Problem


def warm() -> Iterator[None]:
    """Nothing to import, slowly; in one step as long as TOY_IMPORT is there."""
    while Path(os.environ.get("TOY_IMPORT", "/none")).exists():
        time.sleep(0.01)
    while not Path(os.environ.get("TOY_WARM", "/")).exists():
        time.sleep(0.01)
        yield


def run(job: Job, desk: Desk) -> None:
    """Do what request["do"] names."""
    DOINGS[job.request["do"]](job, desk, job.request)


def _session() -> int | None:
    """The niceness of its session as a whole, where Linux knows such a thing."""
    group = Path("/proc/self/autogroup")
    return int(group.read_text().split()[-1]) if group.exists() else None


def _answer(job: Job, desk: Desk, asked: dict[str, Any]) -> None:
    desk.finish(
        {"attempt": job.attempt, "process": os.getpid(), "niceness": os.nice(0), "session": _session()}
    )


def _surroundings(job: Job, desk: Desk, asked: dict[str, Any]) -> None:
    names = ("GRAFT_PRIVATE", "GRAFT_PRIVATE_KEY", "GRAFT_CHECKPOINT_S", "HF_HUB_OFFLINE")
    print("what work prints is no answer of its process")
    desk.finish({name: os.environ.get(name) for name in names})


def _sleep(job: Job, desk: Desk, asked: dict[str, Any]) -> None:
    _leave_name(asked)
    desk.notify(Progress("sleeping", job.attempt, None))
    time.sleep(asked.get("seconds", 600))
    desk.finish({"attempt": job.attempt})


def _never_listen(job: Job, desk: Desk, asked: dict[str, Any]) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(asked["name"]).write_text(f"{os.getpid()} {helper.pid}")
    while True:
        time.sleep(1)


def _only_first(job: Job, desk: Desk, asked: dict[str, Any]) -> None:
    """A first attempt that leaves a checkpoint and goes on for ever; a second that goes on from it."""
    checkpoint = desk.settings.run(job.id) / "checkpoint"
    if checkpoint.exists():
        desk.finish({"attempt": job.attempt, "from": checkpoint.read_text()})
        return
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_text(f"attempt {job.attempt}")
    _sleep(job, desk, asked)


def _die(job: Job, desk: Desk, asked: dict[str, Any]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _lose_the_database(job: Job, desk: Desk, asked: dict[str, Any]) -> None:
    if job.attempt == 1:
        raise OperationalError("SELECT 1", None, Exception("the server closed the connection"))
    desk.finish({"attempt": job.attempt})


def _swell(job: Job, desk: Desk, asked: dict[str, Any]) -> None:
    held = [os.urandom(1) * 20_000_000 for _ in range(25)]
    time.sleep(600)
    assert held


def _raise(job: Job, desk: Desk, asked: dict[str, Any]) -> None:
    raise {
        "request": RequestError("the table has no labels; name the column"),
        "work": WorkError("the disk is full"),
        "problem": Problem(422, "columns-unclear", "which column holds the text?"),
        "memory": MemoryError(),
        "bug": KeyError("secret"),
        "exit": SystemExit(3),
    }[asked["error"]]


def _nothing(job: Job, desk: Desk, asked: dict[str, Any]) -> None:
    """Forgets to finish."""


def _leave_name(asked: dict[str, Any]) -> None:
    if "name" in asked:
        Path(asked["name"]).write_text(str(os.getpid()))


DOINGS = {
    "answer": _answer,
    "surroundings": _surroundings,
    "sleep": _sleep,
    "never listen": _never_listen,
    "only first": _only_first,
    "die": _die,
    "lose the database": _lose_the_database,
    "swell": _swell,
    "raise": _raise,
    "nothing": _nothing,
}
