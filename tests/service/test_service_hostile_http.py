"""Clients that break HTTP, take their time or never stop: a 4xx problem or a closed line, never a 500."""

import json
import re
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

import tiny_server
from tiny_server import PATIENCE_S, Running, wait_for

LIMITS = {"body": 2_000_000, "connections": 40, "header": 120.0, "idle": 120.0}


@contextmanager
def still_well(server: Running) -> Iterator[Running]:
    """After whatever a test did, the server answers others as before."""
    yield server
    assert server.process.poll() is None
    asked = server.header("GET /healthz", Connection="close")
    # connections that the test has closed may still be counted
    wait_for(lambda: status(server.talk(asked)) != 429, "room for one more connection")
    assert status(server.talk(asked)) == 200


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    root, home = tmp_path_factory.mktemp("root"), tmp_path_factory.mktemp("home")
    with tiny_server.running(root, home, LIMITS) as found:
        yield found


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    root, home = tmp_path_factory.mktemp("root"), tmp_path_factory.mktemp("home")
    with tiny_server.running(root, home, LIMITS | {"header": 1.0, "idle": 1.0}) as found:
        yield found


@pytest.fixture
def server(patient: Running) -> Iterator[Running]:
    with still_well(patient) as found:
        yield found


@pytest.fixture
def hasty(impatient: Running) -> Iterator[Running]:
    """A server that waits for a second at most: for what does not come, and for nothing else."""
    with still_well(impatient) as found:
        yield found


def status(heard: bytes) -> int:
    """Of the first answer; checks that a failure is a problem with a code and a request id."""
    assert heard.startswith(b"HTTP/1.1 "), heard[:200]
    head, _, body = heard.partition(b"\r\n\r\n")
    found = int(head[9:12])
    if found >= 400:
        assert b"application/problem+json" in head.lower(), heard[:500]
        length = re.search(rb"content-length: (\d+)", head.lower())
        assert length is not None
        said = json.loads(body[: int(length[1])])
        assert said["status"] == found
        assert said["code"] and said["detail"] and said["request_id"]
    return found


def one_by_one(message: bytes) -> list[bytes]:
    return [message[i : i + 1] for i in range(len(message))]


def test_headers_that_come_a_byte_at_a_time_are_not_waited_for(hasty: Running) -> None:
    heard = hasty.talk(*one_by_one(hasty.header("GET /healthz"))[:60], pause=0.05)
    assert status(heard) == 408


def test_headers_of_a_later_request_are_not_waited_for_either(hasty: Running) -> None:
    whole = hasty.header("GET /healthz")
    with socket.create_connection(hasty.address, timeout=PATIENCE_S) as line:
        line.sendall(whole)
        heard = b""
        while not heard.endswith(b"}"):
            heard += line.recv(1 << 16)
        assert status(heard) == 200
        for part in one_by_one(whole):
            if select.select([line], [], [], 0.05)[0]:
                break
            line.sendall(part)
        assert status(line.recv(1 << 16)) == 408


def test_a_line_on_which_nothing_is_said_is_closed(hasty: Running) -> None:
    assert hasty.talk(b"") == b""
    assert status(hasty.talk(*[b"\r\n"] * 20, pause=0.05)) == 408


def test_a_body_that_comes_a_byte_at_a_time_is_not_waited_for(hasty: Running) -> None:
    head = hasty.header("POST /v1/datasets", Content_Type="application/json", Content_Length="500")
    assert status(hasty.talk(head, *[b" "] * 60, pause=0.05)) == 408


def test_a_body_that_never_comes_is_not_waited_for(hasty: Running) -> None:
    head = hasty.header("POST /v1/datasets", Content_Type="application/json", Content_Length="500")
    assert status(hasty.talk(head)) == 408


