"""Events of jobs: pages, streams that can be taken up, and listeners that cost neither thread nor session."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import event

from graftwork.service.context import Service
from graftwork.service.erasing import erase
from graftwork.service.jobs import queue
from graftwork.service.routes import jobs
from graftwork.service.security import close_session, digest, open_session
from graftwork.service.shapes import Events
from graftwork.service.watching import Watch
from tiny_listening import listening
from tiny_models import caller_of
from tiny_service import client_of, key_of, make_service, problem_in

PATIENCE_S = 120.0
STREAM = {"Accept": "text/event-stream"}


@pytest.fixture
def service(tmp_path: Path) -> Service:
    made = make_service(tmp_path)
    key_of(made, "ann")
    return made


@pytest.fixture
def ann(service: Service) -> Iterator[Any]:
    with client_of(service, key_of(service)) as client:
        yield client


@pytest.fixture
def job(service: Service) -> Any:
    """A job that runs, with three events: queued, running, progress."""
    with service.database.write() as session:
        queue.enqueue(session, caller_of(service).owner_id, "rank", {})
    claimed = queue.claim(service.database, "worker", 60)
    assert claimed is not None
    queue.tell(service.database, claimed.id, claimed.attempt, "progress", {"done": 1, "note": "a\nb"})
    return claimed


def end(service: Service, job: Any) -> None:
    queue.finish(service.database, job.id, job.attempt, result={})


def read(text: str) -> list[dict[str, Any]]:
    """The events of a stream; asserts that each says its number and kind twice."""
    found = []
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "data" in lines:
            said = json.loads(lines["data"])
            assert lines["id"] == str(said["seq"]) and lines["event"] == said["kind"]
            found.append(said)
    return found


def stream_of(
    service: Service, job: Any, watch: Watch | None = None, owner: str = "ann"
) -> AsyncIterator[str]:
    """What a new key of the owner's hears after the third event."""
    hashed = digest(key_of(service, owner))
    return jobs._stream(service, watch or Watch(service.database), job.id, 3, hashed)


