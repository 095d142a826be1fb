"""Single items as Python or a table hands them over -> a column of rows."""

import math
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from graftwork.datasets.folders import readable_name
from graftwork.datasets.kinds import is_samples, kind_of_files, looks_like_file
from graftwork.errors import RequestError
from graftwork.rows import Column, Contents, Files, Kind, Texts

if TYPE_CHECKING:
    from PIL.Image import Image

# Modes that PNG holds without loss.
_PNG_MODES = frozenset({"1", "L", "LA", "I;16", "P", "RGB", "RGBA"})
_LONGEST_PATH = 1_000


def missing(value: Any) -> bool:
    """Whether a cell is empty: None, NaN, pandas' NA and NaT, or blank text."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(value, float | np.floating):
        return math.isnan(value)
    return isinstance(value, str) and not value.strip()


def kind_of(items: Sequence[Any]) -> Kind:
    """Pictures or recordings where the items are such, or names of existing files of such; else texts.

    Raises RequestError where some are pictures and some recordings.
    """
    # a gap says nothing of the kind of the others
    given = [item for item in items if not missing(item)]
    if all(isinstance(item, str) for item in given):
        files = bool(given) and all(map(looks_like_file, given)) and Path(given[0]).expanduser().is_file()
        return kind_of_files(given, "the list") if files else "text"
    return kind_of_files(given, "the list")


def column_of(
    items: Sequence[Any], kind: Kind, folder: Path | None = None, *, confined: bool = False
) -> Column:
    """A column of texts, or of pictures or recordings given as paths (relative to `folder`), bytes or
    {bytes, path} records; pictures also as PIL images or arrays (0 to 255, or floats 0 to 1) of shape
    (height, width[, 1, 3 or 4]); recordings as (samples, rate) or {array, sampling_rate}.

    Raises RequestError, naming the item, where one is none of these; confined: also where a path leads
    out of `folder`.
    """
    if confined and kind != "text":
        _refuse_outside(items)
    if kind == "text":
        return Texts([_text(item, i) for i, item in enumerate(items)])
    if all(isinstance(item, str | Path) for item in items):
        return Files(kind, [_resolve(item, folder, confined) for item in items])
    return Contents(kind, [_encoded(item, i, kind, folder, confined) for i, item in enumerate(items)])


def _refuse_outside(items: Sequence[Any]) -> None:
    """Paths of a stranger's table: relative, and never up."""
    for i, item in enumerate(items):
        said = item.get("path") if isinstance(item, Mapping) and not item.get("bytes") else item
        if not isinstance(said, str | Path):
            continue
        path = Path(said.strip() if isinstance(said, str) else said)
        if len(str(said)) > _LONGEST_PATH:
            raise RequestError(
                f"item {i + 1} has {len(str(said)):,} characters where a file's name belongs, "
                f"{str(said)[:40]!r}...; expected a path beside the table, such as images/1.jpg"
            )
        if path.is_absolute() or ".." in path.parts or "\0" in str(path):
            raise RequestError(
                f"item {i + 1} names the file {str(said)[:80]!r}, which lies outside the data; expected a "
                "path beside the table, such as images/1.jpg"
            )


def name_of(item: Any, i: int) -> str:
    """How the user knows the item: its path or its text, else its number."""
    if isinstance(item, Path):
        return readable_name(item)
    return item if isinstance(item, str) else f"item {i + 1}"


def _text(item: Any, i: int) -> str:
    if missing(item):
        return ""
    if isinstance(item, bytes | dict | list | tuple | np.ndarray) or hasattr(item, "getbands"):
        raise RequestError(f"item {i + 1} is a {type(item).__name__}; expected a text, as for the others")
    return str(item)


def _resolve(item: str | Path, folder: Path | None, confined: bool) -> Path:
    path = Path(item.strip() if isinstance(item, str) else item)
    if not confined:
        path = path.expanduser()  # a stranger's ~ is nobody's home, but a folder of that name
    return path if folder is None else folder / path


