"""Models: fitted or brought here, and those under ROOT; their reports and artefacts."""

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import Path as InPath
from fastapi import Query, Request
from sqlalchemy import delete
from starlette.responses import FileResponse, Response, StreamingResponse

from graftwork import manifest
from graftwork.errors import ArtefactError
from graftwork.service import shapes
from graftwork.service.callers import Caller
from graftwork.service.context import Service, service
from graftwork.service.database.tables import Model
from graftwork.service.erasing import drop_artefact
from graftwork.service.models import Known
from graftwork.service.pagination import Limit
from graftwork.service.problems import Problem, not_found
from graftwork.service.security import Predicts, Writes
from graftwork.service.strict import router as new_router
from graftwork.service.zipping import zipped

router = new_router("models")
Cursor = Annotated[str | None, Query(max_length=9_000, description="next_cursor of the page before")]
Named = Annotated[str, InPath(max_length=9_000, description="its id, or a name without a slash")]
REPORT_POLICY = (
    "sandbox; default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
"""A report may hold what its data held, and one that was brought here what anybody wrote: it runs nothing,
asks for nothing, and is of no origin."""


@router.get("/models", response_model=shapes.Page[shapes.Model])
def list_models(request: Request, caller: Predicts, cursor: Cursor = None, limit: Limit = 50) -> Any:
    """Those under ROOT first (the operator's alone), then the newest."""
    return listed(service(request), caller, cursor, limit)


@router.get("/models/{model}", response_model=shapes.ModelInFull)
def get_model(request: Request, caller: Predicts, model: Named) -> Any:
    return in_full(service(request), caller, model)


@router.get(
    "/models/{model}/report", response_class=Response, responses={200: {"content": {"text/html": {}}}}
)
def report(request: Request, caller: Predicts, model: Named) -> Response:
    """The page that `graft report` shows; it runs no script."""
    path = service(request).models.find(caller, model).folder / "report.html"
    if not path.is_file():
        raise not_found("report of the model", model)
    headers = {"Content-Security-Policy": REPORT_POLICY, "Cache-Control": "private, no-cache"}
    return FileResponse(path, media_type="text/html", headers=headers)


@router.get(
    "/models/{model}/artefact", response_class=Response, responses={200: {"content": {"application/zip": {}}}}
)
def artefact(request: Request, caller: Predicts, model: Named) -> Response:
    """A zip of NAME.graft, each file verified before the first byte is sent."""
    found = service(request).models.find(caller, model)
    said = verified(found)
    name = shapes.model_name(found.name.rpartition("/")[2])
    files = {f"{name}.graft/{one}": found.folder / one for one in ("manifest.json", *sorted(said.files))}
    return StreamingResponse(
        zipped(files),
        media_type="application/zip",
        headers={
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name + '.graft.zip', safe='')}",
            "ETag": f'"{found.digest}"',
        },
    )


@router.patch("/models/{model}", response_model=shapes.Model)
def rename(request: Request, caller: Writes, model: Named, body: shapes.Renamed) -> Any:
    here = service(request)
    found = here.models.find(caller, model)
    _require_ours(found, "renamed")
    here.models.require_free(caller, body.name)
    with here.database.write() as session:
        row = session.get(Model, found.id, with_for_update=True)
        if row is None:
            raise not_found("model", model)
        row.name = body.name
    return here.models.rename(found.id, body.name).shape()


@router.delete("/models/{model}", status_code=204)
def delete_model(request: Request, caller: Writes, model: Named) -> None:
    """With its artefact, unless another model has the same. It answers no more from now on."""
    here = service(request)
    found = here.models.find(caller, model)
    _require_ours(found, "deleted")
    with here.database.write() as session:
        session.execute(delete(Model).where(Model.id == found.id))
    here.models.forget(found.id)
    drop_artefact(here, found.digest)


def listed(here: Service, caller: Caller, cursor: str | None, limit: int) -> dict[str, Any]:
    """A page of what the caller may ask, as `shapes.Page[shapes.Model]`."""
    found, following = here.models.page(caller, cursor, limit)
    return {"items": [known.shape() for known in found], "next_cursor": following}


def one(here: Service, caller: Caller, model: str) -> dict[str, Any]:
    """What the caller may ask under that id or name, as `shapes.Model`."""
    return here.models.find(caller, model).shape()


def in_full(here: Service, caller: Caller, model: str) -> dict[str, Any]:
    """The same with what its manifest says, as `shapes.ModelInFull`."""
    found = here.models.find(caller, model)
    try:
        said, _ = manifest.read(found.folder)
    except ArtefactError as error:
        raise damaged(found, error) from error
    return {
        **found.shape(),
        "result": said.result,
        "settings": said.settings,
        "machine": said.machine,
        "versions": said.versions,
        "licence": None if said.source is None else said.source.licence,
    }


def verified(found: Known) -> manifest.Manifest:
    """Its manifest, after every file was compared with it; raises a Problem."""
    try:
        return manifest.inspect(found.folder)
    except ArtefactError as error:
        raise damaged(found, error) from error


def damaged(found: Known, error: ArtefactError) -> Problem:
    """404 where the artefact is gone, 409 where it is there and cannot be used."""
    if not (found.folder / "manifest.json").is_file():
        return not_found("model", found.name)
    detail = str(error).replace(str(found.folder), f"the artefact of {found.name[:80]!r}")
    return Problem(409, "artefact-damaged", detail)


def _require_ours(found: Known, what: str) -> None:
    if found.place == "root":
        raise Problem(
            409, "lies-in-root", f"{found.name[:80]!r} lies in the folder that is served; there it is {what}"
        )
