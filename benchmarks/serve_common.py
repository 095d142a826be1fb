"""What the serving benchmarks share: a server of its own, its clients in one other process, its memory.

The clients run on the same cores as the server: requests are built beforehand, kept alive, and answers are
hardly looked at, so that they take little of what is measured. Every record of such a benchmark says so.
"""

import asyncio
import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import common

SOURCE = "mobilenet_v2_1.0_224"
CLIENTS = "clients run on the same cores, in one process"


@dataclass(frozen=True)
class Site:
    """A running server. key: of scope admin. pid: the server's own process."""

    host: str
    port: int
    key: str
    pid: int
    process: subprocess.Popen[str]

    @property
    def address(self) -> tuple[str, int]:
        return self.host, self.port

    def request(self, method: str, path: str, body: bytes = b"", media: str = "image/jpeg") -> bytes:
        """A whole HTTP request, ready to be written."""
        lines = [
            f"{method} {path} HTTP/1.1",
            f"Host: {self.host}:{self.port}",
            f"Authorization: Bearer {self.key}",
            f"Content-Type: {media}",
            f"Content-Length: {len(body)}",
        ]
        return "\r\n".join([*lines, "", ""]).encode() + body

    def predict(self, model: str, photo: bytes) -> bytes:
        return self.request("POST", f"/v1/predict?model={model}", photo)

    def ask(self, request: bytes) -> Any:
        """The JSON of one answer, or its text."""
        import socket

        with socket.create_connection(self.address, timeout=120) as line:
            line.sendall(request.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
            said = b"".join(iter(lambda: line.recv(1 << 16), b""))
        head, _, body = said.partition(b"\r\n\r\n")
        assert b" 200 " in head.split(b"\r\n")[0], said[:500]
        return json.loads(body) if b"json" in head else body.decode()

    def processes(self) -> list[psutil.Process]:
        """The server and what it started."""
        server = psutil.Process(self.pid)
        return [server, *server.children(recursive=True)]

    def pss(self) -> int:
        """Bytes of memory of all of them; what several share is counted once."""
        return pss(self.processes())


def pss(processes: Sequence[psutil.Process]) -> int:
    total = 0
    for one in processes:
        try:
            total += one.memory_full_info().pss
        except psutil.NoSuchProcess:
            continue
    return total


@contextmanager
def served(root: Path, *options: str, started: list[float] | None = None) -> Iterator[Site]:
    """`graft serve ROOT` until the block ends; ended by SIGTERM, or killed where it does not.

    What an earlier server kept in ROOT/.graftwork is removed first: its jobs would go on beside the figures.
    started: gets the seconds until the server said that it is ready.
    """
    shutil.rmtree(root / ".graftwork", ignore_errors=True)
    graft = str(Path(sys.executable).parent / "graft")
    command = [graft, "serve", str(root), "--port", "0", "--offline", "--json", *options]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        if started is not None:
            started.append(time.perf_counter() - start)
        url = json.loads(said)["url"]
        host, port = url.removeprefix("http://").rsplit(":", 1)
        yield Site(host, int(port), operator_key(root), process.pid, process)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
        process.wait()


def operator_key(root: Path) -> str:
    """A new key of scope admin for the artefacts under ROOT, written beside the running server."""
    from sqlalchemy import select

    from graftwork.service import security
    from graftwork.service.database import Database
    from graftwork.service.database.tables import OPERATOR, Owner
    from graftwork.service.settings import Settings

    database = Database(Settings(root.resolve()).url)
    try:
        with database.write() as session:
            owner = session.scalars(select(Owner).where(Owner.name == OPERATOR)).one()
            return security.new_key(session, owner.id, "benchmark", "admin", None)[1]
    finally:
        database.close()


@dataclass
class Tally:
    """What clients saw. answered: by status. milliseconds: of each answer of status 200, in order.

    lost: requests written whole to which no whole answer came. refused: connections never made.
    """

    seconds: float = 0.0
    answered: Counter[int] = field(default_factory=Counter)
    milliseconds: list[float] = field(default_factory=list)
    lost: int = 0
    refused: int = 0
    processor_s: float = 0.0

    @property
    def rate(self) -> float:
        """Answers of status 200 a second."""
        return self.answered[200] / self.seconds

    def percentile(self, percent: float) -> float:
        return float(np.percentile(self.milliseconds, percent))

    def shown(self) -> dict[str, Any]:
        return {
            "requests_per_second": round(self.rate, 1),
            "p50_ms": round(self.percentile(50), 2),
            "p95_ms": round(self.percentile(95), 2),
            "answered": {str(status): count for status, count in sorted(self.answered.items())},
            "lost": self.lost,
            "client_cores": round(self.processor_s / self.seconds, 3),
        }


class Clients:
    """One process that asks; it lives for the whole benchmark, so that starting it costs no round."""

    def __enter__(self) -> "Clients":
        self._pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        self._pool.submit(time.sleep, 0).result()
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def drive(
        self,
        addresses: tuple[str, int] | Sequence[tuple[str, int]],
        requests: Sequence[bytes],
        connections: int,
        *,
        seconds: float | None = None,
        leave_on: int | None = None,
        pause: float = 0.0,
    ) -> Any:
        """A Future of a Tally: `connections` clients, each asking again as soon as it was answered.

        addresses: one, or one for each request. seconds: start no request after that long, and begin
        anew where requests run out; None to make each once. leave_on: a client that hears this status stops.
        pause: seconds on average between an answer and a client's next request.
        """
        one = isinstance(addresses[0], str)
        places = [addresses] * len(requests) if one else list(addresses)
        return self._pool.submit(_drive, places, list(requests), connections, seconds, leave_on, pause)


class _Line(asyncio.Protocol):
    """One kept-alive connection; `answer` is done with (status, body) or None where it ended early."""

    def __init__(self) -> None:
        self._heard = bytearray()
        self.answer: asyncio.Future[int | None] | None = None
        self.is_open = True

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._heard += data
        end = self._heard.find(b"\r\n\r\n")
        if end < 0 or self.answer is None:
            return
        head = bytes(self._heard[:end]).lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0])
        if len(self._heard) < end + 4 + length:
            return
        self._heard.clear()
        if b"connection: close" in head:
            self.is_open = False
            self.transport.close()
        waiting, self.answer = self.answer, None
        waiting.set_result(int(head[9:12]))

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        if self.answer is not None and not self.answer.done():
            self.answer.set_result(None)


