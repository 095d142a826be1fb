"""Requests that are tried again where that is safe, and answers that become errors of Graftwork."""

import os
import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from graftwork.errors import Busy, MissingExtra, RequestError, WorkError

if TYPE_CHECKING:
    import httpx

_PASSING = (429, 502, 503, 504)
"""Statuses after which the same request may succeed in a while."""


class Refused(RequestError):
    """The service refused a request. code: stable, such as not-found; errors: [{pointer, detail}]."""

    def __init__(self, problem: Mapping[str, Any], status: int) -> None:
        super().__init__(str(problem.get("detail") or f"the service answered {status}"))
        self.status = status
        self.code = str(problem.get("code", ""))
        self.errors = list(problem.get("errors", []))
        self.request_id = problem.get("request_id")


class Transport:
    """One service, and a key for it. patience: seconds for which a request is tried again."""

    def __init__(
        self,
        url: str,
        key: str | None,
        timeout: float,
        patience: float,
        transport: "httpx.BaseTransport | None",
    ) -> None:
        try:
            import httpx
        except ImportError as error:
            raise MissingExtra("graftwork.Client", "service") from error
        if not _is_address(url):
            raise RequestError(
                f"{url!r} is no address of a service; expected one such as http://127.0.0.1:8000"
            )
        self.url, self.patience = url, patience
        key = (os.environ.get("GRAFT_KEY", "") if key is None else key).strip()  # as files of keys end
        if not key.isascii() or not key.isprintable() or " " in key:
            raise RequestError(
                "the key given is no API key; expected one such as gw_..., from graft key ROOT"
            )
        self.http = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(timeout, connect=10.0),
            transport=transport,
        )

    def send(
        self,
        method: str,
        path: str,
        *,
        content: Callable[[], Any] = lambda: None,
        headers: Mapping[str, str] | None = None,
        **parts: Any,
    ) -> Any:
        """The JSON of the answer. content: makes the body, anew for each try. parts: as httpx takes them.

        A POST carries an Idempotency-Key, so that a second try creates nothing twice.
        """
        sent = {"Idempotency-Key": str(uuid.uuid4()), **(headers or {})} if method == "POST" else headers

        def ask() -> "httpx.Response":
            return self.http.request(method, path, content=content(), headers=sent, **parts)

        answer = self.patiently(ask)
        try:
            return answer.json() if answer.content else None
        except ValueError as error:
            raise WorkError(
                f"{self.url} answered with something else than JSON; is graft serve there, or a proxy's page?"
            ) from error

    def patiently(self, ask: Callable[[], "httpx.Response"]) -> "httpx.Response":
        """What `ask` gets, asked again while the service is busy or out of reach.

        What is gone when a deletion is asked again was deleted by the one whose answer was lost.
        """
        import httpx

        until = time.monotonic() + self.patience
        pause, was_lost = 0.1, False
        while True:
            try:
                answer = ask()
            except (httpx.LocalProtocolError, httpx.UnsupportedProtocol) as failure:  # ours, and for ever
                raise RequestError(f"nothing could be sent to {self.url} ({failure})") from failure
            except httpx.TransportError as failure:
                seconds, was_lost = pause, True
                error: Exception = _unreachable(self.url, failure)
            else:
                if was_lost and answer.status_code == 404 and answer.request.method == "DELETE":
                    return httpx.Response(204)
                if answer.is_success:
                    return answer
                error = problem(answer)
                if not _passes(answer):
                    raise error
                seconds = max(pause, retry_after(answer))
            if time.monotonic() + seconds > until:
                raise error
            time.sleep(seconds * random.uniform(1.0, 1.2))
            pause = min(2 * pause, 5.0)

    def pages(self, path: str) -> Iterator[dict[str, Any]]:
        """Every item of a list, page after page."""
        cursor: dict[str, str] = {}
        while True:
            found = self.send("GET", path, params={"limit": 200, **cursor})
            yield from found["items"]
            if found["next_cursor"] is None:
                return
            cursor = {"cursor": found["next_cursor"]}


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets or a port that are none
        return False


def problem(answer: "httpx.Response") -> Busy | RequestError | WorkError:
    """The error that an answer without success is."""
    said = _said(answer)
    if answer.status_code == 429:
        return Busy(str(said.get("detail") or "the service is busy; try again"), retry_after(answer))
    if answer.status_code >= 500:
        detail = said.get("detail") or answer.reason_phrase
        return WorkError(
            f"the service failed ({answer.status_code}: {detail}; request {said.get('request_id')})"
        )
    return Refused(said, answer.status_code)


def _said(answer: "httpx.Response") -> dict[str, Any]:
    """The problem's JSON; empty where something else than the service answered."""
    try:
        said = answer.json()
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _passes(answer: "httpx.Response") -> bool:
    """Whether the same request may succeed in a while; a spent quota is for its owner to mend."""
    return answer.status_code in _PASSING and _said(answer).get("code") != "quota-exceeded"


def _unreachable(url: str, failure: Exception) -> WorkError:
    error = WorkError(
        f"no answer from {url} ({failure or type(failure).__name__}); is graft serve running there?"
    )
    error.__cause__ = failure
    return error


def retry_after(answer: "httpx.Response") -> float:
    """Seconds until the service wants to be asked again."""
    try:
        return max(0.0, float(answer.headers.get("Retry-After", "")))
    except ValueError:
        return 1.0
