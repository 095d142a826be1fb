"""The feature store: a backbone that remembers. Keyed by content, never by path or time."""

import hashlib
import hmac
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from graftwork import paths, segments
from graftwork.backbones.base import Backbone, BackboneState
from graftwork.backbones.pretrained import blank
from graftwork.errors import Unreadable
from graftwork.records import Extraction, Features, Notify, Progress, silent
from graftwork.rows import IntArray, Kind, Rows
from graftwork.segments import KEY_BYTES, Keys, Shelf, Values

LIMIT_BYTES = 10_000_000_000
CHUNK_SECONDS = 2.0
"""Features are written about this often: at most so much work is lost when a run is killed."""
FIRST_CHUNK = 256
CHUNK_BYTES = 32_000_000


_told: set[Path] = set()
"""Folders whose failure this process has said; every backbone of a fit would say it again."""


class StoreWarning(UserWarning):
    """Features could not be stored; the work goes on without."""


def folder() -> Path:
    """Where this installation, or the owner whose rows are at hand, keeps features."""
    return paths.private() / "store"


def remember(backbone: Backbone, view: bytes = b"") -> "Stored":
    """`backbone`, remembering in this installation's store."""
    return backbone if isinstance(backbone, Stored) else Stored(backbone, folder(), view)


@dataclass(frozen=True)
class Stored:
    """A backbone that computes the features of each content once.

    view: names the augmented view that the rows are (empty: plain). Where the store cannot be
    written, features are computed all the same, and one StoreWarning says so.
    """

    backbone: Backbone
    folder: Path
    view: bytes = b""
    limit_bytes: int = LIMIT_BYTES
    _warned: list[str] = field(default_factory=list, repr=False, compare=False)

    @property
    def kind(self) -> Kind:
        return self.backbone.kind

    @property
    def fingerprint(self) -> str:
        return self.backbone.fingerprint

    @property
    def width(self) -> int:
        return self.backbone.width

    def state(self) -> BackboneState:
        return self.backbone.state()

    def beside(self, other: Backbone) -> "Stored":
        """`other`, its features kept in the same folder under the same limit."""
        return other if isinstance(other, Stored) else Stored(other, self.folder, b"", self.limit_bytes)

    def features(self, rows: Rows, notify: Notify = silent) -> Features:
        """As the backbone's own, bit for bit. A result beyond 64 MB is a read-only map of a file."""
        started = time.perf_counter()
        shelf = _shelf(self.folder / self.fingerprint)
        keys, unreadable = self._keys(rows)
        asked = hashlib.sha256(keys.reshape(-1).data).digest()
        held = None if unreadable else shelf.gathered.get(asked)
        if held is not None:
            return self._described(shelf.about(), held, unreadable, _Done(), started)
        readable = np.setdiff1d(np.arange(len(rows)), list(unreadable))
        out = blank(len(rows), self.width)
        found = shelf.get_many(keys[readable], out, readable)
        missing, twin = _distinct(keys, readable[~found])
        done = self._compute(rows, keys, missing, shelf, out, notify)
        out[twin[:, 0]] = out[twin[:, 1]]
        for i, other in twin:
            if other in done.unreadable:
                done.unreadable[int(i)] = done.unreadable[int(other)]
        unreadable.update(done.unreadable)
        out[list(unreadable)] = np.nan
        out.flags.writeable = False
        if isinstance(out, np.memmap) and not unreadable:
            shelf.gathered[asked] = out
        about = shelf.about() if done.about is None else done.about
        return self._described(about, out, unreadable, done, started)

    def _described(
        self, about: Mapping[str, Any], out: Values, unreadable: dict[int, str], done: "_Done", started: float
    ) -> Features:
        extraction = Extraction(
            len(out),
            done.computed,
            len(out) - done.computed - len(unreadable),
            time.perf_counter() - started,
            str(about.get("runtime", "")),
            str(about.get("precision", "")),
            about.get("parity", {}),
        )
        return Features(
            {str(about.get("name", "features")): out}, dict(sorted(unreadable.items())), extraction
        )

    def _keys(self, rows: Rows) -> tuple[Keys, dict[int, str]]:
        """(rows, 32) keys of content and view, and why some rows have none.

        Where the rows' owner has a secret, it is in every key: whoever sees one cannot tell the content.
        """
        secret = paths.private_key()
        keys = np.zeros((len(rows), KEY_BYTES), np.uint8)
        unreadable: dict[int, str] = {}
        columns = [rows.fields[name] for name in sorted(rows.fields)]
        for i in range(len(rows)):
            try:
                parts = [column.digest(i) for column in columns]
            except Unreadable as error:
                unreadable[i] = str(error)
                continue
            plain = len(parts) == 1 and not self.view
            key = parts[0] if plain else hashlib.sha256(b"".join([*parts, self.view])).digest()
            if secret is not None:
                key = hmac.digest(secret, key, "sha256")
            keys[i] = np.frombuffer(key, np.uint8)
        return keys, unreadable

    def _compute(
        self, rows: Rows, keys: Keys, missing: IntArray, shelf: Shelf, out: Values, notify: Notify
    ) -> "_Done":
        """Compute `missing` in chunks, each written before the next begins."""
        done = _Done()
        size, first = FIRST_CHUNK, 0
        while first < len(missing):
            chunk = missing[first : first + size]
            fresh = ~shelf.get_many(keys[chunk], out, chunk)  # another process may have been here since
            chunk, begun = chunk[fresh], time.perf_counter()
            first += len(fresh)
            if not len(chunk):
                continue
            base = len(rows) - len(missing) + first - len(chunk)
            found = self.backbone.features(rows.take(chunk), _shifted(notify, base, len(rows)))
            (name,) = found.arrays
            out[chunk] = found.matrix
            done.computed += len(chunk) - len(found.unreadable)
            done.unreadable.update({int(chunk[i]): reason for i, reason in found.unreadable.items()})
            done.about = _about(name, self, found.extraction)
            readable = np.setdiff1d(np.arange(len(chunk)), list(found.unreadable))
            self._write(shelf, keys[chunk[readable]], out[chunk[readable]], done.about)
            size = _next_size(size, len(chunk), time.perf_counter() - begun, self.width)
        if done.computed and not self._warned:
            prune(self.folder, self.limit_bytes)
        return done

    def _write(self, shelf: Shelf, keys: Keys, values: Values, about: Mapping[str, Any]) -> None:
        if self._warned or not len(keys):
            return
        try:
            shelf.put_many(keys, values, about)
        except OSError as error:
            self._warned.append(str(error))
            if self.folder in _told:
                return
            _told.add(self.folder)
            warnings.warn(
                f"features cannot be stored in {self.folder} ({error.strerror or error}); the work goes on, "
                "but a second run computes them again. Free some space, or point GRAFT_HOME elsewhere",
                StoreWarning,
                stacklevel=2,
            )