def _drive(
    places: list[tuple[str, int]],
    requests: list[bytes],
    connections: int,
    seconds: float | None,
    leave_on: int | None,
    pause: float,
) -> Tally:
    import uvloop

    tally = Tally()
    before = time.process_time()
    uvloop.run(_all(tally, places, requests, connections, seconds, leave_on, pause))
    tally.processor_s = time.process_time() - before
    return tally


async def _all(
    tally: Tally,
    places: list[tuple[str, int]],
    requests: list[bytes],
    connections: int,
    seconds: float | None,
    leave_on: int | None,
    pause: float,
) -> None:
    start = time.perf_counter()
    until = None if seconds is None else start + seconds
    order = iter(_order(len(requests), until))

    async def client() -> None:
        lines: dict[tuple[str, int], _Line] = {}
        for i in order:
            if pause:
                await asyncio.sleep(random.uniform(0, 2 * pause))
            status = await _one(tally, lines, places[i], requests[i])
            if leave_on is not None and (status is None or status == leave_on):
                break
        for line in lines.values():
            line.transport.close()

    await asyncio.gather(*(client() for _ in range(connections)))
    tally.seconds = time.perf_counter() - start


def _order(count: int, until: float | None) -> Iterator[int]:
    while True:
        for i in range(count):
            if until is not None and time.perf_counter() > until:
                return
            yield i
        if until is None:
            return


async def _one(
    tally: Tally, lines: dict[tuple[str, int], _Line], place: tuple[str, int], request: bytes
) -> int | None:
    loop = asyncio.get_running_loop()
    line = lines.get(place)
    if line is None or not line.is_open:
        try:
            _, line = await loop.create_connection(_Line, *place)
        except OSError:
            tally.refused += 1
            return None
        lines[place] = line
    line.answer = waiting = loop.create_future()
    start = time.perf_counter()
    line.transport.write(request)
    status: int | None = await waiting
    if status is None:
        tally.lost += 1
        return None
    tally.answered[status] += 1
    if status == 200:
        tally.milliseconds.append((time.perf_counter() - start) * 1e3)
    return status


def photos(count: int, seed: int = 0) -> list[bytes]:
    """Distinct photos of clothing10, as their files have them."""
    files = sorted((common.DATA / "clothing10").rglob("*.jpg"))
    order = np.random.default_rng(seed).permutation(len(files))[:count]
    found = [files[i].read_bytes() for i in order]
    assert len(found) == count, f"{len(found)} photos; asked for {count}"
    return found


def thousand(root: Path) -> list[str]:
    """Names of a thousand artefacts under ROOT, made where they are missing (some minutes)."""
    import thousand as maker

    return [one.stem for one in maker.make(root)]


def alone() -> None:
    """Say who else works on this machine, on stderr: figures are worth as much as it is quiet."""
    load = os.getloadavg()[0]
    if load > 1.5:
        print(f"the machine is busy (load {load:.1f}); figures will be worse than they are", file=sys.stderr)
