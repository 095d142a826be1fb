"""Immutable, checksummed files of features: the store's only format (safetensors, memory-mapped).

A shelf is the folder of one fingerprint. Each segment in it holds `keys` (rows, 32 bytes) and
`features` (rows, width); its header carries the SHA-256 of both. A segment is written under a
temporary name, flushed and renamed, and never changed afterwards; only its time of last use is.
"""

import hashlib
import json
import os
import secrets
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from graftwork.rows import IntArray

Keys = NDArray[np.uint8]
"""(rows, 32)"""
Values = NDArray[np.float32]
SUFFIX = ".safetensors"
KEY_BYTES = 32
SMALL_BYTES = 4_000_000
SMALL_FILES = 16
"""So many small segments are merged into one, so that single rows do not make single files for ever."""
_STALE_S = 3600.0
_USED_S = 60.0


class Damaged(Exception):
    """A segment that is not what its checksums say; it is dropped and its rows are computed again."""


@dataclass
class Segment:
    """One open file. `values` may be used only after `check` has passed."""

    path: Path
    keys: Keys
    values: Values
    digest: str
    bytes: int
    checked: bool = False
    used: float = 0.0

    def check(self) -> None:
        """Compare the features with their checksum, once; raises Damaged."""
        if not self.checked:
            if _sha256(self.values) != self.digest:
                raise Damaged(f"{self.path} does not match its checksum")
            self.checked = True

    def touch(self) -> None:
        """Say that it was used; at most once a minute, and only where that can be written."""
        now = time.time()
        if now - self.used > _USED_S:
            self.used = now
            try:
                os.utime(self.path)
            except OSError:
                pass  # read-only, or dropped by another process: only the order of eviction suffers


@dataclass
class Shelf:
    """Segments of one fingerprint, as far as this process has seen them."""

    folder: Path
    _segments: dict[str, Segment] = field(default_factory=dict)
    _seen: int = -1
    _prefixes: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    _places: IntArray = field(default_factory=lambda: np.empty((0, 2), np.int64))
    _order: list[Segment] = field(default_factory=list)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    gathered: WeakValueDictionary[bytes, Values] = field(default_factory=WeakValueDictionary)
    """Large results that someone still holds, by the digest of their keys: no need to lay them out twice."""

    def get_many(self, keys: Keys, out: Values, positions: IntArray) -> NDArray[np.bool_]:
        """Fill out[positions[i]] with the features of keys[i]; (rows,) whether each was found.

        keys: (rows, 32). out: (any, width). Damaged segments are removed and count as not found.
        """
        with self._lock:
            self._refresh()
            segments, rows = self._find(keys)
            for number in np.unique(segments[segments >= 0]):
                segment = self._order[number]
                members = np.flatnonzero(segments == number)
                try:
                    segment.check()
                except Damaged:
                    self._drop(segment)
                    segments[members] = -1
                    continue
                segment.touch()
                out[positions[members]] = segment.values[rows[members]]
            return np.asarray(segments >= 0)

    def put_many(self, keys: Keys, values: Values, about: Mapping[str, Any]) -> None:
        """Write one segment (and merge small ones); raises OSError where that cannot be done.

        keys: (rows, 32) uint8. values: (rows, width) float32. about: plain JSON for `about.json`.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = write(self.folder, keys, values)
        try:
            with locked(self.folder):
                temporary.rename(self.folder / _name())
                if not (self.folder / "about.json").exists():
                    (self.folder / "about.json").write_text(json.dumps(dict(about)), "utf-8")
                self._merge()
        finally:
            temporary.unlink(missing_ok=True)
            self._seen = -1  # two writes may fall into one tick of the folder's clock

    def about(self) -> dict[str, Any]:
        """What the first writer said of these features; {} where nothing can be read."""
        try:
            found = json.loads((self.folder / "about.json").read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def verify(self) -> tuple[int, int]:
        """Check every segment in full: (whole ones, damaged ones, which are removed)."""
        with self._lock:
            found = files(self.folder)
            self._refresh(force=True)
            for segment in list(self._segments.values()):
                segment.checked = False
                try:
                    segment.check()
                except Damaged:
                    self._drop(segment)
            return len(self._segments), len(found) - len(self._segments)

    def _find(self, keys: Keys) -> tuple[IntArray, IntArray]:
        """Segment number (-1: none) and row of each key, by its first 8 bytes, then compared in full."""
        segments = np.full(len(keys), -1, np.int64)
        rows = np.zeros(len(keys), np.int64)
        if not len(self._prefixes) or not len(keys):
            return segments, rows
        wanted = _prefix(keys)
        at = np.minimum(np.searchsorted(self._prefixes, wanted), len(self._prefixes) - 1)
        places = self._places[at]
        for number in np.unique(places[:, 0]):
            members = np.flatnonzero((places[:, 0] == number) & (self._prefixes[at] == wanted))
            same = (self._order[number].keys[places[members, 1]] == keys[members]).all(1)
            segments[members[same]] = number
            rows[members[same]] = places[members[same], 1]
        return segments, rows

    def _refresh(self, force: bool = False) -> None:
        """Take notice of what this or another process has written or removed since."""
        try:
            seen = self.folder.stat().st_mtime_ns
        except OSError:
            seen = -1
        if seen == self._seen and not force:
            return
        names = {path.name for path in files(self.folder)}
        for name in self._segments.keys() - names:
            del self._segments[name]
        for name in sorted(names - self._segments.keys()):
            try:
                self._segments[name] = read(self.folder / name)
            except FileNotFoundError:
                continue  # merged or evicted a moment ago
            except Damaged:
                _remove(self.folder / name)
        self._seen = seen
        self._index()

    def _index(self) -> None:
        self._order = list(self._segments.values())
        parts = [_prefix(segment.keys) for segment in self._order]
        places = [
            np.column_stack([np.full(len(part), number), np.arange(len(part))])
            for number, part in enumerate(parts)
        ]
        prefixes = np.concatenate([np.empty(0, np.uint64), *parts])
        order = np.argsort(prefixes, kind="stable")
        self._prefixes = prefixes[order]
        self._places = np.concatenate([np.empty((0, 2), np.int64), *places])[order]

    def _drop(self, segment: Segment) -> None:
        _remove(segment.path)
        self._segments.pop(segment.path.name, None)
        self._seen = -1

    def _merge(self) -> None:
        """Join the small segments once there are many. The caller holds the folder's lock."""
        small = [path for path in files(self.folder) if _size(path) < SMALL_BYTES]
        if len(small) < SMALL_FILES:
            return
        parts = []
        for path in small:
            try:
                segment = read(path)
                segment.check()
                parts.append(segment)
            except Damaged:
                _remove(path)
        if not parts:
            return
        keys = np.concatenate([part.keys for part in parts])
        _, first = np.unique(_prefix(keys), return_index=True)
        values = np.concatenate([part.values for part in parts])
        temporary = write(self.folder, keys[first], values[first])
        temporary.rename(self.folder / _name())
        for part in parts:
            _remove(part.path)
        sweep(self.folder)