async def gathered(stream: AsyncIterator[str], count: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    async for text in stream:
        found += read(text)
        if len(found) >= count:
            break
    return found


def test_events_come_in_pages(service: Service, ann: Any, job: Any) -> None:
    first = ann.get(f"/v1/jobs/{job.id}/events", params={"limit": 2}).json()
    Events.model_validate(first)
    assert [one["seq"] for one in first["items"]] == [1, 2] and first["next_after"] == 2
    second = ann.get(f"/v1/jobs/{job.id}/events", params={"after": 2}).json()
    assert second["items"][0]["data"] == {"done": 1, "note": "a\nb"} and second["is_terminal"] is False
    end(service, job)
    last = ann.get(f"/v1/jobs/{job.id}/events", params={"after": 3}).json()
    assert last["items"][-1]["data"]["state"] == "succeeded" and last["is_terminal"] is True
    one = ann.get(f"/v1/jobs/{job.id}/events", params={"after": 3, "limit": 1}).json()
    assert one["next_after"] == 4
    for said in ({"after": -1}, {"limit": 0}, {"limit": 10_000}):
        problem_in(ann.get(f"/v1/jobs/{job.id}/events", params=said), 422)


def test_a_stream_ends_after_the_last_state(service: Service, ann: Any, job: Any) -> None:
    end(service, job)
    answer = ann.get(f"/v1/jobs/{job.id}/events", headers=STREAM)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    assert [one["seq"] for one in read(answer.text)] == [1, 2, 3, 4]


def test_a_stream_is_taken_up_after_the_last_event_that_came(service: Service, ann: Any, job: Any) -> None:
    end(service, job)
    answer = ann.get(f"/v1/jobs/{job.id}/events", headers={**STREAM, "Last-Event-ID": "2"})
    assert [one["seq"] for one in read(answer.text)] == [3, 4]
    # an EventSource asks again for ever, unless it is told that nothing will come
    assert ann.get(f"/v1/jobs/{job.id}/events", headers={**STREAM, "Last-Event-ID": "4"}).status_code == 204
    odd = ann.get(f"/v1/jobs/{job.id}/events", headers={**STREAM, "Last-Event-ID": "x'--"})
    assert [one["seq"] for one in read(odd.text)] == [1, 2, 3, 4]


def test_many_listeners_hear_what_happens_while_they_listen(service: Service, job: Any) -> None:
    async def listen() -> list[list[dict[str, Any]]]:
        watch = Watch(service.database)
        listeners = [asyncio.create_task(gathered(stream_of(service, job, watch), 2)) for _ in range(100)]
        await asyncio.sleep(0.05)
        await asyncio.to_thread(queue.tell, service.database, job.id, job.attempt, "remark", {"note": "x"})
        await asyncio.to_thread(end, service, job)
        return await asyncio.wait_for(asyncio.gather(*listeners), PATIENCE_S)

    heard = asyncio.run(listen())
    assert all([one["seq"] for one in found] == [4, 5] for found in heard)


def test_who_waits_is_woken_by_the_event_and_not_by_the_clock(service: Service, job: Any) -> None:
    async def listen() -> bool:
        task = asyncio.create_task(Watch(service.database).newer(job.id, 3, 3_600))
        await asyncio.sleep(0.05)
        await asyncio.to_thread(end, service, job)
        return await asyncio.wait_for(task, PATIENCE_S)

    assert asyncio.run(listen())


def test_waiting_listeners_share_one_look_and_hold_no_connection(service: Service, job: Any) -> None:
    async def listen() -> tuple[int, int]:
        watch = Watch(service.database)
        tasks = [asyncio.create_task(watch.newer(job.id, 3, 0.9)) for _ in range(200)]
        await asyncio.sleep(0)
        looks: list[Any] = []
        event.listen(service.database.engine, "checkout", lambda *said: looks.append(said))
        assert not any(await asyncio.gather(*tasks))
        return len(looks), service.database.engine.pool.checkedout()  # type: ignore[attr-defined]

    looks, held = asyncio.run(listen())
    assert 1 <= looks <= 10 and held == 0


def test_a_stream_ends_when_the_server_does_and_when_its_job_goes(service: Service, job: Any) -> None:
    async def listen(change: Any) -> list[str]:
        stream = stream_of(service, job)
        heard: list[str] = []

        async def collect() -> None:
            async for text in stream:
                heard.append(text)

        task = asyncio.create_task(collect())
        await asyncio.sleep(0.1)
        await asyncio.to_thread(change)
        await asyncio.wait_for(task, PATIENCE_S)
        return heard

    def drain() -> None:
        service.draining = True

    assert asyncio.run(listen(drain))[-1].startswith(": ")
    service.draining = False

    def delete() -> None:
        from sqlalchemy import delete as deletion

        from graftwork.service.database.tables import Event, Job

        with service.database.write() as session:
            session.execute(deletion(Event))
            session.execute(deletion(Job))

    assert len(asyncio.run(listen(delete))) == 1


def test_a_stream_ends_with_the_key_the_session_or_the_owner_that_opened_it(
    service: Service, ann: Any, job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "BEAT_S", 3600.0)  # one that does not end is silent, and read in vain

    def revoke(headers: dict[str, str]) -> None:
        mine = next(one for one in ann.get("/v1/keys").json()["items"] if one["name"] == "to be revoked")
        assert ann.delete(f"/v1/keys/{mine['id']}").status_code == 204

    def sign_out(headers: dict[str, str]) -> None:
        session = headers["Cookie"].partition("=")[2]
        close_session(service.database, session)
        service.passes.forget(hash=digest(session))

    def delete_owner(headers: dict[str, str]) -> None:
        erase(service, caller_of(service).owner_id, owner_too=True)

    made = ann.post("/v1/keys", json={"name": "to be revoked", "scope": "predict"}).json()["key"]
    session = open_session(service.database, key_of(service))
    for headers, over in (
        ({"Authorization": f"Bearer {made}"}, revoke),
        ({"Cookie": f"graftwork={session}"}, sign_out),
        ({"Authorization": f"Bearer {key_of(service)}"}, delete_owner),
    ):
        with (
            listening(service) as url,
            httpx.Client(base_url=url, headers={**headers, **STREAM}, timeout=60) as client,
            client.stream("GET", f"/v1/jobs/{job.id}/events") as stream,
        ):
            lines = stream.iter_lines()
            assert next(lines).startswith("retry")
            over(headers)
            assert not any("ending" in line for line in lines)  # it ends: nobody else has ended anything


def test_one_owner_holds_so_many_streams_and_no_more(
    service: Service, ann: Any, job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "STREAMS", 1)
    with (
        listening(service) as url,
        httpx.Client(base_url=url, headers=dict(ann.headers), timeout=PATIENCE_S) as client,
    ):
        path = f"/v1/jobs/{job.id}/events"
        with client.stream("GET", path, headers=STREAM) as first:
            lines = first.iter_lines()  # kept: the connection closes with it
            assert next(lines).startswith("retry")
            refused = client.get(path, headers=STREAM)
            assert refused.status_code == 429 and refused.json()["code"] == "rate-limited"
            assert client.get(path).status_code == 200
        end(service, job)
        until = time.monotonic() + PATIENCE_S
        while (answer := client.get(path, headers=STREAM)).status_code == 429:
            assert time.monotonic() < until  # the first is closed once the server has seen it go
            time.sleep(0.05)
        assert [one["seq"] for one in read(answer.text)] == [1, 2, 3, 4]


def test_a_silent_stream_says_that_it_lives(
    service: Service, job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "BEAT_S", 0.0)
    monkeypatch.setattr(jobs, "TICK_S", 0.01)

    async def listen() -> str:
        stream = stream_of(service, job)
        assert (await anext(stream)).startswith("retry: ")
        return await asyncio.wait_for(anext(stream), PATIENCE_S)

    assert asyncio.run(listen()).startswith(":")
