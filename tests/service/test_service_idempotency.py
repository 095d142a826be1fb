"""Creates asked twice: done once, answered alike, on each kind of database."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi import Request
from fastapi.responses import JSONResponse
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from graftwork.service import idempotency
from graftwork.service.context import Service
from graftwork.service.database import Database
from graftwork.service.database.tables import Answered, Owner
from graftwork.service.idempotency import Created, IdempotencyKey, once
from graftwork.service.problems import Problem
from graftwork.service.security import new_owner
from graftwork.service.strict import router as strict_router
from tiny_service import client_of, key_of, make_service, problem_in

things = strict_router("things")


@things.post("/things")
@things.post("/others")
def post_things(request: Request, asked: dict[str, Any], key: IdempotencyKey = None) -> JSONResponse:
    def make(session: Session) -> Created:
        owner = new_owner(session, f"{asked['name']}-{time.time_ns()}")
        if asked.get("broken"):
            raise Problem(409, "conflict", "not so")
        time.sleep(asked.get("seconds", 0))
        return Created({"id": owner.id}, 202, {"Location": f"/v1/things/{owner.id}"}, shown={"secret": "s3"})

    return once(request, asked, make)


@pytest.fixture
def service(database: Database, tmp_path: Path) -> Service:
    return make_service(tmp_path / "s", database=database)


def _made(service: Service) -> int:
    with service.database.read() as session:
        return session.scalar(select(func.count()).where(Owner.name.like("thing-%"))) or 0


def _post(client: Any, asked: dict[str, Any], key: str | None = "k", path: str = "/v1/things") -> Any:
    return client.post(path, json=asked, headers={} if key is None else {"Idempotency-Key": key})


def test_the_same_request_again_creates_nothing_and_hears_the_same(service: Service) -> None:
    with client_of(service, key_of(service), things) as client:
        first, second = (_post(client, {"name": "thing"}) for _ in range(2))
        assert first.status_code == second.status_code == 202
        assert first.headers["location"] == second.headers["location"]
        assert first.json() == {**second.json(), "secret": "s3"} and "secret" not in second.json()
        assert second.headers["idempotency-replayed"] == "true"
        assert _made(service) == 1
        for _ in range(2):
            _post(client, {"name": "thing"}, key=None)
        assert _made(service) == 3


def test_a_key_used_for_another_payload_or_route_is_422(service: Service) -> None:
    with client_of(service, key_of(service), things) as client:
        _post(client, {"name": "thing"})
        problem_in(_post(client, {"name": "thing", "more": 1}), 422, "idempotency-key-reused")
        problem_in(_post(client, {"name": "thing"}, path="/v1/others"), 422, "idempotency-key-reused")
        assert _made(service) == 1


def test_a_key_belongs_to_its_owner(service: Service) -> None:
    ids = set()
    for owner in ("ann", "bob"):
        with client_of(service, key_of(service, owner), things) as client:
            ids.add(_post(client, {"name": "thing"}).json()["id"])
    assert len(ids) == 2


def test_a_refused_create_leaves_nothing_and_its_key_free(service: Service) -> None:
    with client_of(service, key_of(service), things) as client:
        problem_in(_post(client, {"name": "thing", "broken": True}), 409)
        assert _made(service) == 0
        assert _post(client, {"name": "thing"}).status_code == 202


@pytest.mark.parametrize("key", ["", "x" * 256, "é".encode(), b"a\tb"])
def test_a_key_of_wrong_form_is_422(service: Service, key: Any) -> None:
    with client_of(service, key_of(service), things) as client:
        found = problem_in(_post(client, {"name": "thing"}, key), 422)
        assert found["errors"][0]["pointer"] == "header:Idempotency-Key"
        assert _post(client, {"name": "thing"}, "x" * 255).status_code == 202


def test_of_many_at_once_one_creates_and_all_hear_of_it(service: Service) -> None:
    start = threading.Barrier(6)
    with client_of(service, key_of(service), things) as client:
        client.get("/v1/usage")

        def ask(_: int) -> Any:
            start.wait()
            return _post(client, {"name": "thing", "seconds": 0.05})

        with ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(ask, range(6)))
    assert {one.status_code for one in answers} == {202}
    assert len({one.json()["id"] for one in answers}) == 1 and _made(service) == 1


def test_an_answer_is_kept_for_a_day_and_more_and_then_forgotten(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    with client_of(service, key_of(service), things) as client:
        first = _post(client, {"name": "thing"}).json()["id"]
        monkeypatch.setattr("graftwork.service.idempotency.time.time", lambda: now + 25 * 3600)
        idempotency.sweep(service.database)
        assert _post(client, {"name": "thing"}).json()["id"] == first
        monkeypatch.setattr("graftwork.service.idempotency.time.time", lambda: now + 49 * 3600)
        assert _post(client, {"name": "other"}).json()["id"] != first
        monkeypatch.setattr("graftwork.service.idempotency.time.time", lambda: now + 99 * 3600)
        idempotency.sweep(service.database)
    with service.database.read() as session:
        assert session.scalar(select(func.count()).select_from(Answered)) == 0