def _encoded(item: Any, i: int, kind: Kind, folder: Path | None, confined: bool) -> bytes:
    """The picture or recording as the bytes of a file; without loss where it comes as numbers."""
    if isinstance(item, bytes | bytearray | memoryview):
        return bytes(item)
    if is_samples(item):
        return _file_of_samples(item, i)
    if isinstance(item, dict) and item.get("bytes"):
        return bytes(item["bytes"])
    if isinstance(item, dict) and item.get("path"):
        return _file_bytes(_resolve(item["path"], folder, confined))
    if isinstance(item, str | Path):
        return _file_bytes(_resolve(item, folder, confined))
    if kind == "image" and hasattr(item, "getbands"):
        return _file_of_picture(item)
    if kind == "image" and isinstance(item, np.ndarray):
        from PIL import Image

        return _file_of_picture(Image.fromarray(_pixels(item, i)))
    if missing(item):
        return b""
    if kind == "audio" and hasattr(item, "shape"):
        raise RequestError(
            f"item {i + 1} is an array of shape {tuple(item.shape)} without a rate; expected a recording: "
            "(samples, rate), {'array': samples, 'sampling_rate': rate}, a path or bytes"
        )
    raise RequestError(
        f"item {i + 1} is of type {type(item).__name__}; expected a text, a picture (a path, bytes, a PIL "
        "image or an array) or a recording (a path, bytes or (samples, rate))"
    )


def _file_bytes(path: Path) -> bytes:
    # an empty row is reported later as unreadable, beside the others; raising would name only the first
    return path.read_bytes() if path.is_file() else b""


def _file_of_picture(image: "Image") -> bytes:
    from PIL import ImageOps

    upright = ImageOps.exif_transpose(image)
    target = BytesIO()
    if upright.mode in _PNG_MODES:
        upright.save(target, "PNG", compress_level=1)
    else:
        upright.save(target, "TIFF")
    return target.getvalue()


def _pixels(array: NDArray[Any], i: int) -> NDArray[np.uint8]:
    """(h, w), (h, w, 1), (h, w, 3) or (h, w, 4); bool, integers to 255, or floats from 0 to 1."""
    shaped = array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array
    if shaped.ndim == 2 or (shaped.ndim == 3 and shaped.shape[2] in (3, 4)):
        if shaped.size and shaped.dtype == np.uint8:
            return np.ascontiguousarray(shaped)
        if shaped.size and shaped.dtype == np.bool_:
            return shaped.astype(np.uint8) * np.uint8(255)
        if shaped.size and np.issubdtype(shaped.dtype, np.integer):
            if shaped.min() >= 0 and shaped.max() <= 255:
                return shaped.astype(np.uint8)
        if shaped.size and np.issubdtype(shaped.dtype, np.floating):
            if shaped.min() >= 0 and shaped.max() <= 1:
                return np.asarray((shaped * 255).round(), dtype=np.uint8)
    span = f" from {array.min():g} to {array.max():g}" if array.size and array.dtype.kind in "fiu" else ""
    raise RequestError(
        f"item {i + 1} is an array of shape {array.shape} and type {array.dtype}{span}; expected "
        "(height, width) or (height, width, 3), as integers from 0 to 255 or floats from 0 to 1"
    )


def _file_of_samples(item: Any, i: int) -> bytes:
    """(n,), (n, channels) or (channels, n) samples and their rate -> a mono WAV file, without loss."""
    from graftwork.sounds import RATES, encode

    given, rate = (item["array"], item["sampling_rate"]) if isinstance(item, Mapping) else item
    samples = np.asarray(given)
    if not isinstance(rate, int | float | np.number) or not RATES.start <= rate < RATES.stop:
        seen = type(rate).__name__ if hasattr(rate, "shape") else repr(rate)
        raise RequestError(
            f"item {i + 1} has the rate {seen:.40}; expected samples a second, such as (samples, 16000)"
        )
    if samples.ndim not in (1, 2) or samples.dtype.kind not in "fiu":
        raise RequestError(
            f"item {i + 1} has samples of shape {samples.shape} and type {samples.dtype}; expected numbers "
            "of shape (samples,) or (samples, channels)"
        )
    if samples.dtype.kind != "f":
        middle = 128 if samples.dtype.kind == "u" else 0
        samples = (samples.astype(np.float64) - middle) / 2.0 ** (8 * samples.itemsize - 1)
    if samples.ndim == 2:
        samples = samples.mean(axis=int(np.argmin(samples.shape)))
    return encode(samples, int(rate), exact=True)
