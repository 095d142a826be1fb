"""Letters of many scripts and fonts as small pictures: the source task of `glyphs`. No digit is drawn.

A letter is a character of Unicode category L (numbers are category N and never taken), without a
decomposition (so no accents, no mathematical copies). Letters of different scripts that look alike
are one class. Every picture is white on black, 40 x 40, its longer side 36 pixels.
"""

import hashlib
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from fontTools.ttLib import TTCollection, TTFont, TTLibError
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

SIDE = 40
INK = 36
SCRIPTS = (
    "LATIN GREEK CYRILLIC ARMENIAN GEORGIAN HEBREW CHEROKEE COPTIC HIRAGANA KATAKANA THAI LAO TIFINAGH "
    "GLAGOLITIC GOTHIC DESERET OSAGE OSMANYA SHAVIAN LISU OLD"
).split()
LETTERS_A_SCRIPT = 60
PICTURES_A_LETTER = 160

# look-alikes: upper and lower case of one shape, and the Greek and Cyrillic twins of Latin letters
_TWINS = (
    "cCсСϲ oOоОοՕ sSѕЅ vVν wWԝ xXхХχΧ zZΖᴢ pPрРρΡ kKкКκΚ uUսՍ iIІΙӀlǀ jJјЈ aа eе yYуУγΥ "
    "AАΑ BВΒ EЕΕ HНΗ MМΜ NΝ TТΤ mм tт иИ пП гГΓ лЛ фФΦφ".split()
)
_CLASS = {letter: twins[0] for twins in _TWINS for letter in twins}


@dataclass(frozen=True)
class Letters:
    """pictures: (n, 40, 40) uint8; codes, fonts: (n,) index into `names` and `files`."""

    pictures: NDArray[np.uint8]
    codes: NDArray[np.int64]
    fonts: NDArray[np.int64]
    names: tuple[str, ...]
    files: tuple[str, ...]


def letters(fonts: Path) -> Letters:
    """Every wanted letter of every font under `fonts`, at most PICTURES_A_LETTER unlike pictures each."""
    found: dict[str, list[tuple[int, NDArray[np.uint8]]]] = defaultdict(list)
    seen: dict[str, set[bytes]] = defaultdict(set)
    files = sorted(p for p in fonts.rglob("*") if p.suffix.lower() in {".ttf", ".otf", ".ttc"})
    for number, path in _shuffled(files):
        for letter, picture in _pictures(path):
            name = _CLASS.get(letter, letter)
            digest = hashlib.sha256((picture >> 5).tobytes()).digest()
            if len(found[name]) < PICTURES_A_LETTER and digest not in seen[name]:
                seen[name].add(digest)
                found[name].append((number, picture))
    names = tuple(sorted(name for name, pictures in found.items() if len(pictures) >= 2))
    flat = [(code, *item) for code, name in enumerate(names) for item in found[name]]
    codes, numbers, pictures = zip(*flat, strict=True)
    return Letters(
        np.stack(pictures), np.array(codes), np.array(numbers), names, tuple(path.name for path in files)
    )


def _shuffled(files: list[Path]) -> Iterator[tuple[int, Path]]:
    """A fixed order in which the many faces of one family do not stand together."""
    order = sorted(range(len(files)), key=lambda i: hashlib.sha256(files[i].name.encode()).digest())
    return ((i, files[i]) for i in order)


def _pictures(path: Path) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    try:
        opened = TTCollection(path).fonts[0] if path.suffix.lower() == ".ttc" else TTFont(path, lazy=True)
        characters = sorted(opened.getBestCmap() or {})
        font = ImageFont.truetype(str(path), 72)
    except (TTLibError, OSError) as error:
        print(f"left out {path.name}: {error}")
        return
    counts: dict[str, int] = defaultdict(int)
    for point in characters:
        script = _script(chr(point))
        if script is None or counts[script] >= LETTERS_A_SCRIPT:
            continue
        picture = draw(chr(point), font)
        if picture is not None:
            counts[script] += 1
            yield chr(point), picture


def _script(character: str) -> str | None:
    if unicodedata.category(character) not in {"Lu", "Ll", "Lo"} or unicodedata.decomposition(character):
        return None
    script = unicodedata.name(character, "").split(" ")[0]
    if script not in SCRIPTS:
        return None
    if script == "LATIN" and not character.isascii():
        return None
    if script in {"GREEK", "CYRILLIC"} and not ("Α" <= character <= "ω" or "А" <= character <= "я"):
        return None
    return script


def draw(character: str, font: ImageFont.FreeTypeFont) -> NDArray[np.uint8] | None:
    """One letter, white on black, (40, 40); None where the font draws nothing."""
    try:
        left, top, right, bottom = font.getbbox(character)
    except OSError:
        return None
    wide, high = int(right - left), int(bottom - top)
    if wide < 4 or high < 4 or max(wide, high) > 400:
        return None
    image = Image.new("L", (wide + 2, high + 2))
    ImageDraw.Draw(image).text((1 - left, 1 - top), character, font=font, fill=255)
    box = image.getbbox()
    if box is None:
        return None
    image = image.crop(box)
    scale = INK / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    canvas = Image.new("L", (SIDE, SIDE))
    canvas.paste(image.resize(size, Image.Resampling.LANCZOS), ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    return np.asarray(canvas)
