"""Bodies as they arrive: never more than allowed, never slower than a poor line."""

import asyncio
import time
from dataclasses import dataclass

from starlette.types import Message, Receive

from graftwork.service.problems import Problem, too_many

SLOWEST = 1_000
"""Bytes a second below which a body counts as not arriving, once `idle` seconds are spent on it."""


@dataclass
class Held:
    """Bytes of bodies that lie in memory, of all requests together; of the event loop alone."""

    most: int
    bytes: int = 0


class Body:
    """The `receive` that the application gets. Raises Problem 413 or 408 out of it; all read is bounded.

    Only the time spent waiting for the client counts, not what the application does between.
    held: where it counts until `release`; None for what goes to the disk as it comes.
    """

    def __init__(self, receive: Receive, most: int, idle: float, held: Held | None = None) -> None:
        self._receive, self._most, self._idle, self._held = receive, most, idle, held
        self._seen = 0
        self._waited = 0.0
        self._complete = False
        self._pushed: Message | None = None

    async def __call__(self) -> Message:
        if self._pushed is not None:
            message, self._pushed = self._pushed, None
            return message
        if self._complete:  # what remains is the client's leaving, which may take as long as it likes
            return await self._receive()
        message = await self._within()
        if message["type"] == "http.request":
            more = len(message.get("body", b""))
            self._seen += more
            self._complete = not message.get("more_body", False)
            if self._held is not None:
                self._held.bytes += more
            if self._seen > self._most:
                raise too_large(self._most)
            if self._held is not None and self._held.bytes > self._held.most:
                raise too_many("queue-full", "too much is being sent at once; send it again", 2.0)
        else:
            self._complete = True
        return message

    def release(self) -> None:
        """The request is answered."""
        if self._held is not None:
            self._held.bytes -= self._seen

    async def all(self, most: int) -> bytes:
        """The whole body, of at most so many bytes; the application gets it once more."""
        self._most = min(self._most, most)
        parts = []
        while not self._complete:
            message = await self()
            parts.append(message.get("body", b""))
        body = b"".join(parts)
        self._pushed = {"type": "http.request", "body": body, "more_body": False}
        return body

    async def _within(self) -> Message:
        allowed = self._idle + self._seen / SLOWEST - self._waited
        started = time.monotonic()
        try:
            async with asyncio.timeout(min(self._idle, max(allowed, 0.0))):
                return await self._receive()
        except TimeoutError:
            raise Problem(
                408,
                "request-timeout",
                f"{self._seen:,} bytes of the body came, then none for {self._idle:g} s, or fewer than "
                f"{SLOWEST:,} a second; send it again",
                headers={"Connection": "close"},
            ) from None
        finally:
            self._waited += time.monotonic() - started


def too_large(most: int) -> Problem:
    return Problem(413, "content-too-large", f"the body is larger than {most:,} bytes; send less at a time")
