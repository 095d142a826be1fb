"""Workers with real processes: what becomes of a job whatever its process does, and of its worker's death."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import text

from graftwork.service import ids
from graftwork.service.database import Database
from graftwork.service.database.tables import TERMINAL, Job
from graftwork.service.jobs import names, nursery, queue, supervisor, worker
from graftwork.service.jobs.supervisor import Supervisor
from graftwork.service.settings import Settings, from_json, to_json

PATIENCE_S = 120.0
Start = Callable[..., Supervisor]
once = pytest.mark.parametrize("empty_url", ["sqlite"], indirect=True)
"""For what does not depend on the database: real processes take seconds."""


@pytest.fixture
def start(settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts workers that do toy work; ends them with the test."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    started: list[Supervisor] = []

    def begin(**changes: Any) -> Supervisor:
        one = Supervisor(replace(settings, **changes), "toy_work")
        one.start()
        started.append(one)
        return one

    yield begin
    for one in started:
        one.stop(PATIENCE_S)


def ask(database: Database, do: str, **request: Any) -> str:
    with database.write() as session:
        return queue.enqueue(session, "operator", "fit", {"do": do, **request}).id


def until(happened: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if found := happened():
            return found
        time.sleep(0.02)
    raise AssertionError(f"never: {what}")


def job_of(database: Database, job_id: str) -> Job:
    with database.read() as session:
        job = session.get(Job, job_id)
        assert job is not None
        return job


def ended(database: Database, job_id: str) -> Job:
    until(lambda: job_of(database, job_id).state in TERMINAL, f"the end of {job_id}")
    return job_of(database, job_id)


def written(path: Path) -> list[int]:
    """The processes that a job has left the names of."""
    said = until(lambda: path.exists() and path.read_text(), f"{path.name} written")
    return [int(word) for word in said.split()]


def is_gone(process: int) -> bool:
    try:
        return bool(psutil.Process(process).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def test_each_job_runs_in_a_process_of_its_own_behind_predictions(database: Database, start: Start) -> None:
    jobs = [ask(database, "answer") for _ in range(3)]
    start()
    found = [ended(database, job) for job in jobs]
    assert [job.state for job in found] == ["succeeded"] * 3
    results = [job.result or {} for job in found]
    assert len({one["process"] for one in results}) == 3
    assert all(one["niceness"] >= 10 for one in results)
    assert all(one["session"] in (None, one["niceness"]) for one in results)
    assert all(job.kills == 0 and job.attempt == 1 for job in found)


@once
def test_a_job_gets_its_owners_private_place_and_key(
    database: Database, settings: Settings, start: Start
) -> None:
    start()
    result = ended(database, ask(database, "surroundings")).result
    assert result == {
        "GRAFT_PRIVATE": str(settings.private("operator")),
        "GRAFT_PRIVATE_KEY": "00" * 32,
        "GRAFT_CHECKPOINT_S": "5",
        "HF_HUB_OFFLINE": "1",
    }


@once
def test_errors_of_the_work_end_the_job_with_their_code(database: Database, start: Start) -> None:
    start()
    errors = ("request", "work", "problem", "memory", "bug", "exit")
    jobs = {error: ask(database, "raise", error=error) for error in errors}
    jobs["forgot"] = ask(database, "nothing")
    problems = {error: ended(database, job).problem or {} for error, job in jobs.items()}
    assert {error: problem["code"] for error, problem in problems.items()} == {
        "request": "invalid-data",
        "work": "work-failed",
        "problem": "columns-unclear",
        "memory": "work-failed",
        "bug": "internal-error",
        "exit": "internal-error",
        "forgot": "internal-error",
    }
    assert "the table has no labels" in problems["request"]["detail"]
    assert "KeyError" in problems["bug"]["detail"] and "secret" not in problems["bug"]["detail"]


@once
def test_a_job_that_dies_is_tried_three_times_and_then_given_up(database: Database, start: Start) -> None:
    start()
    job = ended(database, ask(database, "die"))
    assert (job.state, job.kills, job.attempt) == ("failed", 3, 3)
    assert job.problem is not None and job.problem["code"] == "killed-its-worker"
    assert "SIGKILL" in job.problem["detail"]
    assert ended(database, ask(database, "answer")).state == "succeeded"


@once
def test_an_inspection_that_is_given_up_leaves_no_files(
    database: Database, settings: Settings, start: Start
) -> None:
    start()
    folder = settings.dataset(ids.new("data"))
    for part in ("contents", ".contents/unpacked", "corrections"):
        (folder / part).mkdir(parents=True)
    with database.write() as session:
        job = queue.enqueue(session, "operator", "inspect", {"do": "die"}, dataset_id=folder.name).id
    assert ended(database, job).state == "failed"
    until(lambda: [one.name for one in folder.iterdir()] == ["corrections"], "the files gone")


@once
@pytest.mark.parametrize(
    ("do", "bound", "most", "code"),
    [("swell", "job_bytes", 400_000_000, "too-much-memory"), ("sleep", "job_seconds", 0.5, "too-long")],
)
def test_a_job_over_its_memory_or_time_is_ended_with_the_reason(
    database: Database, settings: Settings, start: Start, do: str, bound: str, most: float, code: str
) -> None:
    limits = replace(settings.limits, **{bound: most})
    start(limits=limits)
    job = ended(database, ask(database, do))
    assert (job.problem or {})["code"] == code and job.attempt == 1


@once
def test_a_job_does_not_wait_until_all_is_imported(
    database: Database, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOY_WARM", str(tmp_path / "never"))
    start()
    jobs = [ask(database, "answer") for _ in range(2)]
    assert [ended(database, job).state for job in jobs] == ["succeeded"] * 2


def test_a_cancel_ends_work_that_does_not_listen_and_all_it_started(
    database: Database, start: Start, tmp_path: Path
) -> None:
    start()
    job = ask(database, "never listen", name=str(tmp_path / "name"))
    processes = written(tmp_path / "name")
    assert queue.cancel(database, job) == "cancelling"
    assert ended(database, job).state == "cancelled"
    assert len(processes) == 2
    until(lambda: all(is_gone(one) for one in processes), "the end of the job's processes")


@once
def test_a_cancel_does_not_wait_for_imports(
    database: Database, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lasting = tmp_path / "import"
    lasting.touch()
    monkeypatch.setenv("TOY_IMPORT", str(lasting))
    start()
    job = ask(database, "answer")
    until(lambda: job_of(database, job).state == "running", "the job claimed")
    queue.cancel(database, job)
    assert ended(database, job).state == "cancelled"
    lasting.unlink()
    assert ended(database, ask(database, "answer")).state == "succeeded"


@once
def test_a_database_that_is_away_too_long_is_no_kill(database: Database, start: Start) -> None:
    start()
    job = ended(database, ask(database, "lose the database"))
    assert (job.state, job.attempt, job.kills) == ("succeeded", 2, 0)


def test_a_cancel_is_due_within_five_seconds() -> None:
    assert worker.LOOK_S + nursery.GRACE_S < 4.0


@once
def test_a_worker_told_to_end_gives_its_job_back_without_a_kill(
    database: Database, settings: Settings, start: Start, tmp_path: Path
) -> None:
    first = start()
    job = ask(database, "only first", name=str(tmp_path / "name"))
    written(tmp_path / "name")
    first.stop(PATIENCE_S)
    waiting = job_of(database, job)
    assert (waiting.state, waiting.attempt, waiting.kills) == ("queued", 1, 0)
    assert first.workers == []
    start()
    found = ended(database, job)
    assert found.result == {"attempt": 2, "from": "attempt 1"}
    until(lambda: not settings.run(job).exists(), "the run's folder removed")


def test_a_killed_workers_job_is_taken_up_from_its_checkpoint(
    database: Database, start: Start, tmp_path: Path
) -> None:
    one = start()
    job = ask(database, "only first", name=str(tmp_path / "name"))
    (process,) = written(tmp_path / "name")
    (doomed,) = one.workers
    os.kill(doomed, signal.SIGKILL)
    found = ended(database, job)
    assert (found.state, found.attempt, found.kills) == ("succeeded", 2, 1)
    until(lambda: is_gone(process), "the end of the first attempt's process")
    assert one.workers != [doomed]


@pytest.mark.parametrize("empty_url", ["postgresql"], indirect=True)
def test_a_database_that_drops_its_connections_costs_no_job(
    database: Database, start: Start, tmp_path: Path
) -> None:
    start()
    job = ask(database, "sleep", seconds=3, name=str(tmp_path / "name"))
    written(tmp_path / "name")
    drop = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
    for _ in range(3):
        with database.read() as session:
            session.execute(text(f"{drop} AND pid <> pg_backend_pid()"))
        time.sleep(0.5)
    found = ended(database, job)
    assert (found.state, found.attempt, found.kills) == ("succeeded", 1, 0)


def test_the_job_of_a_worker_of_another_machine_waits_for_its_lease(database: Database) -> None:
    job = ask(database, "answer")
    queue.claim(database, "elsewhere/1/1", lease_s=60)
    assert queue.bereave(database, names.is_dead) == 0
    assert queue.claim(database, "here", lease_s=60) is None
    assert job_of(database, job).worker == "elsewhere/1/1"


def test_names_tell_the_living_from_the_dead() -> None:
    mine = names.own()
    machine, number, born = mine.rsplit("/", 2)
    assert not names.is_dead(mine)
    assert names.is_dead(f"{machine}/{number}/{int(born) - 1000}")
    assert names.is_dead(f"{machine}/{2**22 + 5}/{born}")
    assert not names.is_dead(f"elsewhere/{2**22 + 5}/{born}")


@once
def test_workers_end_when_the_server_is_killed(
    database: Database, settings: Settings, start: Start, tmp_path: Path
) -> None:
    code = (
        "import sys, time; from graftwork.service.settings import from_json;"
        "from graftwork.service.jobs.supervisor import Supervisor;"
        "one = Supervisor(from_json(sys.stdin.read()), 'toy_work'); one.start();"
        "time.sleep(1000)"
    )
    server = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    assert server.stdin is not None
    server.stdin.write(to_json(settings).encode())
    server.stdin.close()
    try:
        job = ask(database, "only first", name=str(tmp_path / "name"))
        (process,) = written(tmp_path / "name")
        workers = [one.pid for one in psutil.Process(server.pid).children(recursive=True)]
    finally:
        server.kill()
        server.wait()
    until(lambda: all(is_gone(one) for one in (*workers, process)), "the end of the workers")
    waiting = job_of(database, job)
    assert (waiting.state, waiting.kills) == ("queued", 0)


@once
def test_a_worker_that_cannot_start_is_not_started_again_at_once(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[float] = []
    real = Supervisor._begin

    def counted(self: Supervisor) -> Any:
        begun.append(time.monotonic())
        return real(self)

    monkeypatch.setattr(Supervisor, "_begin", counted)
    monkeypatch.setattr(supervisor, "SHORT_S", 0.5)
    one = Supervisor(settings, "no_such_module")
    one.start()
    try:
        until(lambda: len(begun) >= 3, "three starts")
    finally:
        one.stop(PATIENCE_S)
    waits = [later - earlier for earlier, later in pairwise(begun)]
    assert waits[0] >= 0.5 and waits[1] >= 1.0


@once
def test_folders_of_runs_that_are_over_are_removed_at_the_start(
    database: Database, settings: Settings, start: Start
) -> None:
    waiting, over = ask(database, "sleep", seconds=60), ask(database, "answer")
    queue.cancel(database, over)
    for name in (waiting, over, "unknown"):
        settings.run(name).mkdir(parents=True)
    start()
    until(lambda: [one.name for one in settings.run("any").parent.iterdir()] == [waiting], "tidied up")


def test_the_process_that_jobs_are_forked_from_has_no_thread_and_reports_to_nobody() -> None:
    code = (
        "import sys, threading; from graftwork.service import work; list(work.warm());"
        "print(threading.active_count(), sys.modules.get('openvino_telemetry'), 'openvino' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["1", "None", "True"]


@once
def test_settings_travel_whole(settings: Settings) -> None:
    assert from_json(to_json(settings)) == settings
