"""HTTP connections: uvicorn's, with a bound on everything a client may leave open, unsent or unread."""

import asyncio
import secrets
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Literal

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from graftwork.service.context import Service
from graftwork.service.problems import Problem, too_many, unavailable
from graftwork.service.strict import encoded, written

HEADER_BYTES = 64 * 1024
"""Of a request's first line and headers together."""
LINGER_S = 2.0
"""How long what a client still sends is thrown away, so that it reads why nobody listens."""


class Connection(HttpToolsProtocol):
    """One client's connection. The subclass that `serving` makes knows the service.

    Requests are refused before the application sees them while the service drains (503), where there are
    too many connections (429), where headers are too long (431), too slow (408) or no HTTP (400); always
    as application/problem+json, and after what was accepted earlier on this connection was answered.
    """

    service: Service

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._part: Literal["header", "body", "done"] = "header"
        self._header_bytes = 0
        self._deaf = False
        self._timer: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        if len(self.connections) > 2 * self.service.settings.limits.connections:
            transport.abort()
        else:
            self._await_header()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        if self._part == "done":
            self._part = "header"
        super().data_received(data)
        if self._part == "header" and not self._deaf:
            self._header_bytes += len(data)
            if self._header_bytes > HEADER_BYTES:
                self._refuse(_too_long(self._header_bytes))
            elif self._timer is None:
                self._await_header()

    def on_message_begin(self) -> None:
        self._part = "header"
        self._header_bytes = 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._part == "header":  # what follows a body in pieces is no header of its request
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._disarm()
        self._part = "body"
        self.app = self.config.loaded_app if (refused := self._refused()) is None else _answering(refused)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._part = "done"
        super().on_message_complete()
        if self.cycle.response_complete:
            self._await_header()  # answered before its body had come: uvicorn's own timer is off by now

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._part == "body" and not self.transport.is_closing():
            self._arm(LINGER_S, self.transport.close)

    def send_400_response(self, msg: str) -> None:
        self._refuse(Problem(400, "no-http", f"{msg.rstrip('.')}; expected HTTP/1.1"))

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self.loop.call_later(self.service.settings.limits.idle, self.transport.abort)

    def resume_writing(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        super().resume_writing()

    @property
    def is_asked(self) -> bool:
        """Whether a request is being read or answered."""
        return bool(self.pipeline) or (self.cycle is not None and not self.cycle.response_complete)

    def _refused(self) -> Problem | None:
        most = self.service.settings.limits.connections
        if self.service.draining:
            return unavailable("the server is about to end; send the request again in a while")
        if len(self.connections) > most:
            return too_many("connections", f"more than {most} connections are open; use fewer", 2.0)
        if sum(len(name) + len(value) + 4 for name, value in self.headers) > HEADER_BYTES:
            return _too_long(HEADER_BYTES)
        if sum(name == b"host" for name, _ in self.headers) > 1:
            return Problem(400, "bad-request", "Host came more than once; send it once")
        return None

    def _refuse(self, problem: Problem) -> None:
        """Answer with `problem` and listen no more; what is being answered comes first."""
        self._deaf = True
        if self.is_asked and self._part != "body":
            self.cycle.keep_alive = False
            return
        if not self.is_asked or not (self.pipeline or self.cycle.response_started):
            self.transport.write(_raw(problem))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._arm(LINGER_S, self.transport.close)

    def _await_header(self) -> None:
        self._arm(self.service.settings.limits.header, self._header_late)

    def _header_late(self) -> None:
        seconds = self.service.settings.limits.header
        if self._header_bytes:
            self._refuse(
                Problem(408, "too-slow", f"the headers did not come within {seconds:g} s; send them at once")
            )
        elif not self.is_asked:
            self.transport.close()  # nothing was said, so nothing is answered

    def _arm(self, seconds: float, then: Any) -> None:
        self._disarm()
        self._timer = self.loop.call_later(seconds, then)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def serving(service: Service) -> type[Connection]:
    """The protocol for uvicorn."""
    return type("Serving", (Connection,), {"service": service})


def _too_long(seen: int) -> Problem:
    return Problem(
        431, "headers-too-long", f"at least {seen} bytes of headers; expected {HEADER_BYTES} at most"
    )


def _answering(problem: Problem) -> Any:
    """An application that answers everything with `problem`."""

    async def app(_: Any, receive: Any, send: Any) -> None:
        # a body still on its way would meet a closed socket, and the client a reset in place of the answer
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while (await receive()).get("more_body"):
                    pass
        headers, body = _parts(problem)
        await send({"type": "http.response.start", "status": problem.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


def _parts(problem: Problem) -> tuple[list[tuple[bytes, bytes]], bytes]:
    request_id = secrets.token_hex(8)
    body = encoded(written(problem.body(request_id)))
    said = {
        "content-type": "application/problem+json",
        "content-length": str(len(body)),
        "x-request-id": request_id,
        "connection": "close",
        **problem.headers,
    }
    return [(name.lower().encode(), value.encode()) for name, value in said.items()], body


def _raw(problem: Problem) -> bytes:
    headers, body = _parts(problem)
    first = f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}\r\n".encode()
    return first + b"".join(name + b": " + value + b"\r\n" for name, value in headers) + b"\r\n" + body
