"""Bytes of a text file -> characters, or an error that names the line."""

import codecs
from pathlib import Path

from graftwork.errors import RequestError


def decode_text(path: Path) -> tuple[str, tuple[str, ...]]:
    """(text, notes) of a file in UTF-8, UTF-16 with its mark, or GB18030 (then a note says so).

    Raises RequestError naming the line where the file is none of these, or holds NUL characters;
    raises OSError where the file cannot be opened.
    """
    content = path.read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = _decode(path, content, "utf-16")
        notes: tuple[str, ...] = ()
    else:
        text, notes = _decode_unmarked(path, content)
    if "\0" in text:
        raise RequestError(
            f"{path}, line {_line(text, text.index(chr(0)))}: NUL bytes seen, text expected; "
            "save the table again as 'CSV UTF-8' (is it another kind of file, or UTF-16 without its mark?)"
        )
    return text, notes


def _decode_unmarked(path: Path, content: bytes) -> tuple[str, tuple[str, ...]]:
    try:
        return content.decode("utf-8-sig"), ()
    except UnicodeDecodeError as error:
        chinese = _gb18030(content)
        if chinese is None:
            raise _wrong(path, content, error) from error
    note = f"{path.name} is not UTF-8; it was read as GB18030 (if texts look wrong, save it as UTF-8)"
    return chinese, (note,)


def _gb18030(content: bytes) -> str | None:
    """The text where `content` reads as Chinese written by a spreadsheet, else None.

    West European text often decodes without an error too, but then most second bytes are ASCII
    letters; those of common Chinese characters are not. Damaged UTF-8 may decode as well.
    """
    try:
        text = content.decode("gb18030")
    except UnicodeDecodeError:
        return None
    wide = sum(character > "\x7f" for character in text)
    high = sum(byte > 0x7F for byte in content)
    # characters of three bytes in UTF-8; GB18030 text has hardly any by chance
    still_utf8 = 3 * sum(character > "\u07ff" for character in content.decode("utf-8", "ignore"))
    return text if high >= 1.8 * wide and still_utf8 < 0.5 * high else None


def _decode(path: Path, content: bytes, encoding: str) -> str:
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise _wrong(path, content, error) from error


def _wrong(path: Path, content: bytes, error: UnicodeDecodeError) -> RequestError:
    line = content[: error.start].count(b"\n") + 1
    return RequestError(
        f"{path}, line {line}: byte 0x{content[error.start]:02X} (number {error.start + 1}) is not "
        f"{error.encoding.upper()}; expected UTF-8: save the table as 'CSV UTF-8', then run again"
    )


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1
