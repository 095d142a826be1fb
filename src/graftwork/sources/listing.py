"""All that is known of sources: the catalogue's, and those on this machine, whether or not they are sound."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from graftwork import catalogue
from graftwork.catalogue import Entry
from graftwork.errors import GraftworkError, MissingExtra, RequestError
from graftwork.rows import Kind
from graftwork.sources import finding, pins, registered
from graftwork.sources.packaged import PACKAGED, packaged
from graftwork.sources.source import Source

Where = Literal["packaged", "registered", "GRAFT_SOURCES", "hub cache", "path"]


@dataclass(frozen=True)
class Known:
    """A source by name. entry: what the catalogue says of it. source: its files, where they could be read.

    where: how it is at hand, None where it is not. fault: why it cannot be used as it is, None where
    nothing is known against it.
    """

    name: str
    entry: Entry | None = None
    source: Source | None = None
    where: Where | None = None
    folder: Path | None = None
    fault: str | None = None

    @property
    def kind(self) -> Kind | None:
        return self.source.kind if self.source else self.entry.kind if self.entry else None

    @property
    def licence(self) -> str | None:
        stated = self.source.licence if self.source else None
        return stated or (self.entry.licence if self.entry else None)

    def plain(self) -> dict[str, Any]:
        """Everything as plain JSON; None for what is not known."""
        entry, source = self.entry, self.source
        figures = ("hub", "architecture", "parameters", "operations", "width", "input_size", "domain", "data")
        return {
            "name": self.name,
            "kind": self.kind,
            "local": self.where is not None,
            "where": self.where,
            "folder": str(self.folder) if self.folder else None,
            "origin": source.origin if source else "hub",
            "licence": self.licence,
            "commercial_use": catalogue.commercial_use(self.licence),
            "size": entry.size if entry else None,
            **{name: getattr(entry, name) if entry else None for name in figures},
            "languages": list(entry.languages) if entry else [],
            "remark": entry.remark if entry else None,
            "revision": source.revision if source else entry.revision if entry else None,
            "weights_sha256": source.weights_sha256 if source else None,
            "files": dict(source.files) if source else {},
            "fault": self.fault,
        }


def listing(
    kind: Kind | None = None,
    *,
    licence: str | None = None,
    size: str | None = None,
    language: str | None = None,
    local: bool = False,
) -> list[Known]:
    """Every source known that fits the filters given: the catalogue's in its order, then the others by name.

    local: only those on this machine. The other filters are those of `catalogue.entries`; a source of
    which the catalogue knows no size or language fits none that is asked for; one that is so unsound
    that its kind cannot be told is of every kind, for it must not go unseen.
    """
    wanted = None if size is None else catalogue.check_size(size)
    found = {one.name: one for one in _all()}
    listed = [one.name for one in catalogue.entries()]
    order = [*listed, *sorted(found.keys() - set(listed))]
    return [
        one
        for one in (found[name] for name in order)
        if (kind is None or one.kind == kind or (one.kind is None and one.fault is not None))
        and (not local or one.where is not None)
        and (wanted is None or (one.entry is not None and one.entry.size == wanted))
        and catalogue.fits_licence(one.licence, licence)
        and catalogue.fits_language(one.entry.languages if one.entry else (), language)
    ]


def look_up(name: str) -> Known:
    """What is known of one source, by name, path or hub id, without fetching it.

    Raises RequestError where nothing is, and what `find` raises for one on this machine that is unsound.
    """
    entry = catalogue.entry(name)
    known = {one.name: one for one in _all()}
    found = known.get(entry.name if entry else name)
    fetched = found is None or found.where in (None, "hub cache")
    if found is not None and found.source is not None and not fetched:
        return found
    address = finding.hub_address(name) if fetched and not finding.exists(name) else None
    if address is None:
        source = finding.find(name, offline=True)
        return Known(name, entry, source, "path", source.folder)
    cached = finding.peek(address)
    if cached is not None:
        return Known(cached.name, entry, cached, "hub cache", cached.folder)
    if found is not None:
        return found
    raise RequestError(
        f"{name!r} is neither in the catalogue{catalogue.near(name, finding.known_names())} nor on this "
        f"machine; fetch it with: graft sources add {name}"
    )


def _all() -> Iterator[Known]:
    """Everything by name; of two of one name the later is the one that `find` gives."""
    for address in finding.addresses():
        yield _of_hub(address)
    for source in finding.listed():
        yield Known(source.name, None, source, "GRAFT_SOURCES", source.folder)
    for name in registered.names():
        yield _registered(name)
    for name in PACKAGED:
        yield _packaged(name)


def _packaged(name: str) -> Known:
    entry = catalogue.entry(name)
    try:
        source = packaged(name)
    except MissingExtra as missing:
        return Known(name, entry, fault=str(missing))
    except GraftworkError as error:
        return Known(name, entry, where="packaged", fault=str(error))
    return Known(name, entry, source, "packaged", source.folder)


def _registered(name: str) -> Known:
    try:
        source = registered.registered(name)
    except RequestError as error:
        return Known(name, where="registered", fault=str(error))
    assert source is not None, "removed meanwhile"
    return Known(name, None, source, "registered", source.folder)


def _of_hub(address: str) -> Known:
    """A hub model; its files are read only where they are in the hub's cache and pinned."""
    repository = address.partition("@")[0]
    entry = catalogue.entry(repository)
    if entry is not None and entry.address != address:
        entry = None
    name = entry.name if entry else address
    try:
        folder = finding.in_hub_cache(address)
        if folder is None:
            return Known(name, entry)
        # one that another program fetched is read when it is asked for: digests of gigabytes take a while
        source = finding.peek(address) if pins.pinned("pins", address) else None
    except RequestError as error:
        return Known(name, entry, where="hub cache", fault=str(error))
    return Known(name, entry, source, "hub cache", folder)