@dataclass
class _Done:
    computed: int = 0
    unreadable: dict[int, str] = field(default_factory=dict)
    about: dict[str, Any] | None = None


def info(folder: Path) -> dict[str, Any]:
    """What a store holds: {folder, bytes, segments, rows, backbones: [{fingerprint, rows, bytes, ...}]}."""
    backbones = []
    for shelf in _shelves(folder):
        found = segments.files(shelf)
        held = [_rows(path) for path in found]
        about = Shelf(shelf).about()
        backbones.append(
            {
                "fingerprint": shelf.name,
                "kind": about.get("kind"),
                "runtime": about.get("runtime"),
                "precision": about.get("precision"),
                "width": about.get("width"),
                "rows": sum(held),
                "segments": len(found),
                "bytes": sum(path.stat().st_size for path in found),
            }
        )
    return {
        "folder": str(folder),
        "bytes": sum(one["bytes"] for one in backbones),
        "segments": sum(one["segments"] for one in backbones),
        "rows": sum(one["rows"] for one in backbones),
        "backbones": backbones,
    }


def prune(folder: Path, limit_bytes: int) -> dict[str, Any]:
    """Remove the segments used longest ago until at most `limit_bytes` remain.

    Returns {folder, removed, removed_bytes, bytes}. Rows that are gone are computed again when asked for.
    """
    held = []
    for shelf in _shelves(folder):
        for path in segments.files(shelf):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue  # merged a moment ago
            held.append((status.st_mtime_ns, status.st_size, path))
        segments.sweep(shelf)
    total, removed, freed = sum(size for _, size, _ in held), 0, 0
    for _, size, path in sorted(held):
        if total - freed <= limit_bytes:
            break
        path.unlink(missing_ok=True)
        removed, freed = removed + 1, freed + size
    return {"folder": str(folder), "removed": removed, "removed_bytes": freed, "bytes": total - freed}


def verify(folder: Path) -> dict[str, Any]:
    """Check every stored feature against its checksum; damaged segments are removed.

    Returns {folder, segments, damaged}.
    """
    whole = damaged = 0
    for shelf in _shelves(folder):
        good, bad = Shelf(shelf).verify()
        whole, damaged = whole + good, damaged + bad
    return {"folder": str(folder), "segments": whole, "damaged": damaged}


_open: dict[Path, Shelf] = {}


def _shelf(place: Path) -> Shelf:
    """One open shelf a folder and process, so that segments are checked once, not once a caller."""
    return _open.setdefault(place, Shelf(place))


def _shelves(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _rows(path: Path) -> int:
    try:
        return len(segments.read(path).keys)
    except (segments.Damaged, FileNotFoundError):
        return 0


def _distinct(keys: Keys, index: IntArray) -> tuple[IntArray, IntArray]:
    """(first position of each content in `index`, pairs (position, first position) of the repeats)."""
    if not len(index):
        return index, np.empty((0, 2), np.int64)
    whole = np.ascontiguousarray(keys[index]).view(f"V{KEY_BYTES}").reshape(-1)
    first: dict[bytes, int] = {}
    repeats = []
    for position, key in zip(index.tolist(), whole.tolist(), strict=True):
        if first.setdefault(key, position) != position:
            repeats.append((position, first[key]))
    pairs = np.array(repeats, np.int64).reshape(-1, 2)
    return np.fromiter(first.values(), np.int64, len(first)), pairs


def _about(name: str, stored: Stored, extraction: Extraction) -> dict[str, Any]:
    return {
        "name": name,
        "kind": stored.kind,
        "width": stored.width,
        "runtime": extraction.runtime,
        "precision": extraction.precision,
        "parity": dict(extraction.parity),
    }


def _shifted(notify: Notify, base: int, total: int) -> Notify:
    def shifted(progress: Progress) -> None:
        notify(replace(progress, done=base + progress.done, total=total))

    return shifted


def _next_size(size: int, rows: int, seconds: float, width: int) -> int:
    """Rows of the next chunk: about CHUNK_SECONDS of work, at most twice the last, and bounded memory."""
    wanted = int(rows * CHUNK_SECONDS / max(seconds, 1e-6))
    return max(32, min(wanted, 2 * size, max(32, CHUNK_BYTES // (4 * width))))
