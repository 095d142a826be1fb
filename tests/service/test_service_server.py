"""`graft serve` as a process: how it starts, what it refuses, what survives, and how it ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from sqlalchemy.exc import OperationalError
from typer.testing import CliRunner

import graftwork as gw
import graftwork.service
import tiny_server
from graftwork.cli import app
from graftwork.errors import ArtefactError
from graftwork.service.server import _patient, _warm
from graftwork.service.settings import Settings
from tiny_server import PATIENCE_S, wait_for

GRAFT = str(Path(sys.executable).parent / "graft")
TEXTS = ["good service", "lovely and quick", "very kind staff", "bad service", "late again", "rude staff"]


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tickets.graft, fitted in a moment without any source."""
    folder = tmp_path_factory.mktemp("artefact")
    table = folder / "tickets.csv"
    rows = [f"{text} {i},{label}" for i in range(8) for text, label in zip(TEXTS, "aaabbb", strict=True)]
    table.write_text("\n".join(["text,label", *rows]))
    before = os.environ.get("GRAFT_HOME")
    os.environ["GRAFT_HOME"] = str(folder / "home")
    try:
        outcome = gw.fit(gw.load(table), strategy="classical", baselines="none")
        return outcome.save(folder / "tickets.graft")
    finally:
        del os.environ["GRAFT_HOME"]
        if before is not None:
            os.environ["GRAFT_HOME"] = before


@pytest.fixture
def root(artefact: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    (folder / "team").mkdir()
    # a folder of its own: what leads out of ROOT is not served
    subprocess.run(["cp", "-r", str(artefact), str(folder / "team" / "tickets.graft")], check=True)
    return folder


def refused(*words: str, **more: Any) -> str:
    """What a server that does not start says, in one line, with status 2."""
    done = subprocess.run([GRAFT, "serve", *words], capture_output=True, text=True, timeout=300, **more)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_it_says_where_it_is_and_answers_for_what_lies_there(root: Path, home: Path) -> None:
    command = [GRAFT, "serve", str(root), "--port", "0", "--workers", "0", "--offline", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = json.loads(process.stdout.readline())
            assert said["url"].startswith("http://127.0.0.1:")
            assert said["link"].startswith(f"{said['url']}/sign-in/")
            key = tiny_server.operator_key(Settings(root.resolve()), "predict")
            headers = {"Authorization": f"Bearer {key}"}
            with httpx.Client(base_url=said["url"], headers=headers, timeout=PATIENCE_S) as client:
                assert client.get("/readyz").status_code == 200
                asked = {"model": "team/tickets", "inputs": ["lovely and quick", "rude staff"]}
                answer = client.post("/v1/predict", json=asked)
                assert answer.status_code == 200, answer.text
                assert [one["label"] for one in answer.json()["answers"]] == ["a", "b"]
        finally:
            process.terminate()
        assert process.wait(PATIENCE_S) == 0


def test_a_damaged_artefact_does_not_keep_its_network_from_being_loaded_ahead(tmp_path: Path) -> None:
    asked = []

    def warm(folders: list[Path]) -> None:
        asked.extend(folders)
        if folders == [tmp_path / "bad"]:
            raise ArtefactError("its SHA-256 is not the manifest's")

    found = [SimpleNamespace(folder=tmp_path / name, fingerprint="f") for name in ("bad", "good", "other")]
    models, serving = SimpleNamespace(of=lambda caller: found), SimpleNamespace(warm=warm)
    _warm(SimpleNamespace(models=models, serving=serving))
    assert asked == [tmp_path / "bad", tmp_path / "good"]


def test_a_second_server_of_the_same_folder_is_refused_in_one_line(tmp_path: Path, home: Path) -> None:
    with tiny_server.running(tmp_path, home) as first:
        said = refused(str(tmp_path), "--port", "0")
        assert "is served already" in said and str(first.process.pid) in said


def test_a_taken_port_is_refused_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"127.0.0.1:{port} cannot be listened on" in refused(str(tmp_path), "--port", str(port))


def test_a_folder_that_is_none_is_refused_in_one_line(tmp_path: Path) -> None:
    assert "is no folder" in refused(str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("--quota=space=3", "expected NAME=NUMBER"),
        ("--quota=jobs=many", "expected a whole number"),
        ("--head-memory=much", "is no size"),
        ("--head-memory=-5MB", "is no size"),
        ("--backbone-memory=inf", "is no size"),
        ("--host=no.such.host.invalid", "give --host an address of this machine"),
        ("--address=graft.example.org", "as https://graft.example.org"),
        ("--address=https://[graft", "as https://graft.example.org"),
        ("--address=https://graft.example.org:https", "as https://graft.example.org"),
        ("--address=https://graft.example.org?a=b", "as https://graft.example.org"),
        ("--database=nonsense", "database"),
    ],
)
def test_options_that_mean_nothing_are_refused_in_one_line(
    tmp_path: Path, option: str, expected: str
) -> None:
    assert expected in refused(str(tmp_path), "--port", "0", option)


def test_without_its_extra_it_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "graftwork.service.server", raising=False)
    monkeypatch.delattr(graftwork.service, "server", raising=False)  # it may have been imported already
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    done = CliRunner().invoke(app, ["serve", str(tmp_path)])
    assert done.exit_code == 2
    assert "pip install 'graftwork[service]'" in done.stderr


