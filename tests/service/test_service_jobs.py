"""The queue's promises on both databases: no job is lost, none succeeds twice, late writes never land."""

import random
import threading
from dataclasses import dataclass
from itertools import pairwise

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from graftwork.records import Progress
from graftwork.service import ids
from graftwork.service.database import Database
from graftwork.service.database.tables import TERMINAL, Dataset, Event, Job, JobKind, Model, Owner, Usage
from graftwork.service.jobs import desk as desks
from graftwork.service.jobs import names, queue
from graftwork.service.jobs.desk import Desk
from graftwork.service.jobs.queue import Lost
from graftwork.service.settings import Settings

LEASE_S = 10.0


class Clock:
    """Time as the queue sees it."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def time(self) -> float:
        self.now += 1e-3
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(queue.time, "time", made.time)
    return made


def ask(database: Database, kind: JobKind = "fit", dataset_id: str | None = None) -> str:
    with database.write() as session:
        return queue.enqueue(session, "operator", kind, {}, dataset_id=dataset_id).id


def take(database: Database, worker: str = "w") -> Job:
    job = queue.claim(database, worker, LEASE_S)
    assert job is not None
    return job


def begun(database: Database) -> Job:
    ask(database)
    return take(database)


def job_of(database: Database, job_id: str) -> Job:
    with database.read() as session:
        job = session.get(Job, job_id)
        assert job is not None
        return job


def told(database: Database, job_id: str) -> list[Event]:
    with database.read() as session:
        return list(queue.events(session, job_id, 0, 10_000))


def states(database: Database, job_id: str) -> list[str]:
    return [event.data["state"] for event in told(database, job_id) if event.kind == "state"]


def test_jobs_are_claimed_oldest_first_and_once(database: Database, clock: Clock) -> None:
    first, second = ask(database), ask(database)
    assert [take(database).id, take(database).id] == [first, second]
    assert queue.claim(database, "w", LEASE_S) is None
    assert not queue.waits(database)


def test_a_silent_workers_job_is_claimed_anew_and_its_own_writes_are_refused(
    database: Database, clock: Clock
) -> None:
    job_id = ask(database)
    old = take(database, "old")
    clock.now += LEASE_S + 1
    assert queue.waits(database)
    new = take(database, "new")
    assert (new.id, new.attempt, new.kills) == (job_id, 2, 1)
    late = (job_id, old.attempt)
    for write in (
        lambda: queue.state_of(database, *late),
        lambda: queue.heartbeat(database, *late, LEASE_S),
        lambda: queue.tell(database, *late, "progress", {"done": 1}),
        lambda: queue.finish(database, *late, result={"by": "old"}),
        lambda: queue.release(database, *late),
        lambda: queue.died(database, *late, "?"),
    ):
        with pytest.raises(Lost):
            write()
    assert queue.finish(database, job_id, new.attempt, result={"by": "new"}) == "succeeded"
    assert job_of(database, job_id).result == {"by": "new"}
    assert states(database, job_id) == ["queued", "running", "queued", "running", "succeeded"]


def test_a_heartbeat_keeps_the_job(database: Database, clock: Clock) -> None:
    job = begun(database)
    for _ in range(5):
        clock.now += LEASE_S * 0.9
        assert queue.claim(database, "other", LEASE_S) is None
        assert queue.heartbeat(database, job.id, job.attempt, LEASE_S) == "running"


def test_three_kills_fail_the_job_with_the_reason(database: Database, clock: Clock) -> None:
    job_id = ask(database)
    for kills in (1, 2):
        job = take(database)
        assert queue.died(database, job_id, job.attempt, "it burst") == "queued"
        assert job_of(database, job_id).kills == kills
    take(database)
    clock.now += LEASE_S + 1
    assert queue.claim(database, "w", LEASE_S) is None
    job = job_of(database, job_id)
    assert (job.state, job.kills) == ("failed", 3)
    assert job.problem is not None and job.problem["code"] == "killed-its-worker"
    assert "3 times" in job.problem["detail"] and "fell silent" in job.problem["detail"]


def test_a_worker_that_was_held_up_loses_its_job_without_a_kill(database: Database, clock: Clock) -> None:
    job_id = ask(database)
    for attempt in range(1, queue.FORGIVEN):
        assert take(database, names.own()).attempt == attempt
        clock.now += LEASE_S + 1  # the machine slept
    found = take(database, names.own())
    assert (found.id, found.attempt, found.kills) == (job_id, queue.FORGIVEN, 0)
    clock.now += LEASE_S + 1
    assert take(database, "another").kills == 1  # held up for so often, the job may be the reason


def test_jobs_of_a_worker_found_dead_need_not_wait_for_their_lease(database: Database) -> None:
    dead, alive = begun(database), begun(database)
    with database.write() as session:
        session.get_one(Job, alive.id).worker = "alive"
    assert queue.bereave(database, lambda worker: worker != "alive") == 1
    again = take(database)
    assert (again.id, again.attempt, again.kills) == (dead.id, 2, 1)
    assert queue.claim(database, "w", LEASE_S) is None


@pytest.mark.parametrize("together", [False, True])
def test_a_cancel_does_not_wait_for_a_dead_worker(database: Database, together: bool) -> None:
    job = begun(database)
    queue.cancel(database, job.id)
    queue.bereave(database, lambda _: True, together=together)
    assert job_of(database, job.id).state == "cancelled"


def test_the_death_of_the_whole_service_is_no_kill_until_it_goes_on_and_on(database: Database) -> None:
    job_id = ask(database)
    for attempt in range(1, queue.FORGIVEN + 3):
        assert take(database).attempt == attempt
        assert queue.bereave(database, lambda _: True, together=True) == 1
        assert job_of(database, job_id).kills == max(0, attempt - queue.FORGIVEN + 1)
    assert queue.claim(database, "w", LEASE_S) is None
    assert job_of(database, job_id).state == "failed"


def test_a_released_job_waits_again_without_a_kill(database: Database) -> None:
    job = begun(database)
    assert queue.release(database, job.id, job.attempt) == "queued"
    again = take(database)
    assert (again.id, again.attempt, again.kills) == (job.id, 2, 0)
    assert again.started == job.started


def test_a_cancel_ends_a_waiting_job_at_once_and_a_running_one_when_its_worker_hears(
    database: Database,
) -> None:
    waiting = ask(database)
    assert queue.cancel(database, waiting) == "cancelled"
    assert queue.claim(database, "w", LEASE_S) is None
    job = begun(database)
    assert queue.cancel(database, job.id) == "cancelling"
    assert queue.cancel(database, job.id) == "cancelling"
    assert queue.heartbeat(database, job.id, job.attempt, LEASE_S) == "cancelling"
    assert queue.release(database, job.id, job.attempt) == "cancelled"
    assert queue.cancel(database, job.id) == "cancelled"
    assert states(database, job.id) == ["queued", "running", "cancelling", "cancelled"]


def test_a_cancelled_job_whose_worker_died_ends_as_cancelled(database: Database, clock: Clock) -> None:
    job = begun(database)
    queue.cancel(database, job.id)
    clock.now += LEASE_S + 1
    assert queue.claim(database, "w", LEASE_S) is None
    assert job_of(database, job.id).state == "cancelled"


def test_a_result_that_comes_after_the_cancel_is_not_kept(database: Database) -> None:
    job = begun(database)
    queue.cancel(database, job.id)
    ended = queue.finish(
        database, job.id, job.attempt, result={"a": 1}, also=lambda _: pytest.fail("was called")
    )
    assert ended == "cancelled"
    assert job_of(database, job.id).result is None


def test_the_end_and_what_comes_with_it_are_written_together_or_not_at_all(database: Database) -> None:
    job = begun(database)

    def also(session: Session) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        queue.finish(database, job.id, job.attempt, result={}, also=also)
    assert job_of(database, job.id).state == "running"
    assert states(database, job.id) == ["queued", "running"]


def test_a_job_that_is_gone_is_lost_to_its_worker(database: Database) -> None:
    job = begun(database)
    with database.write() as session:
        session.delete(session.get(Job, job.id))
    assert told(database, job.id) == []  # its events went with it
    with pytest.raises(Lost, match="gone"):
        queue.heartbeat(database, job.id, job.attempt, LEASE_S)
    with pytest.raises(Lost):
        queue.cancel(database, job.id)


@pytest.mark.parametrize("how", ["failed", "cancelled", "killed"])
def test_a_dataset_does_not_wait_for_an_inspection_that_has_ended(
    database: Database, clock: Clock, how: str
) -> None:
    dataset = ids.new("data")
    with database.write() as session:
        session.add(
            Dataset(
                id=dataset,
                owner_id="operator",
                name="",
                state="inspecting",
                files=[],
                options={},
                bytes=0,
                created=0.0,
            )
        )
    job_id = ask(database, "inspect", dataset)
    if how == "cancelled":
        queue.cancel(database, job_id)
    elif how == "failed":
        job = take(database)
        queue.finish(database, job_id, job.attempt, problem={"code": "invalid-data", "detail": "no rows"})
    else:
        for _ in range(3):
            take(database)
            clock.now += LEASE_S + 1
        assert queue.claim(database, "w", LEASE_S) is None
    with database.read() as session:
        found = session.get(Dataset, dataset)
        assert found is not None and found.state == "refused"
        assert found.problem is not None
        assert found.problem["code"] == {"failed": "invalid-data", "killed": "killed-its-worker"}.get(
            how, how
        )


def test_events_told_by_many_at_once_are_numbered_without_gaps(database: Database) -> None:
    job = begun(database)
    failures: list[BaseException] = []

    def tell(name: int) -> None:
        try:
            for number in range(8):
                queue.tell(database, job.id, job.attempt, "remark", {"by": name, "number": number})
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=tell, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    events = told(database, job.id)
    assert [event.seq for event in events] == list(range(1, 2 + 1 + 32))
    for name in range(4):
        assert [e.data["number"] for e in events if e.data.get("by") == name] == list(range(8))
    with database.read() as session:
        assert [event.seq for event in queue.events(session, job.id, 30, 3)] == [31, 32, 33]


def test_many_workers_at_once_claim_each_job_once(database: Database) -> None:
    jobs = {ask(database) for _ in range(20)}
    claimed: list[str] = []

    def work() -> None:
        while (job := queue.claim(database, "w", 60.0)) is not None:
            claimed.append(job.id)
            queue.finish(database, job.id, job.attempt, result={})

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed) == sorted(jobs)


@dataclass
class Hand:
    """One worker of the simulation, and the attempt that it believes to have."""

    name: str
    job: str | None = None
    attempt: int = 0
    model: str = ""


@pytest.mark.parametrize("seed", range(4))
def test_whatever_workers_do_no_job_is_lost_and_none_succeeds_twice(
    database: Database, clock: Clock, seed: int
) -> None:
    chance = random.Random(seed)
    jobs = [ask(database) for _ in range(6)]
    hands = [Hand(str(number)) for number in range(4)]
    landed: dict[str, list[int]] = {job: [] for job in jobs}
    for _ in range(150):
        _one_step(database, clock, chance, hands, jobs, landed)
    for _ in range(50):  # then honest workers finish what is left
        clock.now += LEASE_S + 1
        while (job := queue.claim(database, "last", LEASE_S)) is not None:
            assert queue.finish(database, job.id, job.attempt, result={}, also=_model(job.id)) == "succeeded"
            landed[job.id].append(job.attempt)
    with database.read() as session:
        models = session.scalars(select(Model.job_id)).all()
    for job_id in jobs:
        job = job_of(database, job_id)
        assert job.state in TERMINAL
        assert len(landed[job_id]) == (job.state == "succeeded")
        assert models.count(job_id) == (job.state == "succeeded")
        ends = [state for state in states(database, job_id) if state in TERMINAL]
        assert ends == [job.state]
        assert [event.seq for event in told(database, job_id)] == list(
            range(1, 1 + len(told(database, job_id)))
        )
        if job.state == "failed":
            assert job.kills == 3 and job.problem is not None and job.problem["code"] == "killed-its-worker"


def _one_step(
    database: Database,
    clock: Clock,
    chance: random.Random,
    hands: list[Hand],
    jobs: list[str],
    landed: dict[str, list[int]],
) -> None:
    clock.now += chance.choice((0.1, 1.0, LEASE_S * 0.7))
    hand = chance.choice(hands)
    if chance.random() < 0.03:
        queue.cancel(database, chance.choice(jobs))
        return
    if hand.job is None:
        job = queue.claim(database, hand.name, LEASE_S)
        if job is not None:
            hand.job, hand.attempt = job.id, job.attempt
        return
    before = job_of(database, hand.job)
    ours = before.attempt == hand.attempt and before.state in queue.ALIVE
    what = chance.choice(("beat", "beat", "tell", "finish", "died", "release", "vanish"))
    held, hand_job = (database, hand.job, hand.attempt), hand.job
    if what in ("finish", "died", "release", "vanish"):
        hand.job = None
    if what == "vanish":
        return
    try:
        if what == "beat":
            queue.heartbeat(*held, LEASE_S)
        elif what == "tell":
            queue.tell(*held, "progress", {"attempt": hand.attempt})
        elif what == "finish":
            if queue.finish(*held, result={"attempt": hand.attempt}, also=_model(hand_job)) == "succeeded":
                landed[hand_job].append(hand.attempt)
        elif what == "died":
            queue.died(*held, "it burst")
        else:
            queue.release(*held)
    except Lost:
        assert not ours
        after = job_of(database, hand_job)
        assert (after.state, after.progress, after.result) == (before.state, before.progress, before.result)
    else:
        assert ours


def _model(job_id: str) -> queue.Also:
    def also(session: Session) -> None:
        session.add(
            Model(
                id=ids.new("model"), owner_id="operator", name="", digest="", kind="image", labels=[],
                strategy="", fingerprint="", summary={}, job_id=job_id, created=0.0,
            )
        )  # fmt: skip

    return also


class Watch:
    """Monotonic time as the desk sees it."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    made = Watch()
    monkeypatch.setattr(desks.time, "monotonic", made.monotonic)
    return made


