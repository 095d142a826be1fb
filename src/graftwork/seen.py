"""Which rows a source of our own was pretrained on, so that a verdict on those very rows can say so."""

from graftwork.rows import Rows
from graftwork.sources import Source

SEEN = "rows.txt"
"""Beside the weights: the first 16 hexadecimal digits of the SHA-256 of every row learnt from."""
_DIGITS = 16


def digests(rows: Rows) -> list[str]:
    """What stands in SEEN for each row."""
    return [rows.column.digest(i).hex()[:_DIGITS] for i in range(len(rows))]


def seen_rows(source: Source, rows: Rows) -> int | None:
    """How many of `rows` this source was pretrained on; None where the source does not say."""
    listed = source.folder / SEEN
    if not listed.is_file():
        return None
    known = set(listed.read_text("ascii").split())
    return sum(digest in known for digest in digests(rows))