@pytest.mark.parametrize(
    "endless",
    [
        b"GET /" + b"a" * 200_000,
        b"GET / HTTP/1.1\r\nX: " + b"a" * 200_000,
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20_000,
    ],
    ids=["line", "header", "headers"],
)
@pytest.mark.parametrize("end", [b"", b" HTTP/1.1\r\n\r\n", b"\r\n\r\n"], ids=["open", "line-ended", "ended"])
def test_endless_headers_are_refused(server: Running, endless: bytes, end: bytes) -> None:
    assert status(server.talk(endless + end)) in (400, 431)


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: -1",
        b"Content-Length: 1e3",
        b"Content-Length: 5\r\nContent-Length: 6",
        b"Content-Length: 99999999999999999999999",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked, identity",
        b"Transfer-Encoding: xyz",
        b"X : y",
        b"X\x00: y",
    ],
)
def test_framing_that_two_could_read_differently_is_refused(server: Running, framing: bytes) -> None:
    head = server.header("POST /v1/datasets").removesuffix(b"\r\n") + framing + b"\r\n\r\n"
    assert 400 <= status(server.talk(head + b"hello")) < 500


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\xff\xfe\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused(server: Running, garbage: bytes) -> None:
    assert status(server.talk(garbage)) == 400


def test_garbage_after_a_request_does_not_cost_it_its_answer(server: Running) -> None:
    heard = server.talk(server.header("GET /healthz") + b"\x00\x01 garbage\r\n\r\n")
    assert status(heard) == 200


def test_pipelined_requests_are_answered_in_order(server: Running) -> None:
    asked = [server.header("GET /healthz"), server.header("GET /nowhere")] * 20
    heard = server.talk(b"".join(asked[:-1]) + server.header("GET /nowhere", Connection="close"))
    assert re.findall(rb"HTTP/1.1 (\d+)", heard) == [b"200", b"404"] * 20


def test_of_two_hosts_none_is_believed(server: Running) -> None:
    asked = server.header("GET /healthz")
    assert status(server.talk(asked.replace(b"\r\n", b"\r\nHost: evil.example\r\n", 1))) == 400


def test_what_trails_a_body_is_no_header(server: Running) -> None:
    owner = '{"name": "nobody"}'
    head = server.header(
        "POST /v1/owners", Content_Type="application/json", Transfer_Encoding="chunked", Connection="close"
    )
    for trailer in ("Authorization: Bearer gw_wrong", "Content-Type: text/plain", "Host: evil.example"):
        heard = server.talk(head + f"{len(owner):x}\r\n{owner}\r\n0\r\n{trailer}\r\n\r\n".encode())
        assert status(heard) in (201, 409), heard


def test_a_body_longer_than_it_says_is_no_part_of_the_request(server: Running) -> None:
    head = server.header("POST /v1/datasets", Content_Type="application/json", Content_Length="2")
    heard = server.talk(head + b"{}" + b'{"name": "x"}' * 10)
    assert 400 <= status(heard) < 500


def test_a_body_shorter_than_it_says_creates_nothing(server: Running) -> None:
    with server.client() as client:
        before = len(client.get("/v1/files").json()["items"])
        head = server.header("POST /v1/files?name=a.csv", Content_Length="5000")
        with socket.create_connection(server.address) as line:
            line.sendall(head + b"text,label\n")
            wait_for(server.is_receiving, "an upload begun")
        wait_for(lambda: not server.is_receiving(), "the upload given up")
        assert len(client.get("/v1/files").json()["items"]) == before


@pytest.mark.parametrize("path", ["/v1/datasets", "/v1/predict?model=x", "/v1/jobs", "/v1/keys"])
def test_a_body_that_is_too_long_is_refused_before_it_has_come(server: Running, path: str) -> None:
    head = server.header(f"POST {path}", Content_Type="application/json", Content_Length="3000000000")
    assert status(server.talk(head + b"a" * 100_000)) == 413


def test_a_chunked_body_without_end_is_refused_and_takes_no_memory(server: Running) -> None:
    process = psutil.Process(server.process.pid)
    before = process.memory_info().rss
    head = server.header("POST /v1/predict?model=x", Content_Type="image/png", Transfer_Encoding="chunked")
    chunk = b"100000\r\n" + b"a" * 0x100000 + b"\r\n"
    assert status(server.talk(head, *[chunk] * 100)) in (404, 413)
    assert process.memory_info().rss - before < 50e6


