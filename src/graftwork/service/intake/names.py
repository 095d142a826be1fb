"""Names that users give: which may become names on our disk, and what is never seen of ours."""

import re
import unicodedata
from pathlib import PurePosixPath

from graftwork.datasets.hidden import without_hidden
from graftwork.service.problems import bad_request

LONGEST_PART = 255
"""Bytes of one folder's or file's name, as file systems have it."""
LONGEST = 1_000
DEEPEST = 32
CLASSES, LABEL, LETTERS = 5_000, 1_000, 200_000
"""Classes that there may be, characters of a label, and of all labels of a model: every answer repeats them,
and the server holds them of every model."""
_DEVICES = frozenset(
    ["con", "prn", "aux", "nul", *(f"{name}{number}" for name in ("com", "lpt") for number in range(1, 10))]
)
_SILENT = frozenset({"__macosx", ".ds_store", "thumbs.db", "desktop.ini"})


def inside(name: str) -> PurePosixPath:
    """An archive's entry as a relative path in NFC that stays where it is put; raises a Problem."""
    reason = _reason(name)
    if reason is not None:
        raise bad_request(f"the archive holds {shown(name)}, a name {reason}; rename it and pack again")
    return PurePosixPath(unicodedata.normalize("NFC", name))


def is_silent(path: PurePosixPath) -> bool:
    """Whether it is what systems leave in archives unasked: nobody's data."""
    return any(part.casefold() in _SILENT or part.startswith(("._", "~$")) for part in path.parts)


def file_name(said: str, otherwise: str) -> str:
    """A user's name for a file as one that can lie in a folder; else `otherwise`, with its suffix."""
    last = unicodedata.normalize("NFC", without_hidden(re.split(r"[/\\]", said)[-1])).strip()
    if last and _reason(last) is None and not last.startswith("."):
        return last
    suffix = re.search(r"\.[a-z0-9]{1,10}$", last.lower())
    return otherwise + (suffix[0] if suffix else "")


def shown(name: str) -> str:
    """A name in a message: short, and with what is hidden in it visible."""
    return repr(name if len(name) <= 80 else f"{name[:40]}...{name[-30:]}")


def _reason(name: str) -> str | None:
    parts = name.removesuffix("/").split("/")
    if without_hidden(name) != name:
        return "with control characters or marks of direction"
    if "\\" in name:
        return "with a backslash (expected / between folders)"
    if name.startswith("/") or re.match("[A-Za-z]:", name):
        return "that begins at the root of a disk"
    if ".." in parts:
        return "that leads out of the archive (..)"
    if "" in parts or "." in parts:
        return "with an empty part"
    if len(name.encode()) > LONGEST or any(len(part.encode()) > LONGEST_PART for part in parts):
        return f"longer than {LONGEST_PART} bytes a part or {LONGEST} in all"
    if len(parts) > DEEPEST:
        return f"more than {DEEPEST} folders deep"
    device = next((part for part in parts if part.split(".")[0].strip().casefold() in _DEVICES), None)
    return None if device is None else f"that some systems keep for a device ({device})"