def write(folder: Path, keys: Keys, values: Values) -> Path:
    """A finished, flushed segment under a temporary name in `folder`; raises OSError."""
    keys = np.ascontiguousarray(keys, np.uint8)
    values = np.ascontiguousarray(values, np.float32)
    assert keys.shape == (len(values), KEY_BYTES), keys.shape
    header = {
        "__metadata__": {
            "keys_sha256": _sha256(keys),
            "features_sha256": _sha256(values),
        },
        "keys": {"dtype": "U8", "shape": list(keys.shape), "data_offsets": [0, keys.nbytes]},
        "features": {
            "dtype": "F32",
            "shape": list(values.shape),
            "data_offsets": [keys.nbytes, keys.nbytes + values.nbytes],
        },
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path = folder / f".{os.getpid()}-{secrets.token_hex(6)}.tmp"
    try:
        with path.open("xb") as file:
            file.write(len(text).to_bytes(8, "little"))
            file.write(text)
            file.write(_bytes(keys))
            file.write(_bytes(values))
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path


def read(path: Path) -> Segment:
    """Open a segment and check its header and keys; raises Damaged, FileNotFoundError."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            size = os.fstat(file.fileno()).st_size
            if not 2 <= length <= min(size, 1_000_000):
                raise Damaged(f"{path} has no header")
            header = json.loads(file.read(length))
            rows, key_bytes = header["keys"]["shape"]
            (also, width) = header["features"]["shape"]
            digests = header["__metadata__"]
            expected = 8 + length + rows * (KEY_BYTES + 4 * width)
            if size != expected or also != rows or key_bytes != KEY_BYTES:
                raise Damaged(f"{path} has {size} bytes, its header promises {expected}")
            mapped = np.memmap(file, np.uint8, "r") if rows else np.empty(size, np.uint8)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"{path} has a damaged header ({error})") from error
    data = mapped[8 + length :]
    keys = np.asarray(data[: rows * KEY_BYTES]).reshape(rows, KEY_BYTES)
    values = np.asarray(data[rows * KEY_BYTES :]).view(np.float32).reshape(rows, width)
    if _sha256(keys) != digests.get("keys_sha256"):
        raise Damaged(f"{path} has damaged keys")
    return Segment(path, keys, values, str(digests.get("features_sha256")), size)


def files(folder: Path) -> list[Path]:
    """The segments in a folder, oldest first."""
    try:
        return sorted(path for path in folder.iterdir() if path.suffix == SUFFIX and path.name[0] != ".")
    except (FileNotFoundError, NotADirectoryError):
        return []


def sweep(folder: Path) -> None:
    """Remove temporary files that a killed process left behind an hour ago or earlier."""
    for path in folder.glob(".*.tmp"):
        try:
            if time.time() - path.stat().st_mtime > _STALE_S:
                path.unlink()
        except FileNotFoundError:
            continue


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's write lock; it is free again when the process ends, however it ends."""
    with (folder / ".lock").open("ab") as file:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _bytes(array: NDArray[Any]) -> Any:
    return array.reshape(-1).view(np.uint8).data


def _sha256(array: NDArray[Any]) -> str:
    return hashlib.sha256(_bytes(array)).hexdigest()


def _name() -> str:
    return f"{time.time_ns():020d}-{secrets.token_hex(4)}{SUFFIX}"


def _prefix(keys: Keys) -> NDArray[np.uint64]:
    return np.ascontiguousarray(keys[:, :8]).view(np.uint64).reshape(-1)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return  # a read-only store: the segment is not used all the same