def test_a_client_that_reads_no_answer_is_left(hasty: Running) -> None:
    asked = hasty.header("GET /openapi.json") * 500
    process = psutil.Process(hasty.process.pid)
    before = process.memory_info().rss
    with socket.socket() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.settimeout(PATIENCE_S)
        line.connect(hasty.address)
        with pytest.raises(ConnectionError):
            while True:
                line.sendall(asked)
    assert process.memory_info().rss - before < 50e6


def test_more_connections_than_allowed_are_told_so(server: Running) -> None:
    lines = [socket.create_connection(server.address) for _ in range(LIMITS["connections"] + 5)]
    heard = server.talk(server.header("GET /healthz", Connection="close"))
    assert status(heard) == 429
    assert b"retry-after" in heard.lower()
    for line in lines:
        line.close()


BODIES = {
    "deep list": b"[" * 100_000,
    "deep object": b'{"a":' * 100_000,
    "deep and whole": b'{"name":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    "NaN": b'{"name": NaN}',
    "infinite": b'{"name": Infinity}',
    "huge number": b'{"name": 1e999999, "limit": ' + b"9" * 10_000 + b"}",
    "no UTF-8": b'{"name": "\xff\xfe"}',
    "lone surrogate": b'{"name": "\\ud800"}',
    "nul": b'{"name": "a\\u0000b"}',
    "empty": b"",
    "a number": b"5",
    "many keys": json.dumps({f"key{i}": i for i in range(50_000)}).encode(),
}


@pytest.mark.parametrize("path", ["/v1/datasets", "/v1/jobs", "/v1/keys", "/v1/predict"])
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_json_that_nobody_should_send_is_refused(server: Running, path: str, body: bytes) -> None:
    head = server.header(
        f"POST {path}", Content_Type="application/json", Content_Length=str(len(body)), Connection="close"
    )
    assert 400 <= status(server.talk(head + body)) < 500


FORMS = {
    "no boundary": ("multipart/form-data", b"--x\r\n\r\nhello\r\n--x--\r\n"),
    "empty boundary": ("multipart/form-data; boundary=", b"----\r\n"),
    "huge boundary": (f"multipart/form-data; boundary={'x' * 50_000}", b"--" + b"x" * 50_000 + b"\r\n\r\n"),
    "never ends": ("multipart/form-data; boundary=x", b"--x\r\n" + b"a: b\r\n" * 100_000),
    "endless header": ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: " + b"a" * 1_000_000),
    "many parts": (
        "multipart/form-data; boundary=x",
        b'--x\r\nContent-Disposition: form-data; name="input"\r\n\r\na\r\n' * 20_000 + b"--x--\r\n",
    ),
    "cut short": (
        "multipart/form-data; boundary=x",
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\ntext',
    ),
    "no body": ("multipart/form-data; boundary=x", b""),
}


@pytest.mark.parametrize("path", ["/v1/files", "/v1/predict"])
@pytest.mark.parametrize(("media", "body"), FORMS.values(), ids=FORMS)
def test_forms_that_nobody_should_send_are_refused(
    server: Running, path: str, media: str, body: bytes
) -> None:
    head = server.header(
        f"POST {path}", Content_Type=media, Content_Length=str(len(body)), Connection="close"
    )
    assert 400 <= status(server.talk(head + body)) < 500


STRANGE = [
    "/v1/models/..%2f..%2fetc%2fpasswd",
    "/v1/models/%00",
    "/v1/files/../../etc/passwd",
    "/static/..%2f..%2f..%2fetc%2fpasswd",
    "/static/%2e%2e/%2e%2e/settings.py",
    "/v1/jobs/%ff%fe",
    "/v1/models?cursor=%00&limit=5",
    "/v1/models?limit=99999999999999999999999",
    "/v1/models/" + "a" * 30_000,
    "//v1//models",
]


@pytest.mark.parametrize("path", STRANGE, ids=lambda path: path[:40])
def test_strange_paths_lead_nowhere(server: Running, path: str) -> None:
    heard = server.talk(server.header(f"GET {path}", Connection="close"))
    assert 300 <= status(heard) < 500
    assert b"root:" not in heard
