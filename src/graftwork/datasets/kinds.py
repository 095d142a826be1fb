"""Whether files and values hold pictures or recordings."""

from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path, PurePath
from typing import Any

from graftwork.errors import RequestError
from graftwork.rows import Kind
from graftwork.signatures import looks_like

PICTURES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .gif .bmp .dib .tif .tiff .avif .jp2 .ico .ppm .pgm .pbm".split()
)
# The last row cannot be decoded here; each such file is said to be what it is when it is read
SOUNDS = frozenset(
    ".wav .wave .flac .ogg .oga .opus .mp3 .aif .aiff .aifc .au .caf .w64 .rf64"
    " .m4a .aac .wma .amr".split()
)  # fmt: skip
CALLED: Mapping[Kind, str] = {"image": "pictures", "text": "texts", "audio": "recordings"}
"""What is in a folder or a column, in messages."""
SUFFIXES: Mapping[Kind, frozenset[str]] = {"image": PICTURES, "audio": SOUNDS, "text": frozenset({".txt"})}

_LOOKED_AT = 100


def named_kind(name: str | PurePath) -> Kind | None:
    """What a file of that name should hold; None where its suffix does not say."""
    suffix = PurePath(name).suffix.lower()
    return next((kind for kind in ("image", "audio") if suffix in SUFFIXES[kind]), None)


def looks_like_file(value: Any) -> bool:
    """Whether a cell holds a picture or a recording: see `kind_of_value`; or bytes of whatever kind."""
    if isinstance(value, bytes | PurePath):
        return True
    if isinstance(value, dict):
        return is_samples(value) or ({"bytes", "path"} >= set(value) and bool(value))
    return isinstance(value, str) and kind_of_value(value) is not None


def is_samples(value: Any) -> bool:
    """Whether a value is a recording as samples: (samples, rate), or a record of them by name."""
    if isinstance(value, Mapping):
        return {"array", "sampling_rate"} <= set(value)
    return isinstance(value, tuple) and len(value) == 2 and not isinstance(value[0], str)


def kind_of_value(value: Any) -> Kind | None:
    """What a value (a file's name, bytes, a {bytes, path} record, samples) holds; None: it does not say."""
    if isinstance(value, str):
        return named_kind(value.strip()) if len(value) < 1000 else None
    if isinstance(value, PurePath):
        return named_kind(value)
    if isinstance(value, bytes | bytearray | memoryview):
        seen = looks_like(bytes(value[:512]))
        return "audio" if "sound" in seen or "recording" in seen else None
    if is_samples(value) or getattr(value, "ndim", None) == 1:
        return "audio"
    if isinstance(value, Mapping):
        return kind_of_value(value.get("path") or value.get("bytes") or b"")
    return "image" if hasattr(value, "getbands") or hasattr(value, "ndim") else None


def kind_of_files(values: Iterable[Any], where: str, default: Kind = "image") -> Kind:
    """Pictures or recordings; `default` where nothing says which. Raises RequestError where both are."""
    found: dict[Kind, Any] = {}
    for value in values:
        kind = kind_of_value(value)
        if kind is not None:
            found.setdefault(kind, value)
        if len(found) > 1:
            such = " and ".join(_shown(found[kind], kind) for kind in ("image", "audio"))
            raise RequestError(
                f"{where} holds both pictures and recordings, such as {such}; expected one kind: part them"
            )
    return next(iter(found), default)


def first_few(values: Iterable[Any]) -> list[Any]:
    """The first hundred values that are there, enough to see what a column holds."""
    return list(islice((value for value in values if value is not None and value != ""), _LOOKED_AT))


def _shown(value: Any, kind: Kind) -> str:
    if isinstance(value, str | Path):
        return PurePath(value).name
    return f"an {kind} of type {type(value).__name__}"
