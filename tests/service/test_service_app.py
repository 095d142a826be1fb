"""The front of the service: what every request passes, and what every answer carries."""

import asyncio
import json
import logging
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import Request
from pydantic import BaseModel

from graftwork.service.app import create_app
from graftwork.service.bodies import Body, Held
from graftwork.service.context import Service
from graftwork.service.metrics import FIGURES
from graftwork.service.middleware import TURN_S
from graftwork.service.problems import Problem
from graftwork.service.settings import Limits
from graftwork.service.strict import DEPTH, loads
from graftwork.service.strict import router as strict_router
from graftwork.serving import Serving
from tiny_service import client_of, key_of, make_service, problem_in


class Said(BaseModel):
    label: str
    weight: float = 1.0


class Several(BaseModel):
    files: list[Said]


toys = strict_router("toys")


@toys.post("/toys")
def post_toys(several: Several) -> dict[str, Any]:
    return {"files": len(several.files)}


@toys.post("/toys/raw")
async def post_raw(request: Request) -> dict[str, int]:
    return {"bytes": sum([len(piece) async for piece in request.stream()])}


@toys.get("/toys/broken")
def get_broken() -> None:
    raise KeyError("a secret of ours")


@toys.get("/toys/turn")
def get_turn() -> float:
    return sys.getswitchinterval()


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return make_service(tmp_path, limits=Limits(body=1_000, upload=5_000))


@pytest.fixture
def client(service: Service) -> Iterator[Any]:
    with client_of(service, key_of(service), toys) as client:
        yield client


def test_every_answer_has_a_request_id_and_keeps_a_sensible_one(client: Any) -> None:
    assert client.get("/healthz", headers={"X-Request-Id": "mine-1"}).headers["x-request-id"] == "mine-1"
    for odd in ("a b", "x" * 65, "é".encode()):
        given = client.get("/healthz", headers={"X-Request-Id": odd}).headers["x-request-id"]
        assert given.isalnum() and len(given) == 16


