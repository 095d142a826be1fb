"""The page's addresses. What they show comes from the functions behind /v1; what they do is done there."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from graftwork.service import security
from graftwork.service.callers import Caller
from graftwork.service.context import Here
from graftwork.service.context import caller as caller_of
from graftwork.service.middleware import bound_tries, cookie_name, field_of
from graftwork.service.pages import looking
from graftwork.service.pages.rendering import HERE, render
from graftwork.service.pages.wording import Words, language_of
from graftwork.service.returning import HOME, place

router = APIRouter(include_in_schema=False)
Who = Annotated[Caller, Depends(caller_of)]
Source = Annotated[str, Query(max_length=200)]
Cursor = Annotated[str | None, Query(max_length=200)]


def mount(app: FastAPI) -> None:
    """Adds the page and its static files."""
    app.include_router(router)
    app.mount("/static", _Static(directory=HERE / "static"), name="static")


class _Static(StaticFiles):
    """Kept by the browser, and asked after each time: a new release shows at once."""

    def file_response(self, *args: Any, **more: Any) -> Response:
        answer = super().file_response(*args, **more)
        answer.headers["Cache-Control"] = "no-cache"
        return answer


@router.get("/")
def home(request: Request, here: Here, caller: Who) -> Response:
    return render(request, "home.html", **looking.home(here, caller))


@router.get("/datasets")
def datasets(request: Request, here: Here, caller: Who, cursor: Cursor = None) -> Response:
    return render(request, "list.html", what="data", **looking.datasets(here, caller, cursor))


@router.get("/models")
def models(request: Request, here: Here, caller: Who, cursor: Cursor = None) -> Response:
    return render(request, "list.html", what="models", **looking.models(here, caller, cursor))


@router.get("/jobs")
def jobs(request: Request, here: Here, caller: Who, cursor: Cursor = None) -> Response:
    return render(request, "list.html", what="jobs", **looking.jobs(here, caller, cursor))


@router.get("/datasets/{dataset}")
def dataset(request: Request, here: Here, caller: Who, dataset: str, source: Source = "auto") -> Response:
    shown = looking.dataset(_words(request), here, caller, dataset, source)
    return render(request, "dataset.html", **shown)


@router.get("/jobs/{job}")
def job(request: Request, here: Here, caller: Who, job: str) -> Response:
    return render(request, "job.html", **looking.job(_words(request), here, caller, job))


@router.get("/models/{model}")
def model(request: Request, here: Here, caller: Who, model: str) -> Response:
    address = (here.settings.address or str(request.base_url)).rstrip("/")
    return render(request, "model.html", **looking.model(_words(request), here, caller, model, address))


@router.get("/settings")
def settings(request: Request, here: Here, caller: Who) -> Response:
    return render(request, "settings.html", **looking.settings(here, caller))


@router.get("/sign-in")
def sign_in_page(request: Request) -> Response:
    return render(request, "sign_in.html", link=None, said=None, to=place(request.query_params.get("to")))


@router.get("/sign-in/{link}")
def link_page(request: Request, link: str) -> Response:
    """A button only: what previews or prefetches a link must not spend it."""
    return render(request, "sign_in.html", link=link, said=None, to=HOME)


@router.post("/sign-in")
async def sign_in(request: Request, here: Here) -> Response:
    # read by our own few words: a multipart form would be read in whatever charset it names
    said = await request.body()
    return await _enter(request, here, field_of(said, "key").strip(), None, place(field_of(said, "to")))


@router.post("/sign-in/{link}")
async def enter_by_link(request: Request, here: Here, link: str) -> Response:
    return await _enter(request, here, link, link, HOME)


@router.post("/sign-out")
def sign_out(request: Request, here: Here) -> Response:
    token = request.cookies.get(cookie_name(request.scope))
    if token is not None:
        security.close_session(here.database, token)
        here.passes.forget(hash=security.digest(token))
    answer = RedirectResponse("/sign-in", 303)
    security.drop_cookie(answer, secure=_is_secure(request))
    return answer


async def _enter(request: Request, here: Here, secret: str, link: str | None, to: str) -> Response:
    """to: a page of this site."""
    token = await run_in_threadpool(security.open_session, here.database, secret)
    if token is None:
        bound_tries(here, request.scope)
        said = _words(request)("sign_in.wrong" if link is None else "sign_in.spent")
        return render(request, "sign_in.html", status=403, link=None, said=said, to=to)
    answer = RedirectResponse(to, 303)
    security.set_cookie(answer, token, secure=_is_secure(request))
    return answer


def _is_secure(request: Request) -> bool:
    return request.url.scheme == "https"


def _words(request: Request) -> Words:
    return Words(language_of(request))
