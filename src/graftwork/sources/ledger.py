"""Small records by name under GRAFT_HOME: what was pinned, what was registered. Never silently made anew."""

import json
import os
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, unquote

from graftwork import paths
from graftwork.errors import ArtefactError

Shelf = Literal["registered", "pins"]
SHELVES: tuple[Shelf, ...] = ("registered", "pins")


def place(shelf: Shelf, name: str) -> Path:
    """The file that holds the record `name`, which need not exist."""
    return paths.home() / shelf / f"{quote(name, safe='@')}.json"


def names(shelf: Shelf) -> list[str]:
    """Every name that has a record, sorted."""
    folder = paths.home() / shelf
    found = sorted(folder.glob("*.json")) if folder.is_dir() else []
    return [unquote(path.stem) for path in found if not path.name.startswith(".")]


def read(shelf: Shelf, name: str) -> dict[str, Any] | None:
    """The record, None where there is none; raises ArtefactError where it is damaged."""
    path = place(shelf, name)
    if not os.path.isfile(path):  # noqa: PTH113  # a name may be too long to be a file's: then there is none
        return None
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise damaged(shelf, name) from error
    if not isinstance(found, dict):
        raise damaged(shelf, name)
    return found


def write(shelf: Shelf, name: str, record: dict[str, Any]) -> None:
    """Write the record whole or not at all; raises OSError."""
    text = json.dumps(record, ensure_ascii=False, indent=1) + "\n"
    paths.replace_file(place(shelf, name), text.encode())


def drop(shelf: Shelf, name: str) -> None:
    """Remove the record where there is one; raises OSError."""
    place(shelf, name).unlink(missing_ok=True)


def damaged(shelf: Shelf, name: str) -> ArtefactError:
    return ArtefactError(
        f"{place(shelf, name)} is damaged: what source {name!r} was is not known any more; "
        f"remove the file, then accept the source as it is now: graft sources add {name}"
    )