def test_a_host_that_others_reach_is_warned_about(tmp_path: Path) -> None:
    command = [GRAFT, "serve", str(tmp_path), "--host", "0.0.0.0", "--port", "0", "--workers", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            assert "proxy with TLS" in process.stderr.readline()
        finally:
            process.kill()


def test_the_link_comes_again_until_somebody_signed_in(tmp_path: Path, home: Path) -> None:
    with tiny_server.running(tmp_path, home) as first:
        pass
    assert first.said["link"] is not None
    with tiny_server.running(tmp_path, home) as second:  # `first.key` exists: somebody can come in
        assert second.said["link"] is None
    (tmp_path / ".graftwork").chmod(0o755)  # as one that was restored
    with tiny_server.running(tmp_path, home, link=True) as third:
        assert third.said["link"] is not None
    assert (tmp_path / ".graftwork").stat().st_mode & 0o777 == 0o700


def begun(server: tiny_server.Running, body: bytes) -> tuple[socket.socket, bytes]:
    """An upload that the server has accepted and half received, and its other half."""
    head = server.header("POST /v1/files?name=a.csv", Content_Length=str(len(body)))
    line = socket.create_connection(server.address, timeout=PATIENCE_S)
    line.sendall(head + body[: len(body) // 2])
    wait_for(server.is_receiving, "an upload begun")
    return line, body[len(body) // 2 :]


def drained(server: tiny_server.Running) -> bool:
    """Whether it has heard that it is to end: it refuses whatever is new."""
    new = server.talk(server.header("GET /v1/models", Connection="close"))
    return new.startswith(b"HTTP/1.1 503 ") and b"retry-after" in new.lower()


def test_told_to_end_it_answers_what_it_has_accepted_and_refuses_the_rest(tmp_path: Path, home: Path) -> None:
    with tiny_server.running(tmp_path, home, drain=PATIENCE_S) as server:
        line, rest = begun(server, b"text,label\na,b\n")
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: drained(server), "a refusal")
        with line:
            line.sendall(rest)
            assert line.recv(1000).startswith(b"HTTP/1.1 201 ")
        assert server.process.wait(PATIENCE_S) == 0


def test_told_to_end_it_waits_for_no_client_for_ever(tmp_path: Path, home: Path) -> None:
    with tiny_server.running(tmp_path, home, drain=2.0) as server:
        line, _ = begun(server, b"text,label\na,b\n")
        with line:
            assert server.end() == 0


def test_told_twice_it_ends_at_once(tmp_path: Path, home: Path) -> None:
    with tiny_server.running(tmp_path, home, drain=2 * PATIENCE_S) as server:
        line, _ = begun(server, b"text,label\na,b\n")
        with line:
            server.process.send_signal(signal.SIGTERM)
            wait_for(lambda: drained(server), "a refusal")
            assert server.end() == 128 + signal.SIGTERM


def test_told_to_end_under_load_it_answers_every_request_that_it_took(root: Path, home: Path) -> None:
    # long enough for the slowest client to ask once more, and for none to find its line closed
    with tiny_server.running(root, home, grace=5.0) as server:
        seen: list[int] = []
        clients = [threading.Thread(target=ask_on, args=(server, seen)) for _ in range(8)]
        for client in clients:
            client.start()
        wait_for(lambda: len(seen) > 50, "fifty answers")
        assert server.end() == 0
        for client in clients:
            client.join()
    assert set(seen) == {200, 503}


def ask_on(server: tiny_server.Running, seen: list[int]) -> None:
    """Ask again and again on one line, until it is refused; each answer's status, 0 where none came."""
    line = HTTPConnection(*server.address, timeout=PATIENCE_S)
    body = json.dumps({"model": "team/tickets", "inputs": ["lovely and quick"]})
    headers = {"Authorization": f"Bearer {server.key}", "Content-Type": "application/json"}
    with closing(line):
        line.connect()
        line.auto_open = 0  # a line that was closed is not opened again
        while True:
            try:
                line.request("POST", "/v1/predict", body, headers)
                answer = line.getresponse()
                answer.read()
                seen.append(answer.status)
            except (OSError, HTTPException):
                seen.append(0)
            if seen[-1] != 200:
                return


def test_what_was_acknowledged_survives_a_kill(empty_url: str, tmp_path: Path, home: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    with tiny_server.running(root, home, database=empty_url) as server:
        with server.client() as client:
            made = client.post("/v1/files", params={"name": "a.csv"}, content=b"text,label\na,b\n")
            assert made.status_code == 201, made.text
        server.end(signal.SIGKILL)
    with tiny_server.running(root, home, database=empty_url) as again:
        with again.client() as client:
            client.headers["Authorization"] = f"Bearer {server.key}"
            assert client.get(f"/v1/files/{made.json()['id']}").json() == made.json()
        assert again.end() == 0


def test_a_database_that_is_away_at_the_end_is_told_in_a_line(caplog: pytest.LogCaptureFixture) -> None:
    def flush() -> None:
        raise OperationalError("", {}, Exception("connection refused\nIs the server running?"))

    _patient(flush)
    assert [record.getMessage() for record in caplog.records] == [
        "the database does not answer: connection refused"
    ]
