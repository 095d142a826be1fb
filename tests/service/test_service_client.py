"""graftwork.Client over real connections: the verbs, the errors, and trying again without doing twice."""

import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import graftwork
import toys
from graftwork.client import Client, Event, Refused
from graftwork.errors import Busy, GraftworkError, RequestError, WorkError
from graftwork.service.context import Service
from graftwork.service.database import tables
from graftwork.service.jobs import queue
from tiny_listening import listening
from tiny_models import LABELS, add_model, caller_of, service_with_models, toy_artefact
from tiny_service import key_of

TABLE = b"text,label\na,x\nb,y\n"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, str]]:
    """One service for all tests of the module; each test is an owner of its own."""
    service = service_with_models(tmp_path_factory.mktemp("root"))
    with listening(service) as url:
        yield service, url


@pytest.fixture
def service(served: tuple[Service, str]) -> Service:
    return served[0]


@pytest.fixture
def owner(request: pytest.FixtureRequest) -> str:
    return str(request.node.name)[:90]


@pytest.fixture
def client(served: tuple[Service, str], owner: str) -> Iterator[Client]:
    service, url = served
    with graftwork.Client(url, key_of(service, owner), patience=60) as made:
        yield made


@pytest.fixture
def tickets(service: Service, client: Client, owner: str) -> str:
    add_model(service, caller_of(service, owner).owner_id, "tickets")
    return "tickets"


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    made = [tmp_path / name for name in ("a.jpg", "b.jpg")]
    for path in made:
        path.write_bytes(b"\xff\xd8\xff" + path.name.encode())
    return made


def inspecting(service: Service, problem: dict[str, str] | None = None) -> threading.Thread:
    """A worker that inspects one dataset, in the background."""

    def work() -> None:
        while (job := queue.claim(service.database, "worker", 600)) is None:
            time.sleep(0.01)  # whoever asks for the job has to come between

        def also(session: Any) -> None:
            row = session.get(tables.Dataset, job.dataset_id)
            row.state, row.problem = ("ready", None) if problem is None else ("refused", problem)
            row.kind, row.rows = "text", 2

        queue.tell(service.database, job.id, job.attempt, "progress", {"done": 1})
        queue.finish(service.database, job.id, job.attempt, problem=problem, also=also)

    thread = threading.Thread(target=work, daemon=True)  # a test that fails asks for no job
    thread.start()
    return thread


def test_texts_are_answered_in_order(client: Client, tickets: str) -> None:
    answers = client.predict(tickets, ["hello", "you", "x" * 200], top=1)
    assert [one.input[:5] for one in answers] == ["hello", "you", "xxxxx"]
    assert answers[0].label in LABELS and len(answers[0].probabilities) == 1
    assert [one.unknown for one in answers] == [False, False, True]


def test_one_model_of_pictures_answers_for_several_files(
    service: Service, client: Client, owner: str, photos: list[Path]
) -> None:
    add_model(service, caller_of(service, owner).owner_id, "flowers", kind="image")
    for inputs in (photos, [str(path) for path in photos], photos[:1]):
        answers = client.predict("flowers", inputs)
        assert [one.input for one in answers] == ["a.jpg", "b.jpg"][: len(inputs)]
        assert all(one.label in LABELS for one in answers)
    (one,) = client.predict("flowers", [photos[0].read_bytes()])
    assert one.label in LABELS
    with pytest.raises(RequestError, match=r"gone\.jpg cannot be read"):
        client.predict("flowers", ["gone.jpg"])


def test_several_models_answer_by_name(service: Service, client: Client, owner: str, tickets: str) -> None:
    add_model(service, caller_of(service, owner).owner_id, "more", seed=1)
    found = client.predict(["tickets", "more"], ["hello", b"you"])
    assert list(found) == ["tickets", "more"] and all(len(answers) == 2 for answers in found.values())


def test_more_inputs_than_a_request_holds_are_asked_in_several(client: Client, tickets: str) -> None:
    answers = client.predict(tickets, [f"{i}" for i in range(450)])
    assert [one.input for one in answers] == [f"{i}" for i in range(450)]


def test_an_unreadable_input_has_its_reason_alone_or_among_others(client: Client, tickets: str) -> None:
    (alone,) = client.predict(tickets, ["broken"])
    assert alone.label is None and "is no picture" in (alone.error or "")
    first, second = client.predict(tickets, ["fine", "broken"])
    assert first.error is None and second.error == "is no picture"


