"""What every request passes before a route sees it, and every answer before it leaves.

Plain ASGI: it is on the way of each prediction.
"""

import hmac
import itertools
import logging
import re
import secrets
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from graftwork.service.answers import our_slip, problem_of, respond
from graftwork.service.bodies import Body, Held, too_large
from graftwork.service.context import Service
from graftwork.service.passes import Pass
from graftwork.service.problems import Problem, too_many
from graftwork.service.returning import sign_in_for
from graftwork.service.security import COOKIE, SECURE_COOKIE, digest, forbidden

LOG = logging.getLogger("graftwork.service")
PUBLIC = ("/healthz", "/readyz", "/sign-in")
PUBLIC_UNDER = ("/sign-in/", "/static/")
API = ("/v1/", "/metrics", "/openapi.json", "/healthz", "/readyz")
UPLOADS = ("/v1/files",)
FORM = 10_000
"""Bytes of a form of the page; whatever is larger goes to the API, with the token in a header."""
SAFE = ("GET", "HEAD", "OPTIONS")
WRONG_KEYS = 60
"""Unknown keys and sign-ins that one address may try in a minute."""
GONE = 499
"""Counted for a client that left before it was answered; nobody is sent it."""
TURN_S = 0.0005
"""How long a thread keeps Python's lock from others that wait for it while anything but predictions is being
answered: what writes to the database must not hold up each of the many steps that a prediction takes."""
_USUAL_S = sys.getswitchinterval()
LOOPBACK = ("127.0.0.1", "localhost", "::1")
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; media-src 'self' blob:; connect-src 'self'; frame-src 'self'; "
    "worker-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(self), geolocation=()",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
"""Of every answer, unless its route has said otherwise. What a browser never shows as a page needs few."""
_HEADERS = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
_OF_DATA = [one for one in _HEADERS if one[0] in (b"x-content-type-options", b"cache-control")]
_PREFIX = secrets.token_hex(4)
_NUMBERS = itertools.count()
Quick = Callable[[Request], Awaitable[Response]]
_KEY = re.compile(r"gw_[A-Za-z0-9_-]{43}")
_ID = re.compile(rb"[A-Za-z0-9_.-]{1,64}")


class Front:
    """Request ids, hosts, identities, limits of bodies, headers, problems and the count of it all."""

    def __init__(self, app: ASGIApp, service: Service, quick: Mapping[tuple[str, str], Quick]) -> None:
        """quick: method and path -> what answers them, past all of the framework's routing."""
        self._app, self._service, self._quick = app, service, quick
        limits = service.settings.limits
        self._body, self._upload, self._idle = limits.body, limits.upload, limits.idle
        self._held = Held(limits.bodies)
        self._others = 0
        settings = service.settings
        behind = urlsplit(settings.address or "").hostname
        self._hosts = {*LOOPBACK, behind} if settings.host in LOOPBACK else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            else:
                await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        headers = dict(scope["headers"])  # the last of equal ones: enough for those asked here
        most = self._most(scope["path"])
        body = Body(receive, most, self._idle, None if scope["path"] in UPLOADS else self._held)
        answer = Answer(send, headers.get(b"x-request-id"))
        state = scope.setdefault("state", {})
        state["request_id"] = answer.request_id
        quick = None
        other = (scope["method"], scope["path"]) not in self._quick
        try:
            self._take_turns(other)
            _require_length(headers, most)
            early = await self._let_in(scope, headers, state, body)
            quick = self._quick.get((scope["method"], scope["path"])) if early is None else None
            found = await quick(Request(scope, body)) if quick else early or self._app
            await found(scope, body, answer)
        except ClientDisconnect:
            answer.status = answer.status or GONE
        except Exception as error:
            await self._failed(error, scope, body, answer)
        finally:
            body.release()
            self._take_turns(-other)
            route = scope["path"] if quick else getattr(scope.get("route"), "path", "none")
            self._service.metrics.request(
                scope["method"], route, answer.status, time.perf_counter() - started
            )

    def _take_turns(self, more: int) -> None:
        """more: 1 where what is not a prediction begins, -1 where it ends."""
        if more:
            self._others += more
            sys.setswitchinterval(TURN_S if self._others else _USUAL_S)

    def _most(self, path: str) -> int:
        if path in UPLOADS:
            return self._upload
        return min(self._body, FORM) if is_public(path) else self._body

    async def _failed(self, error: Exception, scope: Scope, body: Body, answer: "Answer") -> None:
        problem = problem_of(error)
        if problem is None:
            LOG.error("request %s failed", answer.request_id, exc_info=error)
            problem = our_slip()
        if answer.status:  # begun: it can only be broken off, which the client sees as incomplete
            raise error
        await refusal(problem, Request(scope), answer.request_id)(scope, body, answer)

    async def _let_in(
        self, scope: Scope, headers: dict[bytes, bytes], state: dict[str, Any], body: Body
    ) -> Response | None:
        """Sets state.caller, state.hash (its secret's); an answer where it ends here. Raises Problem."""
        path: str = scope["path"]
        if self._hosts is not None and _host(headers) not in self._hosts:
            raise Problem(
                421, "wrong-host", "this server answers to localhost alone; ask for it by that name"
            )
        if "\0" in path or b"%00" in scope["query_string"]:
            raise Problem(404, "not-found", "nothing has NUL in its name")
        if is_public(path):
            if scope["method"] not in SAFE:
                _same_origin(headers)
            return None
        secret = _secret(scope, headers)
        hashed = None if secret is None else digest(secret)
        found = None if hashed is None else await self._identify(scope, hashed)
        if found is None:
            if not path.startswith(API) and path != "/v1":
                return RedirectResponse(sign_in_for(scope), 303)
            raise Problem(
                401,
                "unauthorized",
                "no valid key; send Authorization: Bearer gw_...",
                headers={"WWW-Authenticate": 'Bearer realm="graftwork"'},
            )
        caller = found.caller
        self._service.meter.request(caller.owner_id, found.quotas)
        if caller.csrf is not None and scope["method"] not in SAFE:
            _same_origin(headers)
            await _require_token(caller.csrf, headers, body)
        state["caller"], state["hash"] = caller, hashed
        return None

    async def _identify(self, scope: Scope, hashed: str) -> Pass | None:
        found = self._service.passes.held(hashed)
        if found is None:
            found = await run_in_threadpool(self._service.passes.find, hashed)
            if found is None:
                bound_tries(self._service, scope)
        return found


