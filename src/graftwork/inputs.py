"""What is named on the command line to be answered -> rows."""

import re
import sys
from pathlib import Path

from graftwork.datasets import rows_from_items, rows_from_path
from graftwork.errors import RequestError
from graftwork.rows import Kind, Rows


def rows_of(said: str, kind: Kind, *, text: str | None = None, file: str | None = None) -> Rows:
    """Rows of a file, a folder, a table, standard input ("-", a line each), or a text given as such.

    Raises RequestError where there is no such file and the model does not take texts.
    """
    if said == "-":
        try:
            lines = [line.rstrip("\r\n") for line in sys.stdin]
        except UnicodeDecodeError as error:
            raise RequestError(
                f"standard input is not {error.encoding.upper()}; expected a text or a path a line, in UTF-8"
            ) from error
        if not lines:
            raise RequestError("nothing on standard input; expected a text or a path on each line")
        return rows_from_items(lines, kind)
    if not said.strip():
        raise RequestError("an empty input seen; expected a file, a folder, a table, a text, or - for stdin")
    # "tickets.csv" that is not there is a slip and is said; a sentence has spaces, or no suffix (a
    # Chinese one has no spaces, but what follows its full stop is no suffix either)
    a_path = re.fullmatch(r"\.[A-Za-z0-9]{1,8}", Path(said).suffix) and not any(map(str.isspace, said))
    if kind == "text" and not a_path and not _exists(said):
        return rows_from_items([said], kind)
    return rows_from_path(said, kind, text=text, file=file)


def _exists(said: str) -> bool:
    try:
        return Path(said).exists()
    except OSError:
        return False  # a sentence can be longer than a file name may be
