"""Local sources that the user registered by name: found from anywhere, refused once their files change."""

import os
import re
from pathlib import Path

from graftwork import catalogue
from graftwork.errors import ArtefactError, RequestError, WorkError
from graftwork.sources import ledger, pins
from graftwork.sources.packaged import PACKAGED
from graftwork.sources.reading import read
from graftwork.sources.source import Source

_NAME = re.compile(r"\w[\w.+-]*")


def names() -> list[str]:
    """Every registered name, sorted."""
    return ledger.names("registered")


def registered(name: str) -> Source | None:
    """The registered source of that name, None where there is none.

    Raises ArtefactError where its files are gone or are not as they were when it was added.
    """
    known = pins.pinned("registered", name)
    if known is None:
        return None
    path = Path(known.place)
    if not path.exists():
        raise ArtefactError(
            f"source {name!r} was added from {path}, where nothing is any more; put it back, add it from "
            f"where it is now, or forget it: graft sources remove {name}"
        )
    source = read(path, name=name, licence=known.licence)
    pins.require_same(known, source)
    return source


def add(path: Path, *, name: str | None = None, licence: str | None = None) -> Source:
    """Register the folder or file under `name` (by default its own), with the digests it has now.

    licence: what its files do not state themselves. Adding it again accepts it as it is then. Raises
    RequestError for a name that is no name or another source's.
    """
    path = path.resolve()
    name = path.name if name is None else name
    if not _NAME.fullmatch(name):
        raise RequestError(
            f"{name!r} is no name for a source; expected letters, digits, . + - _: give --name"
        )
    if name in PACKAGED or catalogue.entry(name) is not None:
        raise RequestError(f"{name!r} is a source of the catalogue; give this one another name with --name")
    source = read(path, name=name, licence=licence)
    try:
        pins.pin("registered", name, os.fspath(path), source)
    except OSError as error:
        raise WorkError(
            f"{name!r} cannot be registered: {error.filename}: {error.strerror}; free space or set GRAFT_HOME"
        ) from error
    return source


def remove(name: str) -> None:
    """Forget a registered source, or the pin of a hub source; its files stay. Raises RequestError."""
    shelf = next((one for one in ledger.SHELVES if name in ledger.names(one)), None)
    if shelf is None:
        known = sorted({*ledger.names("registered"), *ledger.names("pins")})
        raise RequestError(
            f"no source {name!r} was added or pinned here{catalogue.near(name, known)}; "
            f"known: {', '.join(known) or 'none'}"
        )
    try:
        ledger.drop(shelf, name)
    except OSError as error:
        raise WorkError(f"{ledger.place(shelf, name)} cannot be removed: {error.strerror}") from error
