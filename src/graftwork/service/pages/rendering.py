"""Templates -> pages: one environment, escaping always on."""

from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from graftwork.report.words import duration, isolated, percent, size, visible
from graftwork.service.pages.wording import COOKIE, LANGUAGES, Words, language_of
from graftwork.service.problems import Problem

HERE = Path(__file__).parent
_YEAR_S = 365 * 24 * 3600


def when(said: str | None) -> Markup:
    """A time of the API's as an element that the page's script writes in the reader's own zone."""
    if not said:
        return Markup("")
    shown = datetime.fromisoformat(said).strftime("%Y-%m-%d %H:%M UTC")
    return Markup('<time datetime="{}">{}</time>').format(said, shown)


def between(low: float | None, high: float | None) -> str:
    """A score's interval: 88.0–93.7%; nothing where it has none."""
    return "" if low is None or high is None else f"{percent(low).rstrip('%')}–{percent(high)}"


def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "visible": visible,
        "percent": percent,
        "size": size,
        "duration": duration,
        "number": lambda value: f"{value:,}",
        "path": lambda value: quote(str(value), safe=""),
    }
    made.globals |= {
        "isolated": isolated,
        "between": between,
        "when": when,
        "languages": list(LANGUAGES.items()),
        "static": lambda name: f"/static/{name}",
    }
    return made


_TEMPLATES = _environment()


def render(request: Request, template: str, *, status: int = 200, **values: Any) -> Response:
    """A page in the reader's language, which a `?language=` in the address makes lasting."""
    language = language_of(request)
    words = Words(language)
    shown = _TEMPLATES.get_template(template).render(
        t=words,
        spoken=words.spoken(),
        language=language,
        caller=getattr(request.state, "caller", None),
        here=request.url.path,
        asked=lambda **more: f"?{urlencode({**request.query_params, **more})}",
        **values,
    )
    answer = HTMLResponse(shown, status, headers={"Vary": "Accept-Language, Cookie"})
    if request.query_params.get("language") == language:
        secure = request.url.scheme == "https"
        answer.set_cookie(COOKIE, language, max_age=_YEAR_S, samesite="lax", httponly=True, secure=secure)
    return answer


def error_page(request: Request, problem: Problem) -> Response:
    """A problem as a page, for a browser that asked for one."""
    answer = render(request, "error.html", status=problem.status, problem=problem)
    answer.headers.update(problem.headers)
    return answer


def joined(words: Words, names: list[str], shown: int = 5) -> Markup:
    """Names of the user's in one line, the rest counted."""
    listed = Markup(", ").join(isolated(one, 60) for one in names[:shown])
    if len(names) <= shown:
        return escape(listed)
    return words("warn.more", names=listed, n=len(names) - shown)
