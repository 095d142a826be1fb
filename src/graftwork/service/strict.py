"""JSON read strictly: UTF-8, of bounded depth, without NaN, infinities or text that no database keeps; and
written in the letters that people read."""

import json
import math
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from fastapi import APIRouter, Request, Response
from fastapi.params import Form
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool

from graftwork.service.problems import Problem, unsupported
from graftwork.service.settings import Limits

DEPTH = Limits().depth
VALUES = 200_000
"""The most values of one document: each takes many times its bytes in memory, and all are read in one go."""
LARGE = 100_000
"""Bytes that are no longer read on the event loop."""


def loads(body: bytes, depth: int = DEPTH) -> Any:
    """What `body` says. Raises Problem 400 "invalid-json" where it is none that can be used."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise _refused(f"byte {error.start} is no UTF-8") from None
    if _marks(text) > VALUES and _holds_many(text):
        raise _refused(f"it holds more than {VALUES:,} values")
    try:
        found = json.loads(text, parse_constant=_constant, parse_float=_finite)
    except json.JSONDecodeError as error:
        raise _refused(f"{error.msg} at character {error.pos}") from None
    except RecursionError:
        raise _too_deep(depth) from None
    except ValueError as error:  # an integer of thousands of digits
        raise _refused(str(error)) from None
    # few documents need a second look: only nesting can be deep, only escapes give what UTF-8 cannot
    if text.count("[") + text.count("{") > depth or "\\u" in text:
        _look(found, depth)
    return found


def written(value: Any) -> str:
    """`value` as JSON; what follows from it may be joined to more before it is `encoded`."""
    return json.dumps(value, ensure_ascii=False)


def encoded(text: str) -> bytes:
    """JSON as UTF-8. A name may hold half a surrogate pair, which goes as JSON's own escape."""
    return text.encode("utf-8", "backslashreplace")


def _marks(text: str) -> int:
    """Commas and opening brackets: a value each at most."""
    return text.count(",") + text.count("[") + text.count("{")


def _holds_many(text: str) -> bool:
    """Whether there are more than VALUES beside strings, which may hold as many marks as they like."""
    plain = text.replace("\\\\", "").replace('\\"', "")
    return plain.count('"') > 4 * VALUES or sum(map(_marks, plain.split('"')[::2])) > VALUES


def _look(found: Any, depth: int) -> None:
    level = [found]
    for _ in range(depth):
        below: list[Any] = []
        for one in level:
            if isinstance(one, str):
                _storable(one)
            elif isinstance(one, list):
                below.extend(one)
            elif isinstance(one, dict):
                below.extend(one)
                below.extend(one.values())
        if not below:
            return
        level = below
    if any(isinstance(one, list | dict) for one in level):
        raise _too_deep(depth)
    for one in level:
        if isinstance(one, str):
            _storable(one)


def _storable(text: str) -> None:
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise _refused("a text holds NUL or half a surrogate pair")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise _refused(f"{digits[:20]} is more than a number can hold")
    return value


def _constant(name: str) -> NoReturn:
    raise _refused(f"{name} is no JSON number")


def _refused(why: str) -> Problem:
    return Problem(400, "invalid-json", f"the body is no JSON: {why}; send UTF-8 JSON as RFC 8259 has it")


def _too_deep(depth: int) -> Problem:
    return Problem(400, "invalid-json", f"the body nests deeper than {depth} levels; send it flatter")


class StrictRequest(Request):
    """A request whose `json` is `loads`."""

    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            body = await self.body()
            self._json = loads(body) if len(body) < LARGE else await run_in_threadpool(loads, body)
        return self._json


class StrictRoute(APIRoute):
    """A route whose JSON body is read strictly, and which answers 415 to a body of another type."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        wants_json = self.body_field is not None and not isinstance(self.body_field.field_info, Form)

        async def strictly(request: Request) -> Response:
            strict = StrictRequest(request.scope, request.receive)
            if wants_json and not is_json(request.headers.get("content-type")) and await strict.body():
                raise unsupported("this route takes application/json; send it with that Content-Type")
            return await handle(strict)

        return strictly


def is_json(content_type: str | None) -> bool:
    essence = (content_type or "").partition(";")[0].strip().lower()
    return essence == "application/json" or (essence.startswith("application/") and essence.endswith("+json"))


def router(*tags: str, prefix: str = "/v1") -> APIRouter:
    """Where every part of the API puts its routes."""
    return APIRouter(prefix=prefix, tags=[*tags], route_class=StrictRoute)
