"""`python -m graftwork.service.jobs.child`: a warm process from which each job's process is forked.

It imports what jobs need and does nothing else, so that a job starts at once and shares the memory of
what was imported. It reads one JSON object a line: what a Worker was told, then {job, attempt} for each job;
it answers {"ready"}, then {"process"} and {"status"} for each. Everything else goes to stderr.
"""

import ctypes
import importlib
import json
import os
import select
import signal
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO

from sqlalchemy.exc import OperationalError

from graftwork.errors import GraftworkError, RequestError
from graftwork.service.database import Database
from graftwork.service.database.tables import Job, Owner
from graftwork.service.jobs import queue
from graftwork.service.jobs.desk import Desk
from graftwork.service.problems import Problem
from graftwork.service.settings import Settings, from_json

NICENESS = 5
"""Of the warm process, and twice that of a job's: predictions go first."""
CHECKPOINT_S = "5"
UNREACHABLE = 75
"""Exit status of a job's process that ends because the database cannot be asked: no fault of the job."""
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve the worker until it closes the pipe or dies."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints must not be taken for an answer
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not (said := sys.stdin.readline()):
        return  # the worker died before it said anything
    told = json.loads(said)
    die_with(told["worker"])
    _give_way()
    settings, work = from_json(json.dumps(told["settings"])), importlib.import_module(told["work"])
    print(json.dumps({"ready": os.getpid()}), file=answers)
    for _ in work.warm():  # a job that is asked for meanwhile imports by itself what it needs
        while _is_asked():
            if not _served(work, settings, answers):
                return
    while _served(work, settings, answers):
        pass


def _is_asked() -> bool:
    # what is asked comes a line at a time, each after the answer to the last: nothing is in the buffer
    return bool(select.select([sys.stdin], [], [], 0)[0])


def _served(work: ModuleType, settings: Settings, answers: TextIO) -> bool:
    """Do the next job in a process of its own; False where the worker asks for no more."""
    if not (line := sys.stdin.readline()):
        return False
    asked, mine = json.loads(line), os.getpid()
    process = os.fork()
    if process == 0:
        _begin(mine)
        os._exit(_attempt(work, settings, asked["job"], asked["attempt"]))
    print(json.dumps({"process": process}), file=answers)
    _, status = os.waitpid(process, 0)
    print(json.dumps({"status": os.waitstatus_to_exitcode(status)}), file=answers)
    return True


def die_with(parent: int) -> None:
    """Be killed when `parent`, which started this process, ends in whatever way."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it ended before it was asked for


def _give_way() -> None:
    niceness = os.nice(NICENESS)
    # where Linux shares its processors out by sessions, niceness counts within one's own alone
    group = Path("/proc/self/autogroup")
    if group.exists():
        with suppress(OSError):  # two changes in a moment are refused: the job is slower, or others are
            group.write_text(str(niceness), "ascii")


def _begin(parent: int) -> None:
    """A process of its own kind: its own group, first to go where memory is short."""
    die_with(parent)
    os.setsid()
    _give_way()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    if sys.platform == "linux":
        Path("/proc/self/oom_score_adj").write_text("500", "ascii")


def _attempt(work: ModuleType, settings: Settings, job_id: str, attempt: int) -> int:
    """Do the job; the exit status: 0 where the database knows how it ended, or UNREACHABLE."""
    try:
        database = Database(settings.url)
        with database.read() as session:
            job = session.get(Job, job_id)
            owner = None if job is None else session.get(Owner, job.owner_id)
        if job is None or owner is None or job.attempt != attempt:
            return 0
        os.environ["GRAFT_PRIVATE"] = str(settings.private(owner.id))
        os.environ["GRAFT_PRIVATE_KEY"] = owner.secret
        os.environ.setdefault("GRAFT_CHECKPOINT_S", CHECKPOINT_S)
        _do(work, job, Desk(settings, database, job))
        database.close()
        return 0
    except queue.Lost:
        return 0
    except OperationalError as error:
        print(f"the database cannot be asked: {error.orig}", file=sys.stderr)
        return UNREACHABLE
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stderr.flush()


def _do(work: ModuleType, job: Job, desk: Desk) -> None:
    try:
        work.run(job, desk)
        if desk.ended is None:
            desk.fail("internal-error", "the work ended without a result; see the service's log")
    except (queue.Lost, OperationalError):
        raise
    except (Exception, SystemExit) as error:
        if desk.ended is not None:
            raise  # the job has ended; the log is the place for what came after
        desk.fail(**_said(error))


def _said(error: BaseException) -> dict[str, Any]:
    """What the owner of the job may know of what went wrong."""
    if isinstance(error, Problem):
        return {"code": error.code, "detail": error.detail}
    if isinstance(error, RequestError):
        return {"code": error.code, "detail": str(error)}
    if isinstance(error, GraftworkError):
        return {"code": "work-failed", "detail": str(error)}
    if isinstance(error, MemoryError):
        return {"code": "work-failed", "detail": "there was not enough memory; try fewer or smaller rows"}
    traceback.print_exception(error)
    detail = f"an error of the service itself ({type(error).__name__}); its log says more"
    return {"code": "internal-error", "detail": detail}


if __name__ == "__main__":
    main()
