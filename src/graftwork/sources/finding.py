"""From a name to a source: where sources are looked for, and what is said where there is none."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from graftwork import paths, registry
from graftwork.errors import ArtefactError, MissingExtra, RequestError
from graftwork.rows import Kind
from graftwork.sources.packaged import PACKAGED, packaged
from graftwork.sources.source import Origin, Source


def find(name: str, *, offline: bool = False) -> Source:
    """The source called `name`: a packaged one, a path, a name under GRAFT_SOURCES, SCHEME:REST or a hub id.

    A hub id may carry a revision: "owner/model@revision". Raises RequestError where there is none of
    that name or it is of a kind that cannot be used, MissingExtra for one that needs an extra which is
    not installed, ArtefactError for damaged files, WorkError where the hub does not answer.
    """
    if name in PACKAGED:
        return packaged(name)
    offline = offline or paths.offline()
    scheme, colon, rest = name.partition(":")
    if colon and scheme in registry.names("schemes"):
        made: Source = registry.get("schemes", scheme)(rest, offline=offline)
        return made
    path = Path(name).expanduser()
    if path.exists():
        return read(path.resolve(), name=path.resolve().name)
    for root in paths.source_folders():
        if (root / name).exists():
            return read((root / name).resolve(), name=name)
    if "/" in name and not name.startswith((".", "/", "~")) and name.count("/") == 1:
        from graftwork.sources.hub import fetch

        found, revision, licence = fetch(name, offline=offline)
        return read(found, name=name.partition("@")[0], origin="hub", revision=revision, licence=licence)
    known = ", ".join(source.name for source in available()) or "none"
    raise RequestError(
        f"no source {name!r}: no such directory, and no folder listed in GRAFT_SOURCES holds it; "
        f"sources on this machine: {known}"
    )


def available(kind: Kind | None = None) -> list[Source]:
    """Every readable source on this machine: packaged ones and those under GRAFT_SOURCES, by name."""
    found = {source.name: source for source in _local()}
    for name in PACKAGED:
        try:
            found[name] = packaged(name)
        except (MissingExtra, ArtefactError):
            continue  # not installed here; `find` says why when it is asked for by name
    return [found[name] for name in sorted(found) if kind is None or found[name].kind == kind]


def choose(kind: Kind) -> tuple[Source, str]:
    """The source that `auto` takes for this kind of data, and a sentence why.

    The only source under GRAFT_SOURCES that fits, else the packaged one. Raises RequestError, naming
    the candidates, where several fit.
    """
    local = [source for source in _local() if source.kind == kind]
    if len(local) == 1:
        return local[0], f"{local[0].name} is the only {kind} source under GRAFT_SOURCES"
    if local:
        names = ", ".join(sorted(source.name for source in local))
        raise RequestError(f"several {kind} sources are at hand: {names}; name one with --source")
    if kind == "text":
        return packaged("minilm"), "minilm is the packaged source for texts"
    if kind == "audio":
        raise RequestError(
            "no source for recordings at hand; name a model directory or hub id with --source, "
            "or list a folder of them in GRAFT_SOURCES"
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

    `name` may be a hub id. Raises RequestError where none has these weights.
    """
    others = set()
    for source in _candidates(hint, name, offline):
        if source.weights_sha256 == sha256:
            return source
        others.add(source.name)
    seen = f"; sources seen with other weights: {', '.join(sorted(others))}" if others else ""
    raise RequestError(
        f"no source with weights of SHA-256 {sha256[:12]}... (it was {name or 'unnamed'}, in {hint}){seen}; "
        "put its folder under GRAFT_SOURCES, or save the artefact with --bundle"
    )


def read(
    path: Path,
    *,
    name: str,
    origin: Origin = "local",
    revision: str | None = None,
    licence: str | None = None,
) -> Source:
    """The source in a folder or file, by the first registered reader that recognises it.

    Checked as far as is possible without loading it; see `find` for errors.
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


def _candidates(hint: str | Path | None, name: str | None, offline: bool) -> Iterator[Source]:
    """Places where an artefact's source may lie, likeliest first; what cannot be read is passed over."""
    if hint is not None and Path(hint).exists():
        try:
            yield read(Path(hint), name=name or Path(hint).name)
        except (ArtefactError, RequestError):
            pass  # no source lies there any more; it may lie elsewhere
    yield from available()
    if name is not None and ("/" in name or name.partition(":")[0] in registry.names("schemes")):
        yield find(name, offline=offline)


def _local() -> list[Source]:
    found = {}
    for root in reversed(paths.source_folders()):
        for folder in sorted(root.iterdir()) if root.is_dir() else ():
            try:
                found[folder.name] = read(folder.resolve(), name=folder.name)
            except (ArtefactError, RequestError):
                continue  # something else lies there; `find` says what is wrong with it
    return list(found.values())
