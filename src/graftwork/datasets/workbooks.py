"""Workbooks (.xlsx and its kin) -> the rows of their first sheet with data, as the texts that it shows."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from graftwork.datasets import sheets
from graftwork.errors import UnreadableWorkbook

SUFFIXES = frozenset({".xlsx", ".xlsm", ".xls", ".ods"})
_ZIP, _OLE = b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_OTHERWISE = "save it as .xlsx or 'CSV UTF-8' in the program that made it"
_NAMED = 5
_SHEETS = re.compile(r": of the sheets with data ('.*'|\".*\") was read, (.+) left out; to read another")


def read_rows(path: Path) -> tuple[list[tuple[int, list[str]]], tuple[str, ...]]:
    """((number on the sheet, texts of the cells) of each row that shows anything, notes); header first.

    Every row has a text for each column that shows anything. It is read in a process of its own, within
    4 GB and two minutes. Raises UnreadableWorkbook, in one line, where it cannot be; OSError where `path`
    cannot be opened.
    """
    with path.open("rb") as file:
        head = file.read(8)
    if not head:
        raise UnreadableWorkbook(
            f"{path} is empty; expected a workbook with a header row and one row an example"
        )
    if not head.startswith((_ZIP, _OLE)):
        raise UnreadableWorkbook(
            f"{path} does not begin as a workbook; if it is text under that name, call it .csv (or .tsv), "
            f"else {_OTHERWISE}"
        )
    command = [sys.executable, "-P", sheets.__file__, str(path.resolve())]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        said = [_line(path, line) for line in process.stdout]
    if process.returncode != 0 or not said:
        raise _refused(path, "size")
    about, rows = said[0], [(number, texts) for number, texts in said[1:]]
    if not rows:
        raise UnreadableWorkbook(
            f"{path} shows nothing in any sheet; expected a header row and one row an example"
        )
    used = [i for i in range(len(rows[0][1])) if any(texts[i].strip() for _, texts in rows)]
    return [(number, [texts[i] for i in used]) for number, texts in rows], tuple(_notes(path, about))


def _line(path: Path, line: bytes) -> Any:
    try:
        said = json.loads(line)
    except json.JSONDecodeError:  # the process ended within the line
        raise _refused(path, "size") from None
    if isinstance(said, dict) and "error" in said:
        raise _refused(path, said["error"])
    return said


def sheets_told(note: str) -> tuple[str, str] | None:
    """(the sheet that was read, those left out) where a note of `read_rows` says so; None of other notes."""
    found = _SHEETS.search(note)
    return None if found is None else (found[1], found[2])


def _notes(path: Path, about: dict[str, Any]) -> Iterator[str]:
    others = about["others"]
    if others:
        named = ", ".join(_short(name) for name in others[:_NAMED])
        more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
        yield (
            f"{path.name}: of the sheets with data {_short(about['sheet'])} was read, {named}{more} left out"
            "; to read another, move it to the front"
        )


def _short(name: str) -> str:
    return repr(name[:60])


def _refused(path: Path, reason: str) -> UnreadableWorkbook:
    match reason:
        case "password":
            return UnreadableWorkbook(
                f"{path} is protected by a password; expected an open one: save it without"
            )
        case "missing":
            return UnreadableWorkbook(f"{path} needs python-calamine to be read; pip install python-calamine")
        case "size":
            return UnreadableWorkbook(
                f"{path} takes more than {sheets.MEMORY_BYTES / 1e9:.0f} GB or {sheets.CPU_S} seconds to "
                "read, as a sheet with a cell far outside does; copy the table to a new workbook, or save it "
                "as 'CSV UTF-8'"
            )
        case "damaged":
            return UnreadableWorkbook(
                f"{path} cannot be read as a workbook (damaged, or another kind of file by that name); "
                f"{_OTHERWISE}"
            )
    return UnreadableWorkbook(f"{path} cannot be opened ({reason}); {_OTHERWISE}")
