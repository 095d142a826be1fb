"""What a source was when it was first used or added, so that no later use takes other files silently."""

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from graftwork.errors import ArtefactError
from graftwork.sources import ledger
from graftwork.sources.ledger import Shelf
from graftwork.sources.source import Source


class PinWarning(UserWarning):
    """A source is used without being remembered."""


@dataclass(frozen=True)
class Pin:
    """A source as it was on a day. name: as it is asked for. place: the hub commit, or the local path.

    files: relative file name -> SHA-256 (hex). licence: as stated then, for use without a connection.
    """

    name: str
    place: str
    files: Mapping[str, str]
    licence: str | None
    since: str


def pinned(shelf: Shelf, name: str) -> Pin | None:
    """The pin of that name, None where there is none; raises ArtefactError where it is damaged."""
    found = ledger.read(shelf, name)
    if found is None:
        return None
    try:
        licence = found["licence"]
        pin = Pin(
            str(found["name"]),
            str(found["place"]),
            {str(file): str(digest) for file, digest in found["files"].items()},
            None if licence is None else str(licence),
            str(found["since"]),
        )
    except (KeyError, AttributeError) as error:
        raise ledger.damaged(shelf, name) from error
    if pin.name != name:
        raise ledger.damaged(shelf, name)
    return pin


def pin(shelf: Shelf, name: str, place: str, source: Source) -> Pin:
    """Remember the source as it is now, in place of what was remembered; raises OSError."""
    made = Pin(name, place, dict(source.files), source.licence, datetime.now(UTC).date().isoformat())
    ledger.write(shelf, name, asdict(made))
    return made


def settle(name: str, known: Pin | None, source: Source) -> None:
    """Refuse a hub source that is not as it was pinned; pin it where it is used for the first time."""
    if known is not None:
        require_same(known, source)
        return
    assert source.revision is not None
    try:
        pin("pins", name, source.revision, source)
    except OSError as error:
        # a home that cannot be written costs the protection, which is said, not the work
        warnings.warn(
            f"{name} could not be pinned ({error.strerror}): that it changes later will not be noticed",
            PinWarning,
            stacklevel=2,
        )


def require_same(known: Pin, source: Source) -> None:
    """Raises ArtefactError, naming the first file that is not as it was."""
    for file, digest in known.files.items():
        seen = source.files.get(file)
        if seen == digest:
            continue
        what = f"has SHA-256 {seen[:12]}..., then {digest[:12]}..." if seen else "is not there any more"
        fetched = source.origin == "hub"
        mend = f"remove {source.folder} to fetch it again" if fetched else "restore it"
        under = f" at revision {known.place[:12]}" if fetched else ""
        raise ArtefactError(
            f"source {known.name!r} has changed{under} since {known.since}: {file} {what}; {mend}, "
            f"or accept it as it is now: graft sources add {_add(known, source)}"
        )


def _add(known: Pin, source: Source) -> str:
    return known.name if source.origin == "hub" else f"{known.place} --name {known.name}"
