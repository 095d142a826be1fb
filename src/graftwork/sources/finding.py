"""From a name to a source: where sources are looked for, and what is said where there is none."""

import os
from collections.abc import Iterator
from pathlib import Path

from graftwork import catalogue, paths, registry
from graftwork.errors import ArtefactError, MissingExtra, RequestError
from graftwork.rows import Kind
from graftwork.sources import ledger, pins, registered
from graftwork.sources.packaged import PACKAGED, packaged
from graftwork.sources.reading import read
from graftwork.sources.source import Source


def find(name: str, *, offline: bool = False) -> Source:
    """The source called `name`: packaged, SCHEME:REST, a path, registered, in GRAFT_SOURCES, catalogue, hub.

    A hub id may carry a revision: "owner/model@revision". Its first use pins the commit and the files'
    digests; later ones take that commit. Raises RequestError where there is none of that name or it is of
    a kind that cannot be used, MissingExtra for one that needs an extra which is not installed,
    ArtefactError for damaged files and for those that changed since they were pinned or registered,
    WorkError where the hub does not answer.
    """
    if name in PACKAGED:
        return packaged(name)
    offline = offline or paths.offline()
    scheme, colon, rest = name.partition(":")
    if colon and scheme in registry.names("schemes"):
        made: Source = registry.get("schemes", scheme)(rest, offline=offline)
        return made
    found = _here(name)
    if found is not None:
        return found
    address = hub_address(name)
    if address is not None:
        return from_hub(address, offline=offline)
    known = [*known_names(), *(f"{scheme}:{rest}" for scheme in registry.names("schemes") if colon)]
    here = ", ".join(source.name for source in available()) or "none"
    lost = "".join(f" ({root} is none)" for root in paths.source_folders() if not root.is_dir())
    raise RequestError(
        f"no source {name!r}{catalogue.near(name, known)}: no such file or folder, and no folder listed in "
        f"GRAFT_SOURCES holds it{lost}; sources on this machine: {here}; what else is known: graft sources"
    )


def from_hub(address: str, *, offline: bool, afresh: bool = False) -> Source:
    """A hub model as it was pinned, or pinned now; `afresh` takes and pins what the hub has now.

    address: "owner/model" or "owner/model@revision". See `find` for errors.
    """
    from graftwork.sources.hub import fetch

    known = None if afresh else pins.pinned("pins", address)
    got = fetch(
        address,
        offline=offline,
        pinned=known.place if known else None,
        files=tuple(known.files) if known else (),
    )
    source = _of_hub(address, got.folder, got.revision, got.licence or (known.licence if known else None))
    pins.settle(address, known, source)
    return source


def available(kind: Kind | None = None) -> list[Source]:
    """Every readable source on this machine, by name.

    Packaged ones, those that were registered, those under GRAFT_SOURCES, and models of the catalogue or
    pinned ones that are in the hub's cache.
    """
    found = {source.name: source for source in (*listed(), *_registered())}
    for name in PACKAGED:
        try:
            found[name] = packaged(name)
        except (MissingExtra, ArtefactError):
            continue  # not installed here; `find` says why when it is asked for by name
    weights = {source.weights_sha256 for source in found.values()}
    for source in _cached():
        if source.weights_sha256 not in weights:  # the same model may also lie in a folder
            found.setdefault(source.name, source)
    return [found[name] for name in sorted(found) if kind is None or found[name].kind == kind]


def choose(kind: Kind) -> tuple[Source, str]:
    """The source that `auto` takes for this kind of data, and a sentence why.

    The only source registered or under GRAFT_SOURCES that fits, else the packaged one. Raises
    RequestError, naming the candidates, where several fit.
    """
    local = {source.name: source for source in (*listed(), *_registered()) if source.kind == kind}
    if len(local) == 1:
        only = next(iter(local.values()))
        return only, f"{only.name} is the only {kind} source registered or under GRAFT_SOURCES"
    if local:
        raise RequestError(
            f"several {kind} sources are at hand: {', '.join(sorted(local))}; name one with --source"
        )
    if kind == "text":
        return packaged("minilm"), "minilm is the packaged source for texts"
    if kind == "audio":
        raise RequestError(
            "no source for recordings at hand; name a folder, a catalogue name (graft sources --kind audio) "
            "or a hub id with --source, or list a folder of them in GRAFT_SOURCES"
        )
    try:
        glyphs = packaged("glyphs")
    except ArtefactError as error:
        raise RequestError(
            "no image source at hand; name a model directory or hub id with --source, "
            "or list a folder of them in GRAFT_SOURCES"
        ) from error
    return glyphs, (
        "glyphs is the only image source at hand; it knows small grey characters, no photos: "
        "for photos name a model directory or hub id with --source"
    )


