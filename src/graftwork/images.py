"""Decoding of pictures: bytes of any common format -> an upright 8-bit RGB picture, or a reason why not."""

import re
import struct
import warnings
from io import BytesIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from graftwork.errors import Unreadable
from graftwork.signatures import looks_like

PIXEL_LIMIT = 100_000_000
"""Pictures of more pixels are refused from their header, before anything is allocated."""

# No EPS, PDF or WMF (they run an interpreter), none that lacks a signature. JPEG first: the usual case.
_FORMATS = (
    "JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF", "ICO", "DIB", "SGI",
)  # fmt: skip
# What Pillow's decoders raise on damaged files.
_DAMAGED = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError,
    OverflowError, ZeroDivisionError, NotImplementedError, MemoryError, struct.error,
)  # fmt: skip
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(content: bytes, at_least: int | None = None) -> Image.Image:
    """The picture in `content`: RGB, 8 bits a channel, upright (EXIF orientation applied).

    at_least: pixels wanted on the short side. A JPEG is then decoded at 1/2, 1/4 or 1/8 of its
    size where that leaves as many; other formats come at full size. The first frame of an animation
    is taken, transparency is laid on white, 16-bit and floating-point greys are scaled to 8 bits.

    Raises Unreadable, with a short reason that follows the file's name in a sentence.
    """
    _quieten()
    image = _open(content)
    width, height = image.size
    if width * height > PIXEL_LIMIT:
        raise Unreadable(_too_large(f"{width:,} x {height:,}"))
    try:
        if at_least is not None:
            image.draft(None, (at_least, at_least))
        image.load()
        upright = _upright(image)
        return upright if upright.mode == "RGB" and "transparency" not in upright.info else _rgb(upright)
    except Image.DecompressionBombError as error:
        raise Unreadable(_too_large("more than its header says")) from error
    except _DAMAGED as error:
        raise Unreadable(_damage(error)) from error


def _open(content: bytes) -> Image.Image:
    """Read the header only."""
    if not content:
        raise Unreadable("is empty (0 bytes)")
    try:
        return Image.open(BytesIO(content), formats=_FORMATS)
    except Image.DecompressionBombError as error:
        # Pillow refuses before it hands out the size; its message has the number of pixels
        pixels = next((int(word) for word in re.findall(r"\d+", str(error))), 0)
        raise Unreadable(_too_large(f"{pixels / 1e6:,.0f} million")) from error
    except UnidentifiedImageError as error:
        raise Unreadable(f"is not a picture (it looks like {looks_like(content)})") from error
    except _DAMAGED as error:
        raise Unreadable(_damage(error)) from error


def _quieten() -> None:
    """Keep Pillow's warnings (odd EXIF, many pixels) from the user: what matters is raised as Unreadable.

    Adding one filter is safe in threads, where `warnings.catch_warnings` is not; it is looked for
    each time because a caller's own `catch_warnings` may have put the old filters back.
    """
    if not any(f[0] == "ignore" and getattr(f[3], "pattern", None) == _PILLOW for f in warnings.filters):
        warnings.filterwarnings("ignore", module=_PILLOW)


_PILLOW = r"PIL\."


def _too_large(size: str) -> str:
    return f"has too many pixels ({size}; at most {PIXEL_LIMIT // 1_000_000} million)"


def _damage(error: BaseException) -> str:
    said = str(error).strip()
    if isinstance(error, EOFError) or "truncated" in said.lower():
        return "is truncated (the file ends before the picture does)"
    if isinstance(error, MemoryError):
        return "does not fit into memory"
    return f"is damaged ({said or type(error).__name__})"


def _upright(image: Image.Image) -> Image.Image:
    try:
        turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except _DAMAGED:
        return image  # a damaged EXIF block says nothing about the orientation; the pixels are whole
    return image if turn is None else image.transpose(turn)


def _rgb(image: Image.Image) -> Image.Image:
    """Any mode -> RGB."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        image = Image.fromarray(_to_bytes(np.asarray(image, dtype=np.float64), image.mode))
    elif image.has_transparency_data:
        layer = image.convert("RGBA")
        paper = Image.new("RGBA", layer.size, "white")
        image = Image.alpha_composite(paper, layer)
    return image.convert("RGB")


def _to_bytes(values: np.ndarray, mode: str) -> np.ndarray:
    """Greys on an unknown scale -> 0..255, taking the smallest usual ceiling that holds them all."""
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0).clip(min=0)
    top = float(values.max(initial=0))
    ceilings = [c for c in (1.0, 255.0, 65535.0) if c >= top and (mode == "F" or c > 1)]
    return np.asarray((values * (255 / (ceilings[0] if ceilings else top))).round(), dtype=np.uint8)
