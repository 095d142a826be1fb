"""The queue of jobs: what the database says of a job is the truth, whatever its workers believe.

A job is claimed for a while (its lease) under a number (its attempt). Whoever writes for it shows that
number: once the lease ran out and another has claimed it, the earlier one's writes are refused (`Lost`).
So a job may be begun more than once, but ends once.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, cast

from sqlalchemy import and_, delete, func, or_, select
from sqlalchemy.orm import Session

from graftwork.errors import GraftworkError
from graftwork.service import ids
from graftwork.service.database import Database
from graftwork.service.database.tables import TERMINAL, Dataset, Event, Job, JobKind, JobState
from graftwork.service.jobs import names
from graftwork.service.usage import counted_job

MOST_KILLS = 3
FORGIVEN = 10
"""Attempts after which a job is blamed for what befell the whole machine too: it may be the reason."""
EventKind = Literal["state", "progress", "curve", "remark", "score"]
THINNED: tuple[EventKind, ...] = ("progress", "curve")
MOST_TOLD = 1_000
"""Events of each of these kinds that a job keeps; where there are more, half as many, evenly spaced."""
_LOOK = 250
"""How often, in events, a job is looked at for that."""
Also = Callable[[Session], None]
ALIVE: tuple[JobState, ...] = ("running", "cancelling")


class Lost(GraftworkError):
    """The job is no longer this attempt's: it ended, is gone, or was claimed anew."""


def enqueue(
    session: Session,
    owner_id: str,
    kind: JobKind,
    request: Mapping[str, Any],
    *,
    dataset_id: str | None = None,
) -> Job:
    """A new job in the queue, with its first event; part of the session's transaction."""
    job = Job(
        id=ids.new("job"),
        owner_id=owner_id,
        kind=kind,
        state="queued",
        request=dict(request),
        dataset_id=dataset_id,
        attempt=0,
        kills=0,
        created=time.time(),
    )
    session.add(job)
    session.flush()
    _note(session, job, "state", {"state": "queued"})
    return job


def waits(database: Database) -> bool:
    """Whether there is anything to claim; cheap, so that an idle worker may ask often."""
    with database.read() as session:
        return session.scalar(select(Job.id).where(_free(time.time())).limit(1)) is not None


def claim(database: Database, worker: str, lease_s: float) -> Job | None:
    """The oldest job that waits, or whose worker has fallen silent, as a new attempt; None without any.

    A job that has killed its worker MOST_KILLS times fails here, and one that was being cancelled ends.
    """
    while True:
        with database.write() as session:
            now = time.time()
            oldest = select(Job).where(_free(now)).order_by(Job.created, Job.id).limit(1)
            job = session.scalar(oldest.with_for_update(skip_locked=True))
            if job is None:
                return None
            if job.state != "queued":
                _take_away(session, job)
            if job.state == "queued":
                job.state, job.worker, job.lease = "running", worker, now + lease_s
                job.attempt += 1
                job.started = now if job.started is None else job.started
                _note(session, job, "state", {"state": "running", "attempt": job.attempt})
                return job


def state_of(database: Database, job_id: str, attempt: int) -> JobState:
    """What the attempt should know: running, or cancelling; raises Lost."""
    with database.read() as session:
        return cast(JobState, _require(session.get(Job, job_id), attempt).state)


def heartbeat(database: Database, job_id: str, attempt: int, lease_s: float) -> JobState:
    """Prolong the lease; running or cancelling. Raises Lost."""
    with database.write() as session:
        job = _held(session, job_id, attempt)
        job.lease = time.time() + lease_s
        return cast(JobState, job.state)


def tell(database: Database, job_id: str, attempt: int, kind: EventKind, data: Mapping[str, Any]) -> None:
    """Append an event; raises Lost. Whoever tells progress thins it first (see Desk.notify)."""
    with database.write() as session:
        job = _held(session, job_id, attempt)
        if kind == "progress":
            job.progress = dict(data)
        _note(session, job, kind, data)


def finish(
    database: Database,
    job_id: str,
    attempt: int,
    *,
    result: Mapping[str, Any] | None = None,
    problem: Mapping[str, Any] | None = None,
    also: Also | None = None,
) -> JobState:
    """End the job: succeeded, or failed where there is a `problem` ({code, detail}); raises Lost.

    `also` writes in the same transaction. A job that was being cancelled ends as cancelled instead: then
    neither `result` nor what `also` writes is kept. Returns how it ended.
    """
    with database.write() as session:
        job = _held(session, job_id, attempt)
        if job.state == "cancelling":
            return _end(session, job, "cancelled")
        if problem is not None:
            _end(session, job, "failed", problem)
        else:
            job.result = None if result is None else dict(result)
            _end(session, job, "succeeded")
        if also is not None:
            also(session)
        return cast(JobState, job.state)


def cancel(database: Database, job_id: str) -> JobState:
    """Ask a job to end: cancelled at once where it waits, cancelling where it runs; raises Lost if gone.

    A job that has ended stays as it ended.
    """
    with database.write() as session:
        job = session.get(Job, job_id, with_for_update=True)
        if job is None:
            raise Lost(f"job {job_id} is gone")
        if job.state == "queued":
            _end(session, job, "cancelled")
        elif job.state == "running":
            job.state = "cancelling"
            _note(session, job, "state", {"state": "cancelling"})
        return cast(JobState, job.state)