def find_by_digest(
    sha256: str, hint: str | Path | None = None, name: str | None = None, *, offline: bool = False
) -> Source:
    """The source whose weights have this SHA-256, looked for in `hint`, then everywhere on this machine.

    `name` may be a hub id or a name of the catalogue. Raises RequestError where none has these weights.
    """
    others, said = set(), ""
    try:
        for source in _candidates(hint, name, offline):
            if source.weights_sha256 == sha256:
                return source
            others.add(source.name)
    except (ArtefactError, MissingExtra):
        raise
    except RequestError as error:
        said = f" ({error})"  # what came of asking for it by name
    seen = f"; sources seen with other weights: {', '.join(sorted(others))}" if others else ""
    was = f"{name or 'unnamed'}, in {hint}" if hint else name or "unnamed"
    raise RequestError(
        f"no source with weights of SHA-256 {sha256[:12]}... (it was {was}){seen}; "
        f"put it back, or under GRAFT_SOURCES, or save the artefact with --bundle{said}"
    )


def known_names() -> list[str]:
    """Every name that `find` knows without asking the hub, sorted; nothing is read."""
    return sorted(
        {
            *PACKAGED,
            *registered.names(),
            *(path.name for root in paths.source_folders() for path in _inside(root)),
            *(one.name for one in catalogue.entries()),
            *(one.hub for one in catalogue.entries() if one.hub),
            *ledger.names("pins"),
        }
    )


def in_hub_cache(address: str) -> Path | None:
    """The folder of a hub model in the hub's cache, as it was pinned where it was; None where it is not."""
    from graftwork.sources.hub import Fetched, cached, parts

    repository, revision = parts(address)
    known = pins.pinned("pins", address)
    found = cached(repository, known.place if known else revision, tuple(known.files) if known else ())
    return found.folder if isinstance(found, Fetched) else None


def peek(address: str) -> Source | None:
    """A hub model in the hub's cache, None where it is not; nothing is fetched or pinned.

    Raises ArtefactError where it is not as it was pinned.
    """
    folder = in_hub_cache(address)
    if folder is None:
        return None
    known = pins.pinned("pins", address)
    source = _of_hub(address, folder, folder.name, known.licence if known else None)
    if known is not None:
        pins.require_same(known, source)
    return source


def _here(name: str) -> Source | None:
    """What lies at the path, is registered, or is in a folder of GRAFT_SOURCES, in this order."""
    if exists(name):
        path = Path(name).expanduser().resolve()
        return read(path, name=path.name)
    found = registered.registered(name)
    if found is not None:
        return found
    for root in paths.source_folders():
        if exists(root / name):
            return read((root / name).resolve(), name=name)
    return None


def exists(name: str | Path) -> bool:
    """Whether it is a path where something lies; a name that can be no path is none, and so is ""."""
    return name != "" and os.path.exists(Path(name).expanduser())  # noqa: PTH110  # Path's raises if too long


def hub_address(name: str) -> str | None:
    """The catalogue's address of a short name, a hub id as it stands, None for what is neither."""
    entry = catalogue.entry(name)
    if entry is not None:
        return entry.address
    slashes = name.partition("@")[0].count("/")  # a revision may have its own: refs/pr/2
    return name if slashes == 1 and not name.startswith((".", "/", "~")) else None


def _of_hub(address: str, folder: Path, revision: str, licence: str | None) -> Source:
    """Read a fetched model, called by its short name where the catalogue has it at this address."""
    repository = address.partition("@")[0]
    entry = catalogue.entry(repository)
    listed = entry is not None and entry.address == address
    name = entry.name if entry is not None and listed else repository
    stated = licence or (entry.licence if entry is not None else None)
    return read(folder, name=name, origin="hub", revision=revision, licence=stated)


def _candidates(hint: str | Path | None, name: str | None, offline: bool) -> Iterator[Source]:
    """Places where an artefact's source may lie, likeliest first; what cannot be read is passed over."""
    if hint is not None and Path(hint).exists():
        try:
            yield read(Path(hint), name=name or Path(hint).name)
        except (ArtefactError, RequestError):
            pass  # no source lies there any more; it may lie elsewhere
    yield from available()
    if name is not None and (hub_address(name) or name.partition(":")[0] in registry.names("schemes")):
        yield find(name, offline=offline)


def listed() -> list[Source]:
    """What lies in the folders of GRAFT_SOURCES; the first folder that has a name wins."""
    found = {}
    for root in reversed(paths.source_folders()):
        for folder in _inside(root):
            try:
                found[folder.name] = read(folder.resolve(), name=folder.name)
            except (ArtefactError, RequestError):
                continue  # something else lies there; `find` says what is wrong with it
    return list(found.values())


def _inside(root: Path) -> list[Path]:
    """What lies in a folder of GRAFT_SOURCES, sorted; nothing where it is none or may not be read."""
    try:
        return sorted(root.iterdir())
    except OSError:
        return []


def _registered() -> Iterator[Source]:
    for name in registered.names():
        try:
            found = registered.registered(name)
        except (ArtefactError, RequestError):
            continue  # changed or gone; `find` and `graft sources` say so
        if found is not None:
            yield found


def _cached() -> Iterator[Source]:
    for address in addresses():
        try:
            found = peek(address)
        except (ArtefactError, RequestError):
            continue  # damaged or changed; `find` says so when it is asked for by name
        if found is not None:
            yield found


def addresses() -> list[str]:
    """Hub addresses worth a look: the catalogue's and the pinned ones."""
    listed = [one.address for one in catalogue.entries() if one.address]
    return [*listed, *(name for name in ledger.names("pins") if name not in listed)]