def test_an_input_that_is_none_is_said(client: Client, tickets: str) -> None:
    with pytest.raises(RequestError, match="an input of type int seen"):
        client.predict(tickets, [7])  # type: ignore[list-item]


def test_one_input_without_brackets_is_said(client: Client) -> None:
    with pytest.raises(RequestError, match="put it in brackets"):
        client.predict("tickets", "hello")


def test_a_problem_is_an_error_with_its_code_and_detail(client: Client, tickets: str) -> None:
    with pytest.raises(Refused, match="no model 'tickest' here") as caught:
        client.predict("tickest", [b"hello"])
    assert caught.value.code == "not-found" and caught.value.status == 404 and caught.value.request_id
    assert isinstance(caught.value, RequestError)


def test_a_dataset_is_made_of_a_table_and_waited_for(
    service: Service, client: Client, tmp_path: Path
) -> None:
    (tmp_path / "tickets.csv").write_bytes(TABLE)
    worker = inspecting(service)
    data = client.dataset(tmp_path / "tickets.csv", label="label")
    worker.join()
    assert (data.name, data.state, data.kind, data.rows) == ("tickets", "ready", "text", 2)
    assert [one.id for one in client.datasets()] == [data.id]
    (file,) = client.files()
    assert file.bytes == len(TABLE) and file.media_type == "text/csv"
    data.correct("x", text="c")
    assert client.get_dataset(data.id).corrections == 1
    data.delete()
    assert list(client.datasets()) == []


def test_a_refused_dataset_says_why(service: Service, client: Client, tmp_path: Path) -> None:
    (tmp_path / "tickets.csv").write_bytes(TABLE)
    worker = inspecting(service, {"code": "invalid-data", "detail": "one class seen; expected two"})
    with pytest.raises(RequestError, match="one class seen"):
        client.dataset(tmp_path / "tickets.csv")
    worker.join()


def test_a_folder_goes_as_one_zip_and_pairs_as_files_with_labels(
    client: Client, photos: list[Path], tmp_path: Path
) -> None:
    data = client.dataset(tmp_path, wait=False)
    assert data.state == "inspecting" and data.name == tmp_path.name
    (file,) = client.files()
    assert file.name == f"{tmp_path.name}.zip" and file.bytes > sum(path.stat().st_size for path in photos)
    pairs = client.dataset([(photos[0], "x"), (photos[1], "y")], name="pets", wait=False)
    assert pairs.name == "pets" and len(list(client.files())) == 3
    for job in client.jobs():
        assert job.cancel().state == "cancelled"


def test_a_job_is_listened_to_until_it_ends(service: Service, client: Client, tmp_path: Path) -> None:
    (tmp_path / "tickets.csv").write_bytes(TABLE)
    data = client.dataset(tmp_path / "tickets.csv", wait=False)
    assert data.job is not None
    heard: list[Event] = []
    worker: list[threading.Thread] = []

    def notify(event: Event) -> None:
        heard.append(event)
        if not worker:  # the worker begins once we listen
            worker.append(inspecting(service))

    ended = client.job(data.job).wait(notify)
    worker[0].join()
    assert ended.state == "succeeded" and [one.seq for one in heard] == [1, 2, 3, 4]
    assert [one.kind for one in heard] == ["state", "state", "progress", "state"]


def test_data_that_cannot_be_used_are_a_wrong_request(
    service: Service, client: Client, tmp_path: Path
) -> None:
    (tmp_path / "tickets.csv").write_bytes(TABLE)
    worker = inspecting(service, {"code": "columns-unclear", "detail": "which is the label?"})
    with pytest.raises(RequestError, match="which is the label") as caught:
        client.dataset(tmp_path / "tickets.csv")
    worker.join()
    assert caught.value.code == "columns-unclear"


def test_a_fit_says_what_the_api_is_told(service: Service, client: Client, tmp_path: Path) -> None:
    (tmp_path / "tickets.csv").write_bytes(TABLE)
    worker = inspecting(service)
    data = client.dataset(tmp_path / "tickets.csv")
    worker.join()
    job = client.fit(data, strategy="mlp", budget="5m", settings={"width": 8}, name="mail")
    assert job.kind == "fit" and job.state == "queued" and job.dataset == data.id
    assert client.rank(data.id, sources=["minilm"]).kind == "rank"
    with pytest.raises(RequestError, match="no strategy 'porbe'"):
        client.fit(data, strategy="porbe")
    assert job.cancel().state == "cancelled"
    with pytest.raises(WorkError, match="cancelled"):
        job.wait()
    for one in client.jobs():
        one.cancel()