def release(database: Database, job_id: str, attempt: int, why: str = "the service was stopped") -> JobState:
    """Give the job back unfinished, for a reason that is not the job's; raises Lost."""
    with database.write() as session:
        job = _held(session, job_id, attempt)
        if job.state == "cancelling":
            return _end(session, job, "cancelled")
        return _requeue(session, job, why)


def died(database: Database, job_id: str, attempt: int, how: str) -> JobState:
    """The attempt's process died: that counts as a kill; the job waits again, or fails. Raises Lost."""
    with database.write() as session:
        return _bury(session, _held(session, job_id, attempt), how)


def bereave(database: Database, is_dead: Callable[[str], bool], *, together: bool = False) -> int:
    """Jobs whose worker is known to be dead wait again, or end, as after `died`; how many there were.

    together: the whole service died, which is no job's kill, unless it goes on and on (FORGIVEN).
    """
    with database.read() as session:
        running = session.execute(select(Job.id, Job.attempt, Job.worker).where(Job.state.in_(ALIVE))).all()
    orphans = [(job_id, attempt) for job_id, attempt, worker in running if worker and is_dead(worker)]
    for job_id, attempt in orphans:
        with suppress(Lost), database.write() as session:
            job = _held(session, job_id, attempt)
            if together and attempt < FORGIVEN and job.state == "running":
                _requeue(session, job, "the service died")
            else:
                _bury(session, job, "its worker died")
    return len(orphans)


def events(session: Session, job_id: str, after: int, limit: int) -> Sequence[Event]:
    """What happened since event `after` (0 for all), in order.

    Numbers rise from 1, without gaps as long as nothing was thinned out.
    """
    later = select(Event).where(Event.job_id == job_id, Event.seq > after).order_by(Event.seq)
    return session.scalars(later.limit(limit)).all()


def _free(now: float) -> Any:
    return or_(Job.state == "queued", and_(Job.state.in_(ALIVE), Job.lease < now))


def _held(session: Session, job_id: str, attempt: int) -> Job:
    """The attempt's job, locked until the transaction ends; raises Lost."""
    return _require(session.get(Job, job_id, with_for_update=True), attempt)


def _require(job: Job | None, attempt: int) -> Job:
    if job is None or job.attempt != attempt or job.state not in ALIVE:
        now = "gone" if job is None else f"{job.state} at attempt {job.attempt}"
        raise Lost(f"attempt {attempt} has lost its job, which is {now}")
    return job


def _take_away(session: Session, job: Job) -> JobState:
    """Of a worker that has fallen silent. One that is there, as after a machine's sleep, is no kill."""
    held_up = job.worker is not None and names.is_alive(job.worker)
    if held_up and job.state == "running" and job.attempt < FORGIVEN:
        return _requeue(session, job, "its worker was held up")
    return _bury(session, job, "its worker fell silent")


def _bury(session: Session, job: Job, how: str) -> JobState:
    job.kills += 1
    if job.state == "cancelling":
        return _end(session, job, "cancelled")
    if job.kills >= MOST_KILLS:
        detail = (
            f"the job killed its worker {job.kills} times, the last time: {how}; try fewer or smaller rows"
        )
        return _end(session, job, "failed", {"code": "killed-its-worker", "detail": detail})
    return _requeue(session, job, how)


def _requeue(session: Session, job: Job, why: str) -> JobState:
    job.state, job.worker, job.lease = "queued", None, None
    _note(session, job, "state", {"state": "queued", "why": why})
    return "queued"


def _end(session: Session, job: Job, state: JobState, problem: Mapping[str, Any] | None = None) -> JobState:
    assert state in TERMINAL
    job.state, job.finished, job.worker, job.lease = state, time.time(), None, None
    job.problem = None if problem is None else dict(problem)
    if job.started is not None:
        counted_job(session, job.owner_id, job.finished - job.started)
    _note(session, job, "state", {"state": state, **({} if problem is None else {"problem": dict(problem)})})
    if job.kind == "inspect" and state != "succeeded" and job.dataset_id is not None:
        _refuse(session, job.dataset_id, problem or {"code": state, "detail": "its inspection was cancelled"})
    return state


def _refuse(session: Session, dataset_id: str, problem: Mapping[str, Any]) -> None:
    """Without its inspection a dataset would stay 'inspecting' for ever."""
    dataset = session.get(Dataset, dataset_id, with_for_update=True)
    if dataset is not None and dataset.state == "inspecting":
        dataset.state, dataset.problem = "refused", dict(problem)


def _note(session: Session, job: Job, kind: EventKind, data: Mapping[str, Any]) -> None:
    # the job's row is locked (or new): nobody else can take the same number
    last = session.scalar(select(func.max(Event.seq)).where(Event.job_id == job.id))
    number = (last or 0) + 1
    session.add(Event(job_id=job.id, seq=number, at=time.time(), kind=kind, data=dict(data)))
    session.flush()
    if number % _LOOK == 0:
        for thinned in THINNED:
            _thin(session, job.id, thinned)


def _thin(session: Session, job_id: str, kind: EventKind) -> None:
    """Leave the first, the last, and what lies evenly between by number, which is how far the job was."""
    told = (Event.job_id == job_id, Event.kind == kind)
    numbers = session.scalars(select(Event.seq).where(*told).order_by(Event.seq)).all()
    if len(numbers) <= MOST_TOLD:
        return
    step, kept = (numbers[-1] - numbers[0]) / (MOST_TOLD // 2), {numbers[-1]}
    due: float = numbers[0]
    for number in numbers:
        if number >= due:
            kept.add(number)
            due += step * (1 + (number - due) // step)
    session.execute(delete(Event).where(*told, Event.seq.not_in(kept)))
