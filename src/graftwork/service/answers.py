"""What every failure answers: one translation from errors to problems, and from problems to HTTP."""

import errno
import sqlite3
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.responses import Response

from graftwork.errors import Busy, GraftworkError, RequestError
from graftwork.service.problems import Pointer, Problem, too_many, unavailable
from graftwork.service.strict import encoded, written

MEDIA_TYPE = "application/problem+json"
POINTERS = 100
"""The most that one problem points at: an error per row of a large request helps nobody."""
KINDS = ("fit", "rank", "import")
"""The forms of a job: the framework names the one it tried as if it were a field around the others."""
TRANSLATED = (
    Problem,
    HTTPException,
    RequestValidationError,
    GraftworkError,
    OSError,
    DBAPIError,
    PoolTimeout,
)
_FULL = (errno.ENOSPC, errno.EDQUOT)


def problem_of(error: Exception) -> Problem | None:
    """The problem that `error` is to the caller; None where it is our slip."""
    match error:
        case Problem():
            return error
        case HTTPException():
            return _of_http(error)
        case RequestValidationError():
            return _of_validation(error.errors())
        case Busy():
            return too_many("queue-full", str(error), error.after_s)
        case RequestError():
            return Problem(422, "invalid-request", str(error))
        case OSError() if error.errno in _FULL:
            return _full()
        case IntegrityError():
            return Problem(
                409, "conflict", "another request changed the same at the same time; look, then try again"
            )
        case DBAPIError() if any(words in str(error.orig) for words in ("disk is full", "No space left")):
            return _full()
        case DBAPIError() if "locked" in str(error.orig) or error.connection_invalidated:
            return _away()
        case OperationalError() if not isinstance(error.orig, sqlite3.Error):
            return _away()  # of a server: it is down or full; SQLite says so too of statements that are wrong
        case PoolTimeout():
            return _away()
        case GraftworkError():
            cause = error.__cause__
            return _full() if isinstance(cause, OSError) and cause.errno in _FULL else None
    return None


def respond(problem: Problem, request_id: str) -> Response:
    """application/problem+json; a detail may quote whatever was sent."""
    body = encoded(written(problem.body(request_id)))
    return Response(body, problem.status, dict(problem.headers), media_type=MEDIA_TYPE)


def our_slip() -> Problem:
    """What is said of an error that is ours: nothing but the request id, by which the log tells more."""
    return Problem(500, "internal-error", "this failed by our own fault; the log has it under the request id")


def _away() -> Problem:
    return unavailable("the database does not answer; try again")


def _full() -> Problem:
    return Problem(
        507, "out-of-space", "the server's disk is full; nothing was kept: make room, then try again"
    )


def _of_http(error: HTTPException) -> Problem:
    if isinstance(error.__cause__, Problem):  # raised while a body was read, wrapped by the framework
        return error.__cause__
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")
    details = {
        404: "nothing is here; see /openapi.json for what is",
        405: "not with this method; Allow says with which",
        400: "the body could not be read; see /openapi.json for its form",
    }
    detail = details.get(error.status_code, error.detail)
    return Problem(error.status_code, code, detail, headers=error.headers or {})


def _of_validation(errors: Sequence[Any]) -> Problem:
    if any(one["loc"][:1] == ("path",) for one in errors):
        return Problem(404, "not-found", "nothing has such a name")
    pointers = [
        Pointer(_pointer(one["loc"]), one["msg"].removeprefix("Value error, ")) for one in errors[:POINTERS]
    ]
    what = "; ".join(f"{p.pointer or 'the body'}: {p.detail}" for p in pointers[:3])
    return Problem(422, "invalid-request", f"{what[:500]}; see /openapi.json for the form", pointers)


def _pointer(location: Sequence[str | int]) -> str:
    """RFC 6901 into the body, as /files/0/label; `?limit` and `header:Name` for what lies elsewhere."""
    where, *rest = location
    if where == "body":
        if rest and rest[0] in KINDS:
            rest = rest[1:]
        return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in rest)
    name = ".".join(str(step) for step in rest)
    return f"?{name}" if where == "query" else f"{where}:{name}"