def test_every_answer_has_the_headers_that_browsers_obey(client: Any) -> None:
    for path in ("/healthz", "/v1/usage", "/v1/nothing", "/v1/toys/broken", "/", "/sign-in", "/metrics"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff" and headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in headers
        if not headers["content-type"].startswith("application/"):
            assert headers["referrer-policy"] == "same-origin"
            assert "unsafe" not in headers["content-security-policy"]
            assert "frame-ancestors 'none'" in headers["content-security-policy"]


def test_bound_to_loopback_only_its_names_are_answered(service: Service, tmp_path: Path) -> None:
    with client_of(service) as client:
        for host in ("localhost:8000", "127.0.0.1", "[::1]:80", "LOCALHOST"):
            assert client.get("/healthz", headers={"Host": host}).status_code == 200
        for host in ("evil.example", "localhost.evil.example", "", "127.0.0.1.evil.example:80"):
            problem_in(client.get("/healthz", headers={"Host": host}), 421, "wrong-host")
    with client_of(make_service(tmp_path, host="0.0.0.0")) as client:
        assert client.get("/healthz", headers={"Host": "graft.example"}).status_code == 200


def test_draining_it_is_not_ready_and_answers_what_was_accepted(service: Service, client: Any) -> None:
    service.draining = True
    answer = client.get("/readyz")
    assert problem_in(answer, 503, "unavailable") and answer.headers["retry-after"]
    assert client.get("/healthz").status_code == client.get("/v1/usage").status_code == 200


def test_not_ready_without_workers_or_database(service: Service, client: Any) -> None:
    assert client.get("/readyz").status_code == 200
    service.workers = lambda: False
    assert "worker" in problem_in(client.get("/readyz"), 503)["detail"]
    service.workers = lambda: True
    service.database.url = "gone"
    service.database.close()
    for file in service.settings.home.iterdir():
        file.unlink()
    service.settings.home.rmdir()
    assert "database" in problem_in(client.get("/readyz"), 503)["detail"]


def test_an_unknown_error_is_a_problem_with_its_id_alone(
    client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "graftwork.service"):
        found = problem_in(client.get("/v1/toys/broken"), 500, "internal-error")
    assert "secret" not in str(found)
    assert found["request_id"] in caplog.text and "a secret of ours" in caplog.text


def test_a_body_larger_than_its_length_allows_is_413_before_it_is_read(client: Any) -> None:
    answer = client.post("/v1/toys/raw", content=b"x" * 1_001)
    problem_in(answer, 413, "content-too-large")
    assert client.post("/v1/toys/raw", content=b"x" * 1_000).json() == {"bytes": 1_000}


def test_bodies_that_lie_in_memory_are_bounded_together_and_let_go() -> None:
    held = Held(100)

    def body_of(*sizes: int) -> Body:
        said = iter([{"type": "http.request", "body": b"x" * n, "more_body": True} for n in sizes])

        async def receive() -> Any:
            return next(said)

        return Body(receive, 90, 1.0, held)

    first, second, third = body_of(60), body_of(60), body_of(60)
    asyncio.run(first())
    with pytest.raises(Problem) as caught:
        asyncio.run(second())
    assert (caught.value.status, caught.value.code) == (429, "queue-full")
    second.release()
    first.release()
    asyncio.run(third())
    assert held.bytes == 60


def test_requests_that_are_answered_hold_no_bodies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = make_service(tmp_path, limits=replace(Limits(), bodies=1_500))
    with client_of(service, key_of(service)) as ann:
        for _ in range(3):
            problem_in(ann.post("/v1/keys", json={"name": "k", "scope": "x" * 1_000}), 422)
        problem_in(ann.post("/v1/keys", json={"name": "k", "scope": "x" * 2_000}), 429, "queue-full")
        assert ann.post("/v1/files", content=bytes(2_000)).status_code == 201


def test_a_strangers_body_is_no_larger_than_a_form(tmp_path: Path) -> None:
    with client_of(make_service(tmp_path)) as stranger:
        problem_in(stranger.post("/sign-in", content=b"x" * 10_001), 413)
        assert stranger.post("/sign-in", data={"key": "x" * 5_000}).status_code == 403


def test_nul_names_nothing(client: Any) -> None:
    for path in ("/v1/usage?owner=%00", "/v1/jobs?dataset=a%00b", "/v1/keys/%00", "/%00"):
        assert "NUL" in problem_in(client.get(path), 404)["detail"]


def test_a_chunked_body_is_413_once_it_is_too_large(client: Any) -> None:
    def pieces() -> Iterator[bytes]:
        yield from (b"x" * 300 for _ in range(4))

    problem_in(client.post("/v1/toys/raw", content=pieces()), 413)
    problem_in(client.post("/v1/toys", content=pieces(), headers={"Content-Type": "application/json"}), 413)


@pytest.mark.parametrize("length", ["-1", "1e3", "", "0x10", "9" * 30, "1, 1"])
def test_a_length_that_is_none_is_400(client: Any, length: str) -> None:
    headers = {"Content-Length": length, "Content-Type": "application/json"}
    problem_in(client.post("/v1/toys", content=b"{}", headers=headers), 400)


def test_a_body_that_does_not_arrive_is_408() -> None:
    async def silent() -> Any:
        await asyncio.sleep(60)

    with pytest.raises(Problem) as caught:
        asyncio.run(Body(silent, 1_000, 0.02)())
    assert caught.value.status == 408 and caught.value.headers["Connection"] == "close"


def test_a_body_that_arrives_byte_by_byte_is_408(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("graftwork.service.bodies.time.monotonic", lambda: now)

    async def dripping() -> Any:
        nonlocal now
        now += 1.0
        await asyncio.sleep(0)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def read() -> None:
        body = Body(dripping, 1_000_000, 60.0)
        for _ in range(1_000):
            await body()

    with pytest.raises(Problem, match="fewer than"):
        asyncio.run(read())
    assert 60 <= now < 65


def test_waiting_for_the_client_to_leave_is_not_bounded() -> None:
    async def arriving() -> AsyncIterator[Any]:
        yield {"type": "http.request", "body": b"x", "more_body": False}
        await asyncio.sleep(0.1)
        yield {"type": "http.disconnect"}

    async def read() -> list[Any]:
        messages = arriving()
        body = Body(lambda: anext(messages), 1_000, 0.01)
        return [await body(), await body()]

    assert asyncio.run(read())[1]["type"] == "http.disconnect"


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"\xff\xfe{\x00}\x00",
        b'\xef\xbb\xbf{"a": 1}',
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": "\\u0000"}',
        b'{"a": "\\ud800"}',
        b'{"\\udfff": 1}',
        b'{"a": ' + b"9" * 5_000 + b"}",
        b"[" * 33 + b"]" * 33,
        b'{"a":' * 33 + b"1" + b"}" * 33,
        b"[" * 900 + b"]" * 900,
        b"[" * 500_000,
        b"[" + b"1," * 200_000 + b"1]",
        b"[" + b"{}," * 200_000 + b"{}]",
        b"[" + b'"",' * 900_000 + b'""]',
    ],
    ids=lambda body: f"{bytes(body[:20])!r} of {len(body)}",
)
def test_what_is_no_plain_json_is_400(body: bytes) -> None:
    with pytest.raises(Problem) as caught:
        loads(body)
    assert (caught.value.status, caught.value.code) == (400, "invalid-json")


