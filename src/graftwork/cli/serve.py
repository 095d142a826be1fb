"""`graft serve`: the HTTP API and the page, for the artefacts of a folder; `graft key`: who may ask it."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args
from urllib.parse import urlsplit

import typer

from graftwork import console
from graftwork.cli.app import Json, Offline, Quiet, app, guarded, size
from graftwork.errors import MissingExtra, RequestError, UnknownName

if TYPE_CHECKING:
    from graftwork.service.server import Ready
    from graftwork.service.settings import Quotas

LOOPBACK = ("127.0.0.1", "::1", "localhost")
_MOST_DAYS = 36_500
Root = Annotated[Path, typer.Argument(help="Holds artefacts to serve, and all the service keeps.")]
Base = Annotated[
    str | None,
    typer.Option("--database", help="postgresql://USER@HOST/NAME. Default: SQLite under ROOT."),
]


@app.command()
@guarded
def serve(
    root: Root = Path(),
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for every one.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any that is free.")] = 8000,
    address: Annotated[
        str | None, typer.Option(help="Where a proxy with TLS shows it: https://graft.example.org.")
    ] = None,
    database: Base = None,
    workers: Annotated[int, typer.Option(min=0, help="Jobs that run at once.")] = 1,
    readers: Annotated[int | None, typer.Option(min=1, help="Processes that decode uploads.")] = None,
    head_memory: Annotated[str, typer.Option(help="Memory for heads.")] = "500MB",
    backbone_memory: Annotated[str, typer.Option(help="Memory for backbones.")] = "4GB",
    quota: Annotated[
        list[str] | None,
        typer.Option(help="NAME=NUMBER or NAME=none for each owner: bytes, rows, jobs, requests, models."),
    ] = None,
    link: Annotated[
        bool, typer.Option("--link", help="Give a sign-in link even where somebody can sign in.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
    offline: Offline = False,
) -> None:
    """Serve artefacts over HTTP, with a page to make more of them."""
    from graftwork.service.settings import Settings

    settings = Settings(
        root=root.resolve(),
        host=host,
        port=port,
        address=_address(address),
        database=database,
        workers=workers,
        readers=readers,
        head_memory=size(head_memory),
        backbone_memory=size(backbone_memory),
        offline=offline,
        quotas=_quotas(quota or []),
        link=link,
    )
    with _extra("graft serve"):
        from graftwork.service import server

    def ready(found: "Ready") -> None:
        if json:
            console.emit({"url": found.url, "link": found.link})
        else:
            console.say(f"serving {settings.root} at {found.url}")
            if found.link is not None:
                console.say(f"open once, to sign in as admin: {found.link}")
        if host not in LOOPBACK and address is None:
            console.note(
                f"graft: {host} may be reached from elsewhere, and keys go over the line as they are: put a "
                "proxy with TLS before it",
                quiet=quiet,
            )

    logging.basicConfig(format=f"%(asctime)s server {os.getpid()}: %(message)s")  # as its workers have it
    server.serve(settings, ready)


@app.command()
@guarded
def key(
    root: Root = Path(),
    owner: Annotated[str, typer.Option(help="Whose it is; made where there is none.")] = "operator",
    scope: Annotated[
        str, typer.Option(help="predict: ask models. write: all that is the owner's. admin: keys, owners.")
    ] = "write",
    name: Annotated[str, typer.Option(help="By which lists show it.")] = "command line",
    days: Annotated[float | None, typer.Option(help="Until it is over. Default: never.")] = None,
    database: Base = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make an API key for the service of a folder, and print it: the only time that it is shown."""
    from graftwork.service.settings import Settings

    with _extra("graft key"):
        from graftwork.service.database.tables import Scope
        from graftwork.service.granting import grant
    if scope not in get_args(Scope):
        raise UnknownName("scope", scope, get_args(Scope))
    if days is not None and not 0 < days <= _MOST_DAYS:
        raise RequestError(f"--days {days:g} seen; expected more than none and at most {_MOST_DAYS:,}")
    seconds = None if days is None else days * 86_400
    made = grant(Settings(root.resolve(), database=database), owner, name, cast("Scope", scope), seconds)
    if json:
        console.emit({"key": made.key, "id": made.id, "owner": made.owner, "scope": scope})
    else:
        if made.remark is not None:
            console.note(f"graft: {made.remark}", quiet=quiet)
        console.say(made.key)


@contextmanager
def _extra(command: str) -> Iterator[None]:
    """What is imported within comes with the extra `service`."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("graftwork"):
            raise
        raise MissingExtra(command, "service") from error


def _address(said: str | None) -> str | None:
    if said is None:
        return None
    try:
        parts = urlsplit(said)
        is_site = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets or a port that are none
        is_site = False
    if not is_site or parts[2:] not in (("", "", ""), ("/", "", "")):
        raise RequestError(
            f"--address {said!r} is no address of a site; expected one without a path, as "
            "https://graft.example.org"
        )
    return said.rstrip("/")


def _quotas(said: list[str]) -> "Quotas":
    from graftwork.service.settings import Quotas

    found, known = Quotas(), [one.name for one in fields(Quotas)]
    for one in said:
        name, _, value = one.partition("=")
        if name not in known or not value:
            raise RequestError(
                f"--quota {one!r} is unclear; expected NAME=NUMBER, NAME of {', '.join(known)}"
            )
        number = None if value == "none" else size(value) if name == "bytes" else _whole(one, value)
        found = replace(found, **{name: number})
    return found


def _whole(said: str, value: str) -> int:
    if not value.isdecimal():
        raise RequestError(f"--quota {said!r} is unclear; expected a whole number or none")
    return int(value)
