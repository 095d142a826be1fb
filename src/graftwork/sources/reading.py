"""From a folder or file to a source, by the first registered reader that recognises it."""

from pathlib import Path
from typing import Any

from graftwork import registry
from graftwork.errors import ArtefactError
from graftwork.sources.source import Origin, Source


def read(
    path: Path,
    *,
    name: str,
    origin: Origin = "local",
    revision: str | None = None,
    licence: str | None = None,
) -> Source:
    """The source in a folder or file, checked as far as is possible without loading it.

    Raises ArtefactError for what no reader recognises or what is damaged, RequestError for a source of
    a kind that cannot be used.
    """
    reader = _reader(path)
    if reader is None:
        raise ArtefactError(
            f"{path} has no config.json and is of no other known family; expected a model directory in "
            "Hugging Face form, or what else graft sources --help names"
        )
    found: Source = reader.read(path, name=name, origin=origin, revision=revision, licence=licence)
    return found


def _reader(path: Path) -> Any | None:
    readers = (registry.get("sources", name) for name in registry.names("sources"))
    return next((reader for reader in readers if reader.recognises(path)), None)
