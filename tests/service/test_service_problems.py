"""Every failure is a problem: what each error of the domain, the framework and the system becomes."""

import errno
import json
import sqlite3
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydantic import BaseModel, Field
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException

from graftwork.errors import ArtefactError, Busy, RequestError, WorkError
from graftwork.service.answers import problem_of, respond
from graftwork.service.problems import Pointer, Problem, bad_request, not_found
from graftwork.service.strict import router as strict_router
from tiny_service import client_of, key_of, make_service, problem_in


def _full() -> WorkError:
    error = WorkError("the store cannot be written")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    return error


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (RequestError("no label in column 'x'"), 422, "invalid-request"),
        (ArtefactError("damaged"), 422, "invalid-request"),
        (Busy("the queue is full", 3.0), 429, "queue-full"),
        (OSError(errno.ENOSPC, "No space left on device"), 507, "out-of-space"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), 507, "out-of-space"),
        (_full(), 507, "out-of-space"),
        (OperationalError("", {}, Exception("database or disk is full")), 507, "out-of-space"),
        (OperationalError("", {}, sqlite3.OperationalError("database is locked")), 503, "unavailable"),
        (OperationalError("", {}, psycopg.OperationalError("Connection refused")), 503, "unavailable"),
        (PoolTimeout("all connections are in use"), 503, "unavailable"),
        (HTTPException(405, headers={"Allow": "GET"}), 405, "method-not-allowed"),
        (HTTPException(404), 404, "not-found"),
        (not_found("model", "m"), 404, "not-found"),
    ],
)
def test_each_error_has_its_status_and_code(error: Exception, status: int, code: str) -> None:
    found = problem_of(error)
    assert found is not None and (found.status, found.code) == (status, code)


@pytest.mark.parametrize(
    "error",
    [
        KeyError("x"),
        WorkError("interrupted"),
        OSError(errno.EIO, "x"),
        OperationalError("", {}, sqlite3.OperationalError("no such table: jobs")),
    ],
)
def test_our_slips_are_no_problem_of_the_caller(error: Exception) -> None:
    assert problem_of(error) is None


def test_waiting_is_said_in_seconds() -> None:
    found = problem_of(Busy("full", 0.2))
    assert found is not None and found.headers == {"Retry-After": "1"}


def test_a_problem_raised_while_a_body_was_read_is_itself() -> None:
    wrapped = HTTPException(400)
    wrapped.__cause__ = Problem(413, "content-too-large", "too large")
    assert problem_of(wrapped) is wrapped.__cause__


def test_a_problem_quotes_whatever_was_sent() -> None:
    answer = respond(bad_request("odd: \ud800 票", Pointer("/a", "\0")), "id")
    body = bytes(answer.body)
    assert "票".encode() in body and rb"\ud800" in body and rb"\u0000" in body
    assert json.loads(body)["detail"] == "odd: \ud800 票"


class Row(BaseModel):
    label: str
    weight: float = Field(1.0, gt=0)


class Rows(BaseModel):
    files: list[Row]
    options: dict[str, int] = {}


rows = strict_router("rows")


@rows.post("/rows/{number}")
def post_rows(number: int, rows: Rows, limit: int = 1) -> None:
    pass


@pytest.fixture
def client(tmp_path: Path) -> Any:
    service = make_service(tmp_path)
    with client_of(service, key_of(service), rows) as client:
        yield client


def test_pointers_name_the_fields_at_fault(client: Any) -> None:
    body = {"files": [{"weight": -1}], "options": {"a/b~c": "x"}}
    found = problem_in(client.post("/v1/rows/1?limit=many", json=body), 422, "invalid-request")
    assert {one["pointer"] for one in found["errors"]} == {
        "?limit",
        "/files/0/label",
        "/files/0/weight",
        "/options/a~1b~0c",
    }
    assert all(one["detail"] for one in found["errors"])


def test_a_thousand_faults_are_told_by_the_first_hundred(client: Any) -> None:
    found = problem_in(client.post("/v1/rows/1", json={"files": [{}] * 1_000}), 422)
    assert len(found["errors"]) == 100 and len(found["detail"]) < 700


def test_a_path_of_wrong_form_is_404_and_a_wrong_method_405(client: Any) -> None:
    problem_in(client.post("/v1/rows/one", json={"files": []}), 404, "not-found")
    for path, allowed in (("/v1/rows/1", "POST"), ("/v1/keys/x", "DELETE, GET"), ("/sign-out", "POST")):
        answer = client.put(path)
        problem_in(answer, 405, "method-not-allowed")
        assert answer.headers["allow"] == allowed


def test_a_missing_body_is_told_of(client: Any) -> None:
    found = problem_in(client.post("/v1/rows/1"), 422)
    assert found["errors"][0]["pointer"] == ""


def test_places_of_this_machine_are_no_strangers_business() -> None:
    def told(detail: str) -> str:
        return respond(Problem(409, "conflict", detail), "id").body.decode()

    root = Path(__file__).parent
    for place in (str(root / "tickets.graft"), f"{root}/tickets.graft/", f"file://{root}/tickets.graft"):
        said = told(f"the source of '{place}' ({place}) is gone: {place}; bring it back")
        assert str(root) not in said and "'tickets.graft' (tickets.graft)" in said.replace("file://", "")
    for plain in (
        "see /openapi.json; POST /v1/files",
        "/files/0/label: is missing",
        "and/or 1/2, a//b, 3 / 4",
    ):
        assert plain in told(plain)