def test_plain_json_is_what_it_says() -> None:
    deep = "[" * DEPTH + "1" + "]" * DEPTH
    assert str(loads(deep.encode())).replace(" ", "") == deep
    assert loads('{"字": ["\\u00e9", "\\ud83d\\ude00", 1e3, -0.5, null, true]}'.encode()) == {
        "字": ["é", "😀", 1000.0, -0.5, None, True]
    }


def test_texts_in_json_may_hold_as_many_marks_as_they_like() -> None:
    said = ['a, [b], "c", {d} \\' * 100_000, ","]
    assert loads(json.dumps(said).encode()) == said


def test_json_routes_read_strictly_and_take_nothing_else(client: Any) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/jsonx", None):
        headers = {} if kind is None else {"Content-Type": kind}
        problem_in(client.post("/v1/toys", content=b'{"files": []}', headers=headers), 415)
    json = {"Content-Type": "application/json; charset=utf-8"}
    problem_in(client.post("/v1/toys", content=b'{"files": NaN}', headers=json), 400, "invalid-json")
    assert client.post("/v1/toys", content=b'{"files": []}', headers=json).json() == {"files": 0}


def test_the_document_tells_of_problems_and_of_keys_on_every_route(service: Service) -> None:
    document = create_app(service).openapi()
    problem = {"schema": {"$ref": "#/components/schemas/Problem"}}
    assert set(document["components"]["securitySchemes"]) == {"key", "page"}
    for path, routes in document["paths"].items():
        for route in routes.values():
            assert route["responses"]["default"]["content"] == {"application/problem+json": problem}
            assert ("security" in route) == (path in ("/healthz", "/readyz"))
    assert document["security"]


def test_predictions_go_past_the_router_and_are_guarded_and_counted_all_the_same(
    service: Service, client: Any
) -> None:
    problem_in(client.post("/v1/predict", content=b"x" * 1_001), 413)
    problem_in(client.post("/v1/predict", json={"model": "none", "inputs": ["x"]}), 404, "not-found")
    json = {"Content-Type": "application/json"}
    problem_in(client.post("/v1/predict", content=b'{"model": NaN}', headers=json), 400, "invalid-json")
    answer = client.get("/v1/predict")
    assert problem_in(answer, 405) and answer.headers["allow"] == "POST"
    assert b'route="/v1/predict",status="404"' in service.metrics.text()


@pytest.mark.parametrize("path", ["models/none", "datasets/data_none", "jobs/job_none", "files/file_none"])
def test_what_is_not_there_is_told_with_the_list_of_what_is(client: Any, path: str) -> None:
    told = problem_in(client.get(f"/v1/{path}"), 404, "not-found")["detail"]
    assert client.get(told.rpartition(" ")[2]).status_code == 200


def test_what_is_no_prediction_lets_predictions_through_in_short_turns(client: Any) -> None:
    usual = sys.getswitchinterval()
    assert client.get("/v1/toys/turn").json() == pytest.approx(TURN_S)
    assert client.get("/v1/toys/broken").status_code == 500
    assert sys.getswitchinterval() == usual


def test_the_document_is_shown_to_whoever_has_a_key(service: Service, client: Any) -> None:
    assert client.get("/openapi.json").json()["openapi"].startswith("3.1")
    with client_of(service) as stranger:
        problem_in(stranger.get("/openapi.json"), 401)


def test_metrics_count_requests_by_route_and_are_the_admins(service: Service, client: Any) -> None:
    client.get("/v1/usage")
    client.get("/v1/nothing-of-ours")
    problem_in(client.get("/metrics"), 403)
    with client_of(service, key_of(service, "root", "admin")) as admin:
        found = admin.get("/metrics").text
    assert 'graftwork_request_seconds_count{method="GET",route="/v1/usage",status="200"} 1.0' in found
    assert 'route="none",status="404"' in found and "nothing-of-ours" not in found
    assert "graftwork_inputs 0.0" in found and "graftwork_refused_total 2.0" in found
    assert 'graftwork_jobs{state="queued"} 0.0' in found  # nobody can watch what is not there
    assert "process_resident_memory_bytes " in found
    kinds = [line for line in found.splitlines() if line.startswith("# TYPE ")]
    assert len(kinds) == len(set(kinds))  # else a strict reader refuses them all


def test_each_figure_of_serving_is_told_with_what_it_means() -> None:
    limits = {"reading_bytes": 1, "reading_seconds": 1.0}
    with closing(Serving(head_memory=1, backbone_memory=1, readers=1, **limits)) as serving:
        assert serving.figures().keys() <= FIGURES.keys()


def test_behind_a_proxy_its_name_is_answered_as_well(tmp_path: Path) -> None:
    with client_of(make_service(tmp_path, address="https://graft.example/")) as client:
        assert client.get("/healthz", headers={"Host": "graft.example"}).status_code == 200
        problem_in(client.get("/healthz", headers={"Host": "other.example"}), 421)