@pytest.fixture
def desk(database: Database, settings: Settings, watch: Watch) -> Desk:
    return Desk(settings, database, begun(database))


def test_progress_is_told_four_times_a_second_at_most_and_less_often_later(
    desk: Desk, database: Database, watch: Watch
) -> None:
    for step in range(100):
        watch.now += 0.05
        desk.notify(Progress("features", step, 100))
    early = [event for event in told(database, desk.job.id) if event.kind == "progress"]
    assert 18 <= len(early) <= 21
    watch.now = 3600.0
    for step in range(100):
        watch.now += 1.0
        desk.notify(Progress("training", step, 100))
    late = [event for event in told(database, desk.job.id) if event.kind == "progress"]
    assert 18 <= len(late) - len(early) <= 21


def test_the_last_progress_is_told_before_what_follows(desk: Desk, database: Database) -> None:
    for step in range(10):
        desk.notify(Progress("features", step, 10))
    desk.event("remark", {"said": "done"})
    desk.notify(Progress("head", 0, None))
    desk.finish({})
    said = [(event.kind, event.data.get("done")) for event in told(database, desk.job.id)[2:]]
    assert said == [("progress", 0), ("progress", 9), ("remark", None), ("progress", 0), ("state", None)]
    assert job_of(database, desk.job.id).progress == {
        "stage": "head", "done": 0, "total": None, "unit": "rows", "note": ""
    }  # fmt: skip


