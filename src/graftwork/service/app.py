"""The application: every route behind one front, every failure a problem, and the document of it all."""

import re
from dataclasses import replace
from typing import Any

from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from starlette.responses import Response

from graftwork import __version__
from graftwork.service import pages
from graftwork.service.answers import MEDIA_TYPE, TRANSLATED, problem_of
from graftwork.service.context import Service
from graftwork.service.middleware import PUBLIC, Front, refusal
from graftwork.service.routes import (
    backbones,
    datasets,
    files,
    health,
    jobs,
    keys,
    models,
    owners,
    predict,
    usage,
)

PARTS = (predict, files, datasets, jobs, models, backbones, keys, owners, usage, health)
"""In the order in which a request's path is compared: what is asked most comes first."""

_PROBLEM: dict[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code", "request_id"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "one line: what was seen, expected, to do next"},
        "code": {"type": "string", "description": "stable, for programs"},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["pointer", "detail"],
                "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
    },
}
_DEFAULT: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "A problem (RFC 9457)",
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
}


def create_app(service: Service) -> FastAPI:
    """All routes over `service`; the server runs what else it is made of."""
    app = FastAPI(
        title="Graftwork",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        responses=_DEFAULT,
        redirect_slashes=False,
    )
    app.state.service = service
    app.add_middleware(Front, service=service, quick={("POST", "/v1/predict"): predict.predict})
    for kind in TRANSLATED:
        app.add_exception_handler(kind, _refuse)
    for part in PARTS:
        app.include_router(part.router)
    pages.mount(app)
    app.openapi = lambda: _document(app)  # type: ignore[method-assign]  # the documented way to add to it
    return app


def _refuse(request: Request, error: Exception) -> Response:
    problem = problem_of(error)
    if problem is None:
        raise error
    if problem.status == 405:  # the router names the methods of the first route alone
        problem = replace(problem, headers={"Allow": _allowed(request) or problem.headers["Allow"]})
    return refusal(problem, request, request.state.request_id)


def _allowed(request: Request) -> str:
    """The methods of all routes with the request's path; empty for a page."""
    methods: set[str] = set()
    for path, routes in request.app.openapi()["paths"].items():
        if re.fullmatch(re.sub(r"{\w+}", "[^/]+", path), request.url.path):
            methods.update(method.upper() for method in routes)
    return ", ".join(sorted(methods))


def _document(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        found = get_openapi(
            title=app.title, version=app.version, routes=app.routes, summary="Transfer learning"
        )
        components = found.setdefault("components", {})
        components.setdefault("schemas", {})["Problem"] = _PROBLEM
        components["securitySchemes"] = {
            "key": {"type": "http", "scheme": "bearer", "description": "An API key: gw_..."},
            "page": {
                "type": "apiKey",
                "in": "cookie",
                "name": "graftwork",
                "description": "A signed-in page",
            },
        }
        found["security"] = [{"key": []}, {"page": []}]
        for path, routes in found["paths"].items():
            if path in PUBLIC:
                for route in routes.values():
                    route["security"] = []
        app.openapi_schema = found
    return app.openapi_schema
