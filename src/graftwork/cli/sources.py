"""`graft sources`: the pretrained models at hand."""

from typing import Annotated

import typer

from graftwork import console
from graftwork.cli.app import (
    Json,
    Offline,
    Quiet,
    app,
    guarded,
)
from graftwork.errors import RequestError


@app.command()
@guarded
def sources(
    action: Annotated[str, typer.Argument(help="list or show")] = "list",
    name: Annotated[str | None, typer.Argument(help="The source to show.")] = None,
    json: Json = False,
    quiet: Quiet = False,
    offline: Offline = False,
) -> None:
    """List the pretrained models at hand, or show one: kind, licence, files and their SHA-256."""
    from graftwork import sources as catalogue

    if action not in ("list", "show"):
        raise RequestError(f"sources has no action {action!r}; expected list or show")
    if action == "show" and name is None:
        raise RequestError("which source? Expected a name, as in: graft sources show minilm")
    found = catalogue.available() if name is None else [catalogue.find(name, offline=offline)]
    described = [
        {
            "name": one.name,
            "kind": one.kind,
            "origin": one.origin,
            "revision": one.revision,
            "licence": one.licence,
            "weights_sha256": one.weights_sha256,
            "folder": str(one.folder),
            "files": dict(one.files),
        }
        for one in found
    ]
    if json:
        console.emit({"sources": described})
    elif action == "show":
        console.say(console.described(described[0]))
    elif not described:
        console.say("no source at hand; try: pip install 'graftwork[offline]', or set GRAFT_SOURCES")
    else:
        columns = ("name", "kind", "origin", "licence", "folder")
        console.say(console.table(columns, [[str(one[c] or "-") for c in columns] for one in described]))
