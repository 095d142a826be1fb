"""Tables of strangers: how wide, long and large they are is seen before anybody reads them whole."""

import codecs
import csv
import io
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from graftwork.datasets import workbooks
from graftwork.datasets.tables import JSON_LINES, is_table
from graftwork.service.problems import Problem, bad_request, too_many
from graftwork.service.settings import Limits

TEXT_BYTES = 500_000_000
"""Of a CSV, TSV or JSON-lines file, or a workbook: it is read whole, and takes several times as much."""
PARQUET_BYTES = 4_000_000_000
"""Of a Parquet table's columns in memory."""
_BATCH = 256
_SMALL = 100_000_000
"""Bytes up to which a table may be packed as tightly as it likes."""


def check(path: Path, name: str, limits: Limits, rows: int | None) -> None:
    """Raise a Problem where a table has too many columns, rows or bytes, or a cell is too large.

    name: by which its owner knows it. rows: that one dataset may have, None for no bound. What else may be
    wrong with a table is found, and said better, by whoever reads it.
    """
    suffix = Path(name).suffix.lower()
    assert is_table(Path(name)), name
    if suffix in (".parquet", ".pq"):
        _check_parquet(path, name, limits, rows)
        return
    size = path.stat().st_size
    if size > TEXT_BYTES:
        raise bad_request(
            f"{name} has {size / 1e6:,.0f} MB; expected {TEXT_BYTES / 1e6:,.0f} at most: send it in parts, "
            "or as Parquet"
        )
    if suffix in workbooks.SUFFIXES:
        _check_workbook(path, name, limits, rows)
        return
    (_check_json if suffix in JSON_LINES else _check_delimited)(path, name, limits, rows)


def _check_delimited(path: Path, name: str, limits: Limits, rows: int | None) -> None:
    tabs = Path(name).suffix.lower() in (".tsv", ".tab")
    with _text(path) as file:
        first = file.readline(limits.columns * 1_000)
        mark = "\t" if tabs else next((one for one in ",;\t" if one in first), ",")
        columns = first.count(mark) + 1
        if columns > limits.columns:
            raise _too_wide(name, columns, limits)
        file.seek(0)
        count = -1
        # csv says no word of a row before it is whole: what is too large for a cell ends it first
        before = csv.field_size_limit(limits.cell)
        try:
            for count, fields in enumerate(csv.reader(file, delimiter=mark)):
                if len(fields) > limits.columns:
                    raise _too_wide(name, len(fields), limits)
                _require_rows(name, count, rows)
        except csv.Error as error:
            if "field larger" in str(error):
                raise _too_large(name, count + 2, limits) from error
        finally:
            csv.field_size_limit(before)


def _check_workbook(path: Path, name: str, limits: Limits, rows: int | None) -> None:
    records, _ = workbooks.read_rows(path)  # in a process of its own, which is bounded
    if len(records[0][1]) > limits.columns:
        raise _too_wide(name, len(records[0][1]), limits)
    _require_rows(name, len(records) - 1, rows)
    for number, texts in records:
        if any(len(text) > limits.cell for text in texts):
            raise _too_large(name, number, limits)


def _check_json(path: Path, name: str, limits: Limits, rows: int | None) -> None:
    names: set[str] = set()
    with _text(path) as file:
        start = file.read(1_000).lstrip()
        file.seek(0)
        for count, value in enumerate(_values(file, array=start.startswith("["))):
            _require_rows(name, count + 1, rows)
            if not isinstance(value, dict):
                continue
            names.update(value)
            if len(names) > limits.columns:
                raise _too_wide(name, len(names), limits)
            if any(isinstance(cell, str) and len(cell) > limits.cell for cell in value.values()):
                raise _too_large(name, count + 1, limits)


def _values(file: io.TextIOBase, array: bool) -> Iterator[object]:
    """Rows, as far as they are JSON; whoever reads the table says where they are not."""
    with suppress(ValueError, RecursionError):
        if array:
            found = json.loads(file.read())
            yield from found if isinstance(found, list) else [found]
            return
        for line in file:
            if line.strip():
                yield json.loads(line)


def _check_parquet(path: Path, name: str, limits: Limits, rows: int | None) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    size = path.stat().st_size
    try:
        with pq.ParquetFile(
            path, thrift_string_size_limit=50_000_000, thrift_container_size_limit=1_000_000
        ) as file:
            about = file.metadata
            if about.num_columns > limits.columns:
                raise _too_wide(name, about.num_columns, limits)
            _require_rows(name, about.num_rows, rows)
            total = 0
            # read in pieces: a few packed bytes may stand for a value a million times
            for batch in file.iter_batches(batch_size=_BATCH):
                total += batch.nbytes
                if total > min(PARQUET_BYTES, max(_SMALL, limits.ratio * size)):
                    raise bad_request(
                        f"{name} ({size / 1e6:,.1f} MB) takes more than {total / 1e6:,.0f} MB unpacked; "
                        "send it in parts, without values that are said thousands of times"
                    )
    except (pa.ArrowException, OSError, ValueError, TypeError, OverflowError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise bad_request(f"{name} cannot be read as Parquet ({said}); write the table again") from error


def _text(path: Path) -> io.TextIOWrapper:
    """The file as characters of which the marks of a table are right, in whatever of its encodings."""
    with path.open("rb") as file:
        wide = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    # neither UTF-8 nor GB18030 has a comma, a quotation mark or a line's end inside a character
    return path.open(encoding="utf-16" if wide else "latin-1", errors="replace", newline="")


def _require_rows(name: str, count: int, rows: int | None) -> None:
    if rows is not None and count > rows:
        raise too_many(
            "quota-exceeded",
            f"{name} has more than the {rows:,} rows that a dataset may have; send fewer",
            3600,
        )


def _too_wide(name: str, columns: int, limits: Limits) -> Problem:
    return bad_request(
        f"{name} has {columns:,} columns or more; expected {limits.columns:,} at most: keep the text or "
        "file, the label, and what you need beside them"
    )


def _too_large(name: str, row: int, limits: Limits) -> Problem:
    return bad_request(
        f"{name}, row {row}: a cell of more than {limits.cell:,} characters; expected a text or a file's "
        "name: is a quotation mark missing?"
    )
