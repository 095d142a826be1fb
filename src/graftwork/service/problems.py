"""Errors as the API gives them: application/problem+json (RFC 9457) with a code and pointers."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# by name alone: a mount that is another user's, or does not answer, must not be looked into
_TOPS = "|".join(re.escape(name) for name in sorted(one.name for one in Path("/").iterdir()))
_PLACE = re.compile(rf"""(?<![\w.~-])/(?:{_TOPS})(?:/[^\s/'",:;()]+)*/([^\s/'",:;()]+)/?""")


def without_places(said: str) -> str:
    """A message of anything below, as strangers may see it: of a path of this machine its last name alone."""
    return _PLACE.sub(r"\1", said)


@dataclass(frozen=True)
class Pointer:
    """What is at fault. pointer: a JSON pointer into the request (RFC 6901), a file's or row's name."""

    pointer: str
    detail: str


@dataclass
class Problem(Exception):
    """Raised anywhere in the service; the application answers with `status` and `body`.

    code: stable, for programs; detail: one line for a person: seen, expected, next step. Places of this
    machine in it are told by their last names alone.
    """

    status: int
    code: str
    detail: str
    pointers: Sequence[Pointer] = ()
    headers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.detail = without_places(self.detail)

    def __str__(self) -> str:
        return self.detail

    def body(self, request_id: str) -> dict[str, Any]:
        """The JSON of the answer."""
        return {
            "type": f"urn:graftwork:problem:{self.code}",
            "title": self.code.replace("-", " "),
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "request_id": request_id,
            **(
                {"errors": [{"pointer": p.pointer, "detail": p.detail} for p in self.pointers]}
                if self.pointers
                else {}
            ),
        }


def not_found(what: str, said: str) -> Problem:
    """The same whether there is none or it belongs to another. what: ends in the name of what a list has."""
    lists = f"/v1/{what.split()[-1]}s"
    return Problem(404, "not-found", f"no {what} {said[:80]!r} here; list yours with GET {lists}")


def bad_request(detail: str, *pointers: Pointer) -> Problem:
    return Problem(422, "invalid-request", detail, pointers)


def unsupported(detail: str) -> Problem:
    return Problem(415, "unsupported-type", detail)


def too_many(code: str, detail: str, after_s: float) -> Problem:
    """code: quota-exceeded, rate-limited or queue-full."""
    return Problem(429, code, detail, headers={"Retry-After": str(max(1, round(after_s)))})


def unavailable(detail: str, after_s: float = 5.0) -> Problem:
    """Not ready yet, or draining."""
    return Problem(503, "unavailable", detail, headers={"Retry-After": str(max(1, round(after_s)))})
