"""A server of the service in a process of its own: for tests of what only a real one does."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from graftwork.service.database import Database
from graftwork.service.database.tables import OPERATOR, Scope
from graftwork.service.security import new_key
from graftwork.service.settings import Limits, Settings

PATIENCE_S = 120.0
"""Ends what hangs; no test waits for it."""


@dataclass(frozen=True)
class Running:
    """said: what it printed when it was ready, {url, link}. key: of scope admin, the operator's."""

    settings: Settings
    said: dict[str, Any]
    key: str
    process: subprocess.Popen[str]

    @property
    def url(self) -> str:
        return str(self.said["url"])

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.url.removeprefix("http://").rsplit(":", 1)
        return host, int(port)

    def client(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=PATIENCE_S)

    def talk(self, *parts: bytes, pause: float = 0.0) -> bytes:
        """All that comes back for raw bytes, until the server closes; fails where it is silent for long.

        pause: between two parts; what the server says ends the sending.
        """
        heard = b""
        with socket.create_connection(self.address, timeout=PATIENCE_S) as line:
            try:
                for part in parts:
                    if select.select([line], [], [], pause)[0] and pause:
                        break
                    line.sendall(part)
            except OSError:
                pass  # closed while we were still sending: what it says is there to be read
            try:
                while piece := line.recv(1 << 16):
                    heard += piece
            except TimeoutError:
                raise AssertionError(f"the line is still open after {heard[-200:]!r}") from None
            except OSError:
                pass
        return heard

    def is_receiving(self) -> bool:
        """Whether an upload has been begun, and is neither whole nor given up."""
        return any(self.settings.home.glob("uploads/*/.upload-*"))

    def header(self, first: str, **more: str) -> bytes:
        """A request's header with the key."""
        lines = {
            "Host": ":".join(map(str, self.address)),
            "Authorization": f"Bearer {self.key}",
            **{name.replace("_", "-"): value for name, value in more.items()},
        }
        return "\r\n".join([f"{first} HTTP/1.1", *(f"{a}: {b}" for a, b in lines.items()), "", ""]).encode()

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal and wait; the exit status."""
        self.process.send_signal(how)
        return self.process.wait(PATIENCE_S)


@contextmanager
def running(
    root: Path, home: Path, limits: dict[str, Any] | None = None, grace: float | None = None, **changes: Any
) -> Iterator[Running]:
    """`serve` with these settings until the block ends. home: its GRAFT_HOME. grace: for GRACE_S."""
    changes = {"port": 0, "workers": 0, "readers": 1, "offline": True, "drain": 10.0, **changes}
    settings = Settings(root.resolve(), limits=Limits(**(limits or {})), **changes)
    plan = {"root": str(settings.root), "limits": limits or {}, "grace": grace, "changes": changes}
    process = subprocess.Popen(
        [sys.executable, __file__, json.dumps(plan)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "GRAFT_HOME": str(home), "HF_HUB_OFFLINE": "1"},
    )
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said, f"the server ended with status {process.wait(PATIENCE_S)} before it was ready"
        yield Running(settings, json.loads(said), operator_key(settings), process)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_for(happened: Callable[[], Any], what: str) -> None:
    until = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < until, f"never: {what}"
        time.sleep(0.02)


def operator_key(settings: Settings, scope: Scope = "admin") -> str:
    """A new key, written into the database beside the running server."""
    database = Database(settings.url)
    try:
        with database.write() as session:
            return new_key(session, OPERATOR, "test", scope, None)[1]
    finally:
        database.close()


def main() -> None:
    from graftwork.service import server

    plan = json.loads(sys.argv[1])
    if plan["grace"] is not None:
        server.GRACE_S = plan["grace"]
    settings = Settings(Path(plan["root"]), limits=Limits(**plan["limits"]), **plan["changes"])
    server.serve(
        settings, lambda ready: print(json.dumps({"url": ready.url, "link": ready.link}), flush=True)
    )


if __name__ == "__main__":
    main()