def test_a_model_is_downloaded_as_what_can_be_loaded(
    client: Client, tickets: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toys.register(monkeypatch)
    (model,) = client.models()
    assert model.name == tickets and list(model.labels) == list(LABELS)
    folder = model.download(tmp_path / "here")
    assert folder == tmp_path / "here" / "tickets.graft"
    assert graftwork.Model.load(folder).labels == LABELS
    assert model.predict(["hello"])[0].label in LABELS
    with pytest.raises(RequestError, match=r"tickets\.graft is there already"):
        model.download(tmp_path / "here")
    assert [one.name for one in (tmp_path / "here").iterdir()] == ["tickets.graft"]
    with pytest.raises(RequestError, match="no model"):
        client.download("other", tmp_path)
    model.delete()
    assert list(client.models()) == []
    with pytest.raises(RequestError, match="no model"):
        client.model(tickets)


def test_a_model_in_a_folder_is_downloaded_by_its_name(
    served: tuple[Service, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toys.register(monkeypatch)
    service, url = served
    shutil.copytree(toy_artefact(tmp_path / "made"), service.settings.root / "team" / "ours.graft")
    service.models._looked = service.models._shelf._looked = float("-inf")  # a second has passed
    with Client(url, key_of(service, tables.OPERATOR), patience=60) as client:
        folder = client.download("team/ours", tmp_path / "here")
        with pytest.raises(Refused, match="no model 'team/theirs'"):
            client.download("team/theirs", tmp_path)
    assert folder.name == "ours.graft" and graftwork.Model.load(folder).labels == LABELS


def test_keys_are_made_and_revoked(served: tuple[Service, str], client: Client) -> None:
    made = client.new_key("phone")
    with Client(served[1], made["key"]) as other:
        assert list(other.models()) == []
        with pytest.raises(Refused, match="scope"):
            other.upload(b"content")
        client.revoke_key(made["id"])
        with pytest.raises(Refused) as caught:
            list(other.models())
        assert caught.value.status == 401
    assert made["id"] not in [one["id"] for one in client.keys()]
    assert client.usage()["used"]["jobs"] == 0


def test_a_spent_quota_is_said_at_once(served: tuple[Service, str], service: Service, tmp_path: Path) -> None:
    key = key_of(service, "poor")
    with service.database.write() as session:
        session.get_one(tables.Owner, caller_of(service, "poor").owner_id).quotas = {"jobs": 0}
    with Client(served[1], key) as poor:
        file = poor.upload(TABLE, "a.csv")
        with pytest.raises(Busy, match="jobs: 0 used of 0") as caught:
            poor.dataset(file, wait=False)
    assert caught.value.after_s > 0


Handler = Callable[[httpx.Request], httpx.Response]


def flaky(*answers: httpx.Response | Exception) -> tuple[Client, list[httpx.Request]]:
    """A client of a service that gives these answers in turn, and the requests that it got."""
    seen: list[httpx.Request] = []
    left = list(answers)

    def handle(request: httpx.Request) -> httpx.Response:
        request.read()
        seen.append(request)
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return Client("http://there", "gw_x", patience=30, transport=httpx.MockTransport(handle)), seen


FILE = {"id": "file_1", "name": "a", "media_type": "b", "bytes": 1, "sha256": "", "created": ""}


def test_what_passes_is_tried_again_under_one_key(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    client, seen = flaky(
        httpx.ConnectError("refused"),
        httpx.Response(429, headers={"Retry-After": "2"}, json={"code": "queue-full"}),
        httpx.Response(503, text="gateway"),
        httpx.ReadError("reset"),
        httpx.Response(201, json=FILE),
    )
    assert client.upload(b"content").id == "file_1"
    assert len({one.headers["idempotency-key"] for one in seen}) == 1 and len(seen) == 5
    assert all(one.content == b"content" for one in seen) and slept[1] >= 2


@pytest.mark.parametrize(
    ("answers", "kind", "words"),
    [
        ([httpx.Response(429, headers={"Retry-After": "3600"}, json={"detail": "full"})], Busy, "full"),
        ([httpx.Response(500, json={"detail": "our slip", "request_id": "r1"})], WorkError, "our slip.*r1"),
        ([httpx.Response(507, text="<html>")], WorkError, "507"),
        ([httpx.Response(418, text="tea")], RequestError, "418"),
        ([httpx.Response(404, json=["odd"])], RequestError, "404"),
    ],
)
def test_what_does_not_pass_is_raised_at_once(
    answers: list[httpx.Response], kind: type[GraftworkError], words: str
) -> None:
    client, seen = flaky(*answers)
    with pytest.raises(kind, match=words):
        client.upload(b"content")
    assert len(seen) == 1


def test_a_deletion_whose_answer_was_lost_has_happened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    gone = httpx.Response(404, json={"code": "not-found", "detail": "no file here"})
    client, seen = flaky(httpx.ReadError("reset"), gone, gone)
    client.delete_file("file_1")
    assert len(seen) == 2
    with pytest.raises(Refused, match="no file here"):
        client.delete_file("file_1")


def test_what_can_never_be_sent_is_not_tried_again() -> None:
    client, seen = flaky(httpx.LocalProtocolError("Too little data for declared Content-Length"))
    with pytest.raises(RequestError, match=r"nothing could be sent to http://there .Too little data"):
        client.upload(b"content")
    assert len(seen) == 1


@pytest.mark.parametrize("key", ["gw_a\nb", "gw_ä", "gw_a b"])
def test_a_key_that_no_header_can_hold_is_refused_at_once(key: str) -> None:
    with pytest.raises(RequestError, match="no API key"):
        Client("http://there", key)


def test_a_key_is_taken_from_a_file_as_files_end(client: Client, served: tuple[Service, str]) -> None:
    key = client.new_key("file")["key"]
    with Client(served[1], f"{key}\n", patience=60) as again:
        assert list(again.models()) == []


def test_a_file_older_than_zip_goes_too(service: Service, client: Client, tmp_path: Path) -> None:
    (tmp_path / "data" / "x").mkdir(parents=True)
    (tmp_path / "data" / "x" / "a.txt").write_text("old")
    os.utime(tmp_path / "data" / "x" / "a.txt", (0, 0))
    assert client.dataset(tmp_path / "data", wait=False).name == "data"
    for one in client.jobs():
        one.cancel()  # no other test's worker is to find it


def test_without_the_extra_its_name_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(RequestError, match=r"graftwork\.Client needs the extra 'service'"):
        graftwork.Client()


@pytest.mark.parametrize("said", ["127.0.0.1:9", "http://", "http://[::1", "http://127.0.0.1:graft"])
def test_an_address_that_is_none_is_said_at_once(said: str) -> None:
    with pytest.raises(RequestError, match="is no address of a service"):
        Client(said)


def test_a_server_that_is_not_there_is_one_line() -> None:
    with pytest.raises(WorkError, match=r"no answer from http://127.0.0.1:9 .*graft serve"):
        list(Client("http://127.0.0.1:9", patience=0.2).models())


def test_a_reply_of_another_form_is_one_line() -> None:
    client, _ = flaky(httpx.Response(200, json={"predictions": []}), httpx.Response(200, text="<html>"))
    with pytest.raises(WorkError, match="not understood"):
        client.predict("tickets", [b"x"])
    with pytest.raises(WorkError, match="something else than JSON"):
        client.job("job_1")


def test_a_stream_that_is_refused_is_not_asked_for_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("graftwork.client.client.time.sleep", slept.append)
    client, _ = flaky(
        httpx.Response(200, json={"items": [], "next_after": 0, "is_terminal": False}),
        httpx.Response(429, json={"code": "rate-limited"}, headers={"Retry-After": "3"}),
        httpx.Response(200, json={"items": [], "next_after": 0, "is_terminal": True}),
    )
    assert list(client.events("job_1")) == [] and slept == [3.0]


def test_a_stream_that_breaks_is_taken_up_where_it_broke() -> None:
    def said(seq: int) -> dict[str, Any]:
        return {"seq": seq, "at": "", "kind": "state", "data": {}}

    client, seen = flaky(
        httpx.Response(200, json={"items": [said(1)], "next_after": 1, "is_terminal": False}),
        httpx.Response(200, text=f"retry: 1\n\nid: 2\nevent: state\ndata: {json.dumps(said(2))}\n\n: cut"),
        httpx.Response(200, json={"items": [], "next_after": 2, "is_terminal": False}),
        httpx.ReadError("reset"),
        httpx.Response(200, json={"items": [said(3)], "next_after": 3, "is_terminal": True}),
    )
    assert [one.seq for one in client.events("job_1")] == [1, 2, 3]
    assert seen[1].headers["last-event-id"] == "1" and seen[2].url.params["after"] == "2"
