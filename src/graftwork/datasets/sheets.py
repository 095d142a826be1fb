"""`python -P sheets.py FILE`: what the first sheet with data shows, as lines of JSON, in a bounded process.

A workbook of a few kilobytes can claim all memory there is, and then the library ends its process. So this
is a process of its own, which imports nothing of the package and starts in some 50 ms.

First {"sheet", "others"}: names of the sheet and of others with data, or null where none has any. Then
[number, [text of each cell]] for each row that shows anything, rows counted from 1 as on the sheet. Where
that cannot be done the last line is {"error"}: "password", "missing" (the library), "size" or "damaged".
"""

import datetime as dt
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MEMORY_BYTES = 4_000_000_000
CPU_S = 120
TEXT_BYTES = 500_000_000
"""Of all that is said: a text may be stored once and shown in a million cells."""
_ENCRYPTED = "EncryptedPackage".encode("utf-16-le")


def main(path: Path) -> None:
    """Say what is to be said on standard output."""
    if sys.platform == "linux":  # elsewhere the kernel does not hold processes to it
        import resource

        for what, most in (
            (resource.RLIMIT_AS, MEMORY_BYTES),
            (resource.RLIMIT_CPU, CPU_S),
            (resource.RLIMIT_CORE, 0),
        ):
            hard = resource.getrlimit(what)[1]
            most = most if hard == resource.RLIM_INFINITY else min(most, hard)  # never beyond its maker's
            resource.setrlimit(what, (most, most))
    try:
        said = 0
        for line in _lines(path):
            text = json.dumps(line)
            said += len(text)
            if said > TEXT_BYTES:
                raise MemoryError
            print(text)
    except ImportError:
        _fail("missing")
    except MemoryError:
        _fail("size")
    except OSError as error:
        _fail(error.strerror or type(error).__name__)
    except BaseException as error:  # a panic of the library is no Exception
        _fail("password" if type(error).__name__ == "PasswordError" else "damaged")


def shown(cell: Any) -> str:
    """A stored value as its text: 3.0 as 3, dates as ISO 8601, times by the clock, durations as h:mm:ss."""
    match cell:
        case str():
            return cell
        case bool():
            return "TRUE" if cell else "FALSE"
        case float():
            # programs of spreadsheets show 15 digits at most, and no 0.30000000000000004
            return str(int(cell)) if cell.is_integer() and abs(cell) < 1e15 else f"{cell:.15g}"
        case dt.datetime():
            return cell.isoformat(" ", "seconds")
        case dt.time():
            return cell.isoformat("seconds")
        case dt.timedelta():
            seconds = round(cell.total_seconds())
            sign, seconds = ("-", -seconds) if seconds < 0 else ("", seconds)
            return f"{sign}{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return str(cell)  # whole numbers, and dates, which are ISO 8601


def _lines(path: Path) -> Iterator[Any]:
    import python_calamine as calamine

    content = path.read_bytes()
    if not content.startswith(b"PK") and _ENCRYPTED in content:
        yield {"error": "password"}
        return
    with path.open("rb") as file:
        book = calamine.load_workbook(file)
    about = [one for one in book.sheets_metadata if one.typ == calamine.SheetTypeEnum.WorkSheet]
    # what its owner hid is read where nothing else is there
    about.sort(key=lambda one: one.visible != calamine.SheetVisibleEnum.Visible)
    sheets = (book.get_sheet_by_name(one.name) for one in about)
    chosen = next((sheet for sheet in sheets if _holds_text(sheet)), None)
    if chosen is None:
        yield {"sheet": None, "others": []}
        return
    yield {"sheet": chosen.name, "others": [sheet.name for sheet in sheets if _holds_text(sheet)]}
    for number, cells in enumerate(chosen.iter_rows(), start=1):
        texts = [shown(cell) for cell in cells]
        if any(text.strip() for text in texts):
            yield number, texts


def _holds_text(sheet: Any) -> bool:
    return any(shown(cell).strip() for cells in sheet.iter_rows() for cell in cells)


def _fail(reason: str) -> None:
    print(json.dumps({"error": reason}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
