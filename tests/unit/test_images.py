"""Any common picture becomes upright RGB; anything else says in a few words why not."""

import struct
import threading
import warnings
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from graftwork import images
from graftwork.errors import Unreadable
from graftwork.images import decode


def saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    target = BytesIO()
    picture.save(target, kind, **options)
    return target.getvalue()


def corners(width: int = 80, height: int = 48) -> Image.Image:
    """Red top left, green top right, blue bottom left, white bottom right."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[: height // 2, : width // 2, 0] = 255
    pixels[: height // 2, width // 2 :, 1] = 255
    pixels[height // 2 :, : width // 2, 2] = 255
    pixels[height // 2 :, width // 2 :] = 255
    return Image.fromarray(pixels)


def colour(picture: Image.Image, x: float, y: float) -> tuple[int, ...]:
    seen = picture.getpixel((int(x * picture.width), int(y * picture.height)))
    assert isinstance(seen, tuple)
    return tuple(round(value / 255) for value in seen)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000"])
def test_common_formats_decode_to_rgb(kind: str) -> None:
    picture = decode(saved(corners(), kind))
    assert (picture.mode, picture.size) == ("RGB", (80, 48))
    assert colour(picture, 0.25, 0.25) == (1, 0, 0)
    assert colour(picture, 0.75, 0.25) == (0, 1, 0)


@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_orientation_is_applied(turn: int) -> None:
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    lying = corners() if turn == 1 else corners().transpose(undo[turn])
    exif = Image.Exif()
    exif[0x0112] = turn
    picture = decode(saved(lying, "JPEG", exif=exif), at_least=16)
    assert picture.width > picture.height
    assert colour(picture, 0.25, 0.25) == (1, 0, 0)
    assert colour(picture, 0.25, 0.75) == (0, 0, 1)


@pytest.mark.parametrize("at_least", [1, 60, 100, 120, 121, 240, 500])
def test_reduced_decoding_leaves_at_least_the_wanted_pixels(at_least: int) -> None:
    picture = decode(saved(corners(960, 480), "JPEG"), at_least)
    assert min(picture.size) >= min(at_least, 480)
    assert picture.width == 2 * picture.height
    # the next smaller scale (down to an eighth) would have been too small
    assert min(picture.size) < 2 * at_least or min(picture.size) == 60 or min(picture.size) == 480


def test_cmyk_is_converted() -> None:
    picture = decode(saved(corners().convert("CMYK"), "JPEG", quality=95))
    assert picture.mode == "RGB"
    assert colour(picture, 0.25, 0.25) == (1, 0, 0)


def test_sixteen_bit_grey_keeps_its_range() -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    grey = np.asarray(decode(saved(Image.fromarray(ramp), "PNG")).convert("L"))
    assert np.abs(grey.astype(int).ravel() - np.arange(256)).max() <= 1


@pytest.mark.parametrize("top", [1.0, 255.0, 65535.0])
def test_floating_point_grey_is_scaled_to_eight_bits(top: float) -> None:
    ramp = np.linspace(0, top, 256, dtype=np.float32).reshape(16, 16)
    grey = np.asarray(decode(saved(Image.fromarray(ramp), "TIFF")).convert("L"))
    assert np.abs(grey.astype(int).ravel() - np.arange(256)).max() <= 1


def test_not_a_number_is_black() -> None:
    values = np.full((8, 8), np.nan, dtype=np.float32)
    assert not np.asarray(decode(saved(Image.fromarray(values), "TIFF"))).any()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_laid_on_white(mode: str) -> None:
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0)).convert(mode)
    content = saved(clear, "PNG", transparency=0) if mode == "P" else saved(clear, "PNG")
    assert np.asarray(decode(content)).min() == 255


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), shade) for shade in ("red", "blue", "green")]
    content = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert colour(decode(content), 0.5, 0.5) == (1, 0, 0)


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    header = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    data = b"IDAT" + zlib.compress(b"\0" * 64)
    return b"\x89PNG\r\n\x1a\n" + header + struct.pack(">I", len(data) - 4) + data + b"\0\0\0\0"


@pytest.mark.parametrize("side", [10_001, 13_000, 60_000])
def test_too_many_pixels_are_refused_from_the_header(side: int) -> None:
    # those beyond Pillow's own limit as well
    said = {10_001: "10,001 x 10,001", 13_000: "13,000 x 13,000", 60_000: "3,600 million"}[side]
    with pytest.raises(Unreadable, match=rf"too many pixels \({said};"):
        decode(png_header(side, side))


def test_a_picture_between_pillows_warning_and_the_limit_is_not_refused_for_its_size() -> None:
    with pytest.raises(Unreadable) as refused:
        decode(png_header(9_800, 10_000))
    assert "too many" not in str(refused.value)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
def test_a_truncated_file_says_so(kind: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    content = saved(noise, kind)
    with pytest.raises(Unreadable, match=r"truncated|damaged"):
        decode(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (bytes(1000), "zero bytes"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"<?xml version='1.0'?><svg>", "an SVG drawing"),
        (b"%PDF-1.7 ...", "a PDF document"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "a HEIC photo"),
        (b"\0\0\0\x18ftypisom\0\0\0\0", "a video"),
        (b"just some words", "text"),
        (b"\xff\xd8\xff", "the beginning of a JPEG"),
        (b"PK\x03\x04....", "a ZIP archive"),
        (bytes(range(256)), "no known format"),
    ],
)
def test_what_is_no_picture_says_what_it_looks_like(content: bytes, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason) as refused:
        decode(content)
    assert "\n" not in str(refused.value)


def test_every_damaged_byte_string_is_unreadable_or_a_picture() -> None:
    rng = np.random.default_rng(0)
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "JPEG2000", "ICO"):
        whole = np.frombuffer(saved(corners(), kind), dtype=np.uint8)
        for _ in range(40):
            broken = whole.copy()
            broken[rng.integers(0, len(broken), 8)] = rng.integers(0, 256, 8)
            try:
                assert decode(broken.tobytes(), at_least=8).mode == "RGB"
            except Unreadable as error:
                assert str(error)


def test_damaged_exif_does_not_lose_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    content = saved(corners(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x00")
    assert decode(content).size == (80, 48)

    def damaged(*_: object) -> None:
        raise struct.error("unpack requires a buffer of 12 bytes")  # as some versions of Pillow do

    monkeypatch.setattr(Image.Exif, "get", damaged)
    assert decode(content).size == (80, 48)


def test_pillows_warnings_do_not_reach_the_caller() -> None:
    palette = corners().convert("P")
    content = saved(palette, "PNG", transparency=bytes(range(256)))
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        decode(content)
        with pytest.raises(Unreadable):
            decode(png_header(9_800, 10_000))
    assert heard == []


def test_threads_decode_the_same_as_one() -> None:
    contents = [saved(corners(40 + 8 * i, 48), "JPEG") for i in range(16)]
    alone = [decode(content, 16).tobytes() for content in contents]
    together: list[bytes] = [b""] * 16

    def work(i: int) -> None:
        for _ in range(5):
            together[i] = decode(contents[i], 16).tobytes()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


def test_decoding_leaves_pillows_settings_as_they_were() -> None:
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)
    decode(saved(corners(), "PNG"))
    with pytest.raises(Unreadable):
        decode(png_header(60_000, 60_000))
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES) == before


def test_a_phones_largest_photo_is_within_the_limit() -> None:
    assert images.PIXEL_LIMIT >= 8000 * 6000
