"""What owners may use: requests a minute, and what they have; what they have used."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from graftwork.service import ids
from graftwork.service.callers import Caller
from graftwork.service.context import Service
from graftwork.service.database import Database
from graftwork.service.database.tables import Dataset, File, Job, Model, Owner, Usage
from graftwork.service.problems import Problem
from graftwork.service.security import new_owner
from graftwork.service.settings import Quotas
from graftwork.service.usage import Meter, counted_job, require, used
from tiny_service import client_of, key_of, make_service, problem_in

BOUNDS = Quotas(bytes=100, rows=10, jobs=2, requests=5, models=1)


@pytest.fixture
def service(database: Database, tmp_path: Path) -> Service:
    """On each kind of database."""
    return make_service(tmp_path / "s", database=database, quotas=BOUNDS)


def _caller(service: Service) -> Caller:
    key_of(service)
    with service.database.read() as session:
        id = session.scalars(select(Owner.id).where(Owner.name == "ann")).one()
    return Caller(id, "ann", "write", None)


def _bounded(service: Service, caller: Caller, what: Any, more: int) -> str | None:
    """The code of the problem that `more` would be; None where it fits."""
    try:
        with service.database.write() as session:
            require(session, caller, service.settings.quotas, what, more)
    except Problem as problem:
        assert problem.status == 429 and int(problem.headers["Retry-After"]) > 0
        return problem.code
    return None


def test_requests_are_bounded_a_minute_and_come_back_evenly(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr("graftwork.service.usage.time.monotonic", lambda: now)
    with client_of(service, key_of(service)) as ann, client_of(service, key_of(service, "bob")) as bob:
        assert [ann.get("/v1/owners/me").status_code for _ in range(5)] == [200] * 5
        answer = ann.get("/v1/owners/me")
        problem_in(answer, 429, "rate-limited")
        assert answer.headers["retry-after"] == "12"
        assert bob.get("/v1/owners/me").status_code == 200
        now += 12.01
        assert ann.get("/v1/owners/me").status_code == 200
        problem_in(ann.get("/v1/owners/me"), 429)
        now += 3600
        assert [ann.get("/v1/owners/me").status_code for _ in range(6)] == [200] * 5 + [429]


def test_those_who_came_once_are_not_remembered(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    meter, now = service.meter, time.monotonic()
    for i in range(100):
        meter.wait(f"tries 10.0.0.{i}", 60)
    monkeypatch.setattr("graftwork.service.usage.time.monotonic", lambda: now + 90)
    meter.wait("tries 10.0.0.1", 60)
    meter.flush()
    assert len(meter._buckets) == 1


def test_an_owners_own_bound_holds_before_the_services(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller, now = _caller(service), time.monotonic()
    monkeypatch.setattr("graftwork.service.usage.time.monotonic", lambda: now)
    for own, left in (({"requests": 1}, 1), ({"requests": None}, 50), ({}, 5)):
        with service.database.write() as session:
            session.get_one(Owner, caller.owner_id).quotas = own
        meter = Meter(service.database, service.settings)
        found = 0
        try:
            while found < 50:
                meter.request(caller.owner_id, own)
                found += 1
        except Problem as problem:
            assert problem.code == "rate-limited"
        assert found == left


def test_what_an_owner_has_is_bounded_in_all(service: Service) -> None:
    caller, now = _caller(service), time.time()
    other = _caller_of(service, "bob")
    assert _bounded(service, caller, "bytes", 101) == "quota-exceeded"
    assert _bounded(service, caller, "bytes", 100) is None
    with service.database.write() as session:
        for owner in (caller.owner_id, other):
            session.add_all(
                [
                    File(
                        id=ids.new("file"),
                        owner_id=owner,
                        name="a",
                        media_type="text/csv",
                        bytes=40,
                        sha256="a" * 64,
                        created=now,
                    ),
                    Dataset(
                        id=ids.new("data"),
                        owner_id=owner,
                        name="d",
                        state="ready",
                        files=[],
                        options={},
                        bytes=30,
                        rows=9,
                        created=now,
                    ),
                    *(
                        Job(
                            id=ids.new("job"),
                            owner_id=owner,
                            kind="fit",
                            state=state,
                            request={},
                            created=now,
                        )
                        for state in ("running", "succeeded", "failed", "cancelled")
                    ),
                ]
            )
    with service.database.read() as session:
        assert used(session, caller.owner_id) == {"bytes": 70, "rows": 9, "jobs": 1, "models": 0}
    assert _bounded(service, caller, "bytes", 31) == "quota-exceeded"
    assert _bounded(service, caller, "bytes", 30) is None
    assert _bounded(service, caller, "jobs", 1) is None
    assert _bounded(service, caller, "jobs", 2) == "quota-exceeded"
    assert _bounded(service, caller, "rows", 10) is None
    assert _bounded(service, caller, "rows", 11) == "quota-exceeded"
    assert _bounded(service, caller, "models", 1) is None
    with service.database.write() as session:
        session.get_one(Owner, caller.owner_id).quotas = {"bytes": None, "rows": 11, "models": 0}
    assert _bounded(service, caller, "bytes", 10**15) is None
    assert _bounded(service, caller, "rows", 11) is None
    assert _bounded(service, caller, "models", 1) == "quota-exceeded"


def test_models_take_the_bytes_of_their_artefacts(database: Database) -> None:
    with database.write() as session:
        owner = new_owner(session, "maker")
        for size in (3_000_000_000, 7):
            session.add(
                Model(
                    id=ids.new("model"),
                    owner_id=owner.id,
                    name="m",
                    digest="a" * 64,
                    kind="text",
                    labels=["a", "b"],
                    strategy="probe",
                    fingerprint="f",
                    summary={"bytes": size},
                    created=time.time(),
                )
            )
    with database.read() as session:
        assert used(session, owner.id)["bytes"] == 3_000_000_007


def _job(owner: str, state: str) -> Job:
    return Job(id=ids.new("job"), owner_id=owner, kind="fit", state=state, request={}, created=time.time())


def _caller_of(service: Service, name: str) -> str:
    key_of(service, name)
    with service.database.read() as session:
        return session.scalars(select(Owner.id).where(Owner.name == name)).one()


def test_of_two_at_once_that_fit_alone_one_fits(service: Service) -> None:
    caller, start = _caller(service), threading.Barrier(2)

    def make(_: int) -> bool:
        start.wait()
        try:
            with service.database.write() as session:
                require(session, caller, replace(BOUNDS, jobs=1), "jobs", 1)
                time.sleep(0.2)
                session.add(_job(caller.owner_id, "queued"))
        except Problem:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(make, range(2))) == [False, True]


def test_an_owner_deleted_meanwhile_makes_nothing_more(service: Service) -> None:
    with pytest.raises(Problem) as caught, service.database.write() as session:
        require(session, Caller(ids.new("own"), "x", "write", None), BOUNDS, "jobs", 1)
    assert caught.value.status == 401


def test_what_was_counted_is_in_the_database_after_a_flush(service: Service) -> None:
    ann, bob = _caller(service).owner_id, _caller_of(service, "bob")
    for _ in range(2):
        service.meter.count(ann, "predictions", 3)
        service.meter.count(bob, "uploaded_bytes", 10)
        service.meter.count(ids.new("own"), "requests")  # deleted since
        with service.database.write() as session:
            counted_job(session, ann, 1.5)
        service.meter.flush()
        service.meter.flush()
    with service.database.read() as session:
        (found,) = session.scalars(select(Usage).where(Usage.owner_id == ann))
        assert (found.predictions, found.requests, found.jobs, found.job_seconds) == (6, 0, 2, 3.0)
        assert len(list(session.scalars(select(Usage)))) == 2


def test_what_could_not_be_written_is_written_later(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = _caller(service).owner_id
    service.meter.count(ann, "predictions", 3)
    with monkeypatch.context() as broken:
        broken.setattr(service.database, "write", None)
        with pytest.raises(TypeError):
            service.meter.flush()
    service.meter.count(ann, "predictions")
    service.meter.flush()
    with service.database.read() as session:
        assert session.scalars(select(Usage.predictions)).one() == 4


def test_usage_says_what_there_is_what_may_be_and_what_was(service: Service) -> None:
    with client_of(service, key_of(service)) as ann:
        ann.get("/v1/nothing")
        found = ann.get("/v1/usage").json()
        assert found["used"] == {"bytes": 0, "rows": 0, "jobs": 0, "models": 0}
        assert found["quotas"] == {"bytes": 100, "rows": 10, "jobs": 2, "requests": 5, "models": 1}
        assert [one["requests"] for one in found["days"]] == [2]
        other = _caller_of(service, "bob")
        problem_in(ann.get("/v1/usage", params={"owner": other}), 403)
    with client_of(service, key_of(service, "root", "admin")) as admin:
        assert admin.get("/v1/usage", params={"owner": other}).json()["name"] == "bob"
        problem_in(admin.get("/v1/usage", params={"owner": "own_none"}), 404)
