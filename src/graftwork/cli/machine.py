"""This machine: `graft doctor`, and `graft cache` for the feature store."""

from typing import Annotated

import typer

from graftwork.cli.app import (
    Json,
    Offline,
    Quiet,
    app,
    guarded,
    show,
    size,
)

cache = typer.Typer(help="The feature store.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(cache, name="cache")


@cache.command("info")
@guarded
def cache_info(json: Json = False, quiet: Quiet = False) -> None:
    """Show what the feature store holds."""
    from graftwork import store

    show(store.info(store.folder()), json)


@cache.command("prune")
@guarded
def cache_prune(
    limit: Annotated[str, typer.Option(help="Keep at most this much, such as 500MB or 2GB.")] = "0",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Drop the features used longest ago until the store fits the limit."""
    from graftwork import store

    show(store.prune(store.folder(), size(limit)), json)


@cache.command("verify")
@guarded
def cache_verify(json: Json = False, quiet: Quiet = False) -> None:
    """Check every stored feature against its checksum and drop what is damaged."""
    from graftwork import store

    show(store.verify(store.folder()), json)


@app.command()
@guarded
def doctor(json: Json = False, quiet: Quiet = False, offline: Offline = False) -> None:
    """Show what this machine can do: processor features, engine, precision, hub, store."""
    from graftwork.doctor import examine

    show(examine(offline=offline), json)