def test_a_curve_is_told_whole_at_first_and_more_seldom_later(
    desk: Desk, database: Database, watch: Watch
) -> None:
    watch.now = 3600.0  # the training begins after an hour of features
    for epoch in range(20):
        watch.now += 0.01
        desk.point({"epoch": epoch})
    watch.now += 3600.0
    for epoch in range(20, 120):
        watch.now += 1.0
        desk.point({"epoch": epoch})
    desk.finish({})
    curve = [event.data["epoch"] for event in told(database, desk.job.id) if event.kind == "curve"]
    assert curve[:20] == list(range(20))
    assert 20 <= len(curve) - 20 <= 22 and curve[-1] == 119


def test_what_a_long_job_told_is_thinned_evenly(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "MOST_TOLD", 20)
    monkeypatch.setattr(queue, "_LOOK", 5)
    job = begun(database)
    for epoch in range(150):
        queue.tell(database, job.id, job.attempt, "curve", {"epoch": epoch})
        if epoch % 50 == 0:
            queue.tell(database, job.id, job.attempt, "remark", {"text": str(epoch)})
    queue.finish(database, job.id, job.attempt, result={})
    said = told(database, job.id)
    epochs = [event.data["epoch"] for event in said if event.kind == "curve"]
    assert len(epochs) <= 25 and (epochs[0], epochs[-1]) == (0, 149)
    assert max(later - earlier for earlier, later in pairwise(epochs)) <= 30
    assert [event.data["text"] for event in said if event.kind == "remark"] == ["0", "50", "100"]
    assert states(database, job.id) == ["queued", "running", "succeeded"]
    numbers = [event.seq for event in said]
    assert numbers == sorted(numbers) and numbers[-1] == 156
    with database.read() as session:  # whoever has heard of an event that is gone hears what came after it
        later = [event.seq for event in queue.events(session, job.id, 100, 10_000)]
    assert later == [number for number in numbers if number > 100]


def test_what_a_job_took_is_counted_for_its_owner(database: Database, clock: Clock) -> None:
    for _ in range(2):
        job = begun(database)
        clock.now += 5.0
        queue.finish(database, job.id, job.attempt, result={})
    queue.cancel(database, ask(database))  # it was never begun
    with database.read() as session:
        (usage,) = session.scalars(select(Usage)).all()
    assert usage.jobs == 2
    assert usage.job_seconds == pytest.approx(10.0, abs=0.1)


def test_deleting_an_owner_is_refused_while_there_are_jobs(database: Database) -> None:
    ask(database)
    with pytest.raises(IntegrityError), database.write() as session:
        session.delete(session.get(Owner, "operator"))
