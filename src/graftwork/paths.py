"""Where this installation keeps what it knows, and how a small fact is kept so that it never flips."""

import ctypes
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import platformdirs


def home() -> Path:
    """GRAFT_HOME, or the platform's user data folder; it may not exist yet."""
    given = os.environ.get("GRAFT_HOME")
    return Path(given).expanduser() if given else Path(platformdirs.user_data_dir("graftwork", False))


def private() -> Path:
    """Where what follows from the rows at hand is kept: GRAFT_PRIVATE, one folder an owner, or `home()`."""
    given = os.environ.get("GRAFT_PRIVATE")
    return Path(given) if given else home()


def private_key() -> bytes | None:
    """The secret (GRAFT_PRIVATE_KEY, hex) that keys an owner's rows; None where all are one's own."""
    given = os.environ.get("GRAFT_PRIVATE_KEY")
    return bytes.fromhex(given) if given else None


def offline() -> bool:
    """Whether the environment forbids connections (HF_HUB_OFFLINE)."""
    return os.environ.get("HF_HUB_OFFLINE", "").strip().lower() in {"1", "true", "yes", "on"}


def source_folders() -> tuple[Path, ...]:
    """The folders of GRAFT_SOURCES, in which a source may be named by its folder's name."""
    listed = os.environ.get("GRAFT_SOURCES", "").split(os.pathsep)
    return tuple(Path(entry).expanduser() for entry in listed if entry)


def digest_of(value: Any) -> str:
    """SHA-256 (hex) of a JSON value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def kept(
    topic: str, key: Any, make: Callable[[], Mapping[str, Any]], most: int | None = None
) -> dict[str, Any]:
    """The fact (plain JSON) kept under `key`, made once and never changed: the first writer wins.

    most: facts of the topic that are kept, the newest; None for all.
    Two processes that make the same fact at once both get the first one's. Where GRAFT_HOME cannot
    be written, the fact is made anew in each process. A damaged file is made anew as well.
    """
    path = home() / topic / f"{digest_of(key)}.json"
    known = _read(path)
    if known is not None:
        return known
    if path.exists():
        _forget(path)  # it could not be read: damaged
    fact = dict(make())
    text = json.dumps({"key": key, "fact": fact}, ensure_ascii=False, indent=1)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _link_into_place(path, text)
        if most is not None:
            _forget_oldest(path.parent, most)
    except OSError:
        return fact  # a read-only or full disk costs time in later runs, not rightness in this one
    return _read(path) or fact


def replace_file(path: Path, content: bytes) -> None:
    """Write `content` whole or not at all, replacing what is there; raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def exchanged(one: Path, other: Path) -> bool:
    """Swap two folders in one step, so that at no moment either name is missing; False where it cannot be.

    Linux alone has a call for it, and not every file system takes it.
    """
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):
        return False
    here, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(call(here, os.fsencode(one), here, os.fsencode(other), swap) == 0)


def _link_into_place(path: Path, text: str) -> None:
    """Name `text` `path` unless another process was first; a link, unlike a rename, never replaces."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return
    finally:
        temporary.unlink(missing_ok=True)


def _forget_oldest(folder: Path, most: int) -> None:
    facts = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    for path in facts[: max(len(facts) - most, 0)]:
        path.unlink(missing_ok=True)


def _forget(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return  # not ours to remove: the fact is made anew in each process


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    fact = found.get("fact") if isinstance(found, dict) else None
    return fact if isinstance(fact, dict) else None
