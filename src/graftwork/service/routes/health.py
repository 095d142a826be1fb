"""Whether the service lives, whether it is ready, and its figures."""

from typing import Any

from fastapi import APIRouter
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import Response

from graftwork.service.context import Here
from graftwork.service.problems import unavailable
from graftwork.service.security import Administers
from graftwork.service.strict import router as strict_router

router: APIRouter = strict_router("health", prefix="")


@router.get("/healthz")
async def healthz() -> dict[str, Any]:
    """The process lives and answers."""
    return {"status": "ok"}


@router.get("/readyz")
def readyz(here: Here) -> dict[str, Any]:
    """It can work: the database answers, the workers run, and it is not about to end; 503 otherwise."""
    if here.draining:
        raise unavailable("the server is ending")
    try:
        with here.database.read() as session:
            session.execute(text("SELECT 1"))
    except SQLAlchemyError:
        raise unavailable("the database does not answer") from None
    if not here.workers():
        raise unavailable("no worker runs")
    return {"status": "ready"}


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def metrics(here: Here, caller: Administers) -> Response:
    """Figures for Prometheus."""
    return Response(here.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
