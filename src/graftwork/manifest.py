"""What an artefact says of itself: read and verified before anything of it is built."""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NoReturn, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from graftwork.errors import ArtefactError
from graftwork.rows import Kind
from graftwork.sources import Source

SCHEMA = 4
"""2: a source names its family, weights and options, and may be of recordings. 3: the source's network
was tuned, or its layers are used beside its features. 4: low-rank changes are inputs of the source's network
rather than merged into it. Older ones are read too, and written where an older version would answer the same.
"""


LARGEST = 64_000_000
"""Bytes of a manifest at most."""


class SourceEntry(BaseModel):
    """The source a model builds on; found again by `weights_sha256`. folder: "" where it is not said."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    kind: Kind
    folder: str
    files: dict[str, str]
    origin: Literal["packaged", "local", "hub"]
    revision: str | None
    licence: str | None
    weights_sha256: str
    bundled: bool
    # absent in what the first version saved, whose sources were all in Hugging Face form
    family: str | None = None
    weights: list[str] | None = None
    options: dict[str, Any] = {}

    @classmethod
    def of(cls, source: Source, folder: str, *, bundled: bool = False) -> Self:
        """folder: where it lies, empty where that is not to be said."""
        return cls(
            name=source.name,
            kind=source.kind,
            folder=folder,
            files=dict(source.files),
            origin=source.origin,
            revision=source.revision,
            licence=source.licence,
            weights_sha256=source.weights_sha256,
            bundled=bundled,
            family=source.family,
            weights=list(source.weights),
            options=dict(source.options),
        )


class Part(BaseModel):
    """A backbone or head to build again: its registered name and plain configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    config: dict[str, Any]


class Manifest(BaseModel):
    """Everything an artefact says of itself; `files` maps each other file to its SHA-256."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    schema_version: int
    task: Literal["classification"]
    kind: Kind
    labels: list[str] = Field(min_length=1)
    source: SourceEntry | None
    backbone: Part
    fingerprint: str
    head: Part
    strategy: str
    settings: dict[str, Any]
    result: dict[str, Any]
    machine: str
    versions: dict[str, str]
    examples: bool
    created: str
    files: dict[str, str]

    @field_validator("labels")
    @classmethod
    def _distinct(cls, labels: list[str]) -> list[str]:
        if len(set(labels)) < len(labels):
            raise ValueError("a label is named twice")
        return labels


def inspect(folder: Path) -> Manifest:
    """The manifest of an artefact whose every file has been verified; nothing is built.

    Raises ArtefactError: no artefact, a newer schema version, a damaged or missing file.
    """
    manifest = read(folder)[0]
    for name in manifest.files:
        verify(folder, manifest, name)
    return manifest


def read(folder: Path) -> tuple[Manifest, str]:
    """(the manifest, its SHA-256), checked for itself alone: no other file is looked at.

    Raises ArtefactError: no artefact, a newer schema version, a damaged manifest.
    """
    path = folder / "manifest.json"
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST + 1)
        said = _parsed(text) if len(text) <= LARGEST else None
    except FileNotFoundError as error:
        raise ArtefactError(f"{folder} is no artefact: it has no manifest.json; try: graft fit") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ArtefactError(f"{path} is damaged and cannot be read; fit again or restore a copy") from error
    newest = said.get("schema_version") if isinstance(said, dict) else None
    if not isinstance(newest, int):
        raise ArtefactError(f"{path} names no schema version; it is damaged or no artefact of Graftwork")
    if newest > SCHEMA:
        raise ArtefactError(
            f"{folder} was saved by a newer Graftwork (schema version {newest}, this one reads up to "
            f"{SCHEMA}); try: pip install --upgrade graftwork"
        )
    try:
        return Manifest.model_validate(said), hashlib.sha256(text).hexdigest()
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ArtefactError(f"{path} is damaged at {where}: {first['msg']}; restore a copy") from error


def _parsed(text: bytes) -> Any:
    """The JSON of a manifest, which can be written as JSON again; raises ValueError."""
    said = json.loads(text.decode("utf-8"), parse_constant=_refused, parse_float=_finite)
    if _SURROGATE.search(text):  # half a character, which no other program could be sent
        json.dumps(said, ensure_ascii=False).encode("utf-8")
    return said


_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def _finite(digits: str) -> float:
    return float(digits) if math.isfinite(float(digits)) else _refused(digits[:20])


def _refused(number: str) -> NoReturn:
    raise ValueError(f"{number} is no number of JSON")


def sizes(folder: Path) -> Mapping[str, int]:
    """Bytes of each part of an artefact, the largest first, and of the whole as "total".

    head, backbone (what was tuned, or learnt here), source (where it was bundled), familiarity (of unknown
    inputs), examples (the probe's rows and answers), report, manifest; a part that it lacks is absent.
    """
    found: dict[str, int] = {}
    for path in files_of(folder):
        part = _PARTS.get(path.relative_to(folder).parts[0], "other")
        found[part] = found.get(part, 0) + path.stat().st_size
    ordered = sorted(found.items(), key=lambda item: -item[1])
    return {**dict(ordered), "total": sum(found.values())}


_PARTS = {
    "head.safetensors": "head",
    "backbone.safetensors": "backbone",
    "familiarity.safetensors": "familiarity",
    "probe": "examples",
    "report.html": "report",
    "manifest.json": "manifest",
    "source": "source",
}


def digest(folder: Path) -> str:
    """SHA-256 of the manifest itself: pin or sign this, and every other file is covered by it."""
    return sha256(folder / "manifest.json")


def verify(folder: Path, manifest: Manifest, name: str) -> None:
    """Raise ArtefactError unless the file is there, inside the folder, and as the manifest says."""
    if sha256(_place(folder, name)) != manifest.files[name]:
        raise _damaged(folder, name)


def content(folder: Path, manifest: Manifest, name: str) -> bytes:
    """The content of a file that the manifest lists, verified as it is read; raises as `verify`."""
    try:
        read = _place(folder, name).read_bytes()
    except OSError as error:
        raise ArtefactError(f"{folder / name} cannot be read ({error.strerror}); restore a copy") from error
    if hashlib.sha256(read).hexdigest() != manifest.files[name]:
        raise _damaged(folder, name)
    return read


def _place(folder: Path, name: str) -> Path:
    path = folder / name
    try:
        inside, there = path.resolve().is_relative_to(folder.resolve()), path.is_file()
    except (OSError, ValueError) as error:
        raise ArtefactError(
            f"{folder} names a file {name[:80]!r}, which cannot be; do not trust it"
        ) from error
    if not inside:
        raise ArtefactError(f"{folder} names a file outside itself ({name[:80]!r}); do not trust it")
    if not there:
        raise ArtefactError(f"{folder} is incomplete: {name} is missing; restore a copy or fit again")
    return path


def _damaged(folder: Path, name: str) -> ArtefactError:
    return ArtefactError(
        f"{folder / name} is damaged: its SHA-256 is not the manifest's; restore a copy or fit again"
    )


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