class Answer:
    """The `send` that the application gets: it adds headers and notes the status. status: 0 until begun."""

    def __init__(self, send: Send, asked: bytes | None) -> None:
        self._send = send
        self.status = 0
        # counted: asking the system for chance would hand every other thread its turn first
        given = asked and _ID.fullmatch(asked)
        self.request_id = given[0].decode() if given else f"{_PREFIX}{next(_NUMBERS):08x}"

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            said = message.get("headers", [])
            names = dict(said)
            is_data = names.get(b"content-type", b"").startswith(b"application/")
            message["headers"] = [
                *said,
                *(one for one in (_OF_DATA if is_data else _HEADERS) if one[0] not in names),
                (b"x-request-id", self.request_id.encode()),
            ]
        await self._send(message)


def is_public(path: str) -> bool:
    """Whether it is answered without an identity."""
    return path in PUBLIC or path.startswith(PUBLIC_UNDER)


def bound_tries(service: Service, scope: Scope) -> None:
    """Counts a wrong key or link against its address. Raises Problem 429 when there were too many."""
    address = scope["client"][0] if scope.get("client") else "unknown"
    wait = service.meter.wait(f"tries {address}", WRONG_KEYS)
    if wait:
        raise too_many(
            "rate-limited", "too many wrong keys from this address; wait, then try the right one", wait
        )


def refusal(problem: Problem, request: Request, request_id: str) -> Response:
    """As JSON to a program; as a page to a browser that asked for one."""
    wants_page = "text/html" in request.headers.get("accept", "")
    if wants_page and not request.url.path.startswith(API):
        from graftwork.service.pages import error_page

        return error_page(request, problem)
    return respond(problem, request_id)


def _require_length(headers: dict[bytes, bytes], most: int) -> None:
    said = headers.get(b"content-length")
    if said is None:
        return
    if not said.isdigit() or len(said) > 18:
        raise Problem(400, "bad-request", "Content-Length is no number of bytes; send the body's length")
    if int(said) > most:
        raise too_large(most)


def _host(headers: dict[bytes, bytes]) -> str:
    said = headers.get(b"host", b"").decode("latin-1")
    return (said[1 : said.find("]")] if said.startswith("[") else said.partition(":")[0]).lower()


def _secret(scope: Scope, headers: dict[bytes, bytes]) -> str | None:
    """The key, or else the session's token, that a request carries."""
    said = headers.get(b"authorization")
    if said is not None:
        scheme, _, key = said.decode("latin-1").partition(" ")
        return key if scheme.lower() == "bearer" and _KEY.fullmatch(key) else None
    cookies = headers.get(b"cookie")
    if cookies is None:
        return None
    try:
        found = SimpleCookie(cookies.decode("latin-1")).get(cookie_name(scope))
    except CookieError:
        return None
    return found.value if found else None


def cookie_name(scope: Scope) -> str:
    return SECURE_COOKIE if scope["scheme"] == "https" else COOKIE


def _same_origin(headers: dict[bytes, bytes]) -> None:
    """Browsers say where a form comes from; programs say nothing, and need not."""
    origin = headers.get(b"origin")
    if origin is not None and origin.partition(b"://")[2] != headers.get(b"host"):
        raise forbidden("this came from another site; use the service's own page")


def field_of(form: bytes, name: str) -> str:
    """What a form of the page (application/x-www-form-urlencoded) says in a field; "" where it is absent."""
    return next((value for field, value in parse_qsl(form.decode("latin-1")) if field == name), "")


async def _require_token(csrf: str, headers: dict[bytes, bytes], body: Body) -> None:
    said = headers.get(b"x-csrf-token", b"").decode("latin-1")
    if not said and headers.get(b"content-type", b"").startswith(b"application/x-www-form-urlencoded"):
        said = field_of(await body.all(FORM), "csrf")
    if not hmac.compare_digest(said.encode(), csrf.encode()):
        raise forbidden("the page's token is missing or old; load the page again")
