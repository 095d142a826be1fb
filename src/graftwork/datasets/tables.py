"""Tables as they come, CSV, workbooks, Parquet, JSON lines, data frames -> named columns of plain values."""

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from graftwork.datasets import workbooks
from graftwork.datasets.encoding import decode_text
from graftwork.errors import RequestError

Values = Callable[[], list[Any]]
JSON_LINES = frozenset({".jsonl", ".ndjson", ".json"})
SUFFIXES = frozenset({".csv", ".tsv", ".tab", ".parquet", ".pq"}) | JSON_LINES | workbooks.SUFFIXES


@dataclass(frozen=True)
class Table:
    """Columns by name, each handing out its values when asked, and the name of each row.

    folder: what relative paths in the table are relative to; None means the working directory.
    """

    name: str
    columns: Mapping[str, Values]
    row_names: Sequence[str]
    folder: Path | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.row_names)


def is_table(path: Path) -> bool:
    """Whether the name of `path` is that of a table this module reads."""
    return path.suffix.lower() in SUFFIXES


def read_table(path: Path) -> Table:
    """The table in a file, by its suffix; raises RequestError saying what is wrong and where."""
    suffix = path.suffix.lower()
    try:
        if suffix in (".parquet", ".pq"):
            table = _parquet(path)
        elif suffix in JSON_LINES:
            table = _json_lines(path)
        elif suffix in workbooks.SUFFIXES:
            table = _of_records(path, *workbooks.read_rows(path))
        else:
            table = _delimited(path)
    except OSError as error:
        raise RequestError(f"{path} cannot be opened ({error.strerror or error})") from error
    if not len(table):
        raise RequestError(f"{path} has a header and no rows; expected one row an example")
    return table


def from_frame(data: Any) -> Table | None:
    """A pandas or pyarrow table, or a mapping of columns; None where `data` is none of these."""
    if isinstance(data, Mapping):
        columns: dict[str, Values] = {str(name): partial(list, values) for name, values in data.items()}
        lengths = {name: len(values()) for name, values in columns.items()}
        if len(set(lengths.values())) > 1:
            raise RequestError(f"columns of unequal length {lengths}; expected one value a row in each")
        rows = next(iter(lengths.values()), 0)
        return _named("table", columns, rows)
    if hasattr(data, "column_names") and hasattr(data, "to_pylist"):
        return _named("table", _arrow_columns(data), data.num_rows)
    if hasattr(data, "columns") and hasattr(data, "iloc"):
        _refuse_duplicates("the data frame", [str(name) for name in data.columns])
        columns = {str(name): data[name].tolist for name in data.columns}
        return Table("table", columns, [f"row {label}" for label in data.index])
    return None


def _named(name: str, columns: Mapping[str, Values], rows: int, **more: Any) -> Table:
    return Table(name, columns, [f"row {i + 1}" for i in range(rows)], **more)


# Delimited text


def _delimited(path: Path) -> Table:
    text, notes = decode_text(path)
    if not text.strip():
        raise RequestError(f"{path} is empty; expected a header line and one row an example")
    delimiter = _delimiter(path, text[: text.find("\n") if "\n" in text else None])
    try:
        records = _records(path, text, delimiter)
    except _BadQuotes as error:
        if delimiter != "\t":
            raise RequestError(str(error)) from None
        # the TSV of IANA knows no quoting, so a stray quote is a character like any other
        records = _records(path, text, delimiter, quoting=csv.QUOTE_NONE)
        notes = (*notes, f"{path.name}: quotation marks were read as plain characters")
    return _of_records(path, records, notes)


def _of_records(path: Path, records: Sequence[tuple[int, list[str]]], notes: tuple[str, ...]) -> Table:
    """The table of (line, fields), the header's first, all as long as the header."""
    header = _header(path, records[0][1])
    body = records[1:]

    def column(i: int) -> list[Any]:
        return [fields[i] for _, fields in body]

    columns: dict[str, Values] = {name: partial(column, i) for i, name in enumerate(header)}
    names = [f"{path.name}:{line}" for line, _ in body]
    return Table(path.name, columns, names, path.parent, notes)


def _header(path: Path, fields: Sequence[str]) -> list[str]:
    header = [name.strip() or f"column {i + 1}" for i, name in enumerate(fields)]
    _refuse_duplicates(str(path), header)
    return header


class _BadQuotes(Exception):
    """Quotation marks do not pair; the message says where."""


def _delimiter(path: Path, header: str) -> str:
    if path.suffix.lower() in (".tsv", ".tab"):
        return "\t"
    # spreadsheets of many countries write CSV with semicolons
    return next((mark for mark in ",;\t" if mark in header), ",")


def _records(
    path: Path, text: str, delimiter: str, quoting: Literal[0, 3] = csv.QUOTE_MINIMAL
) -> list[tuple[int, list[str]]]:
    """(line, fields) of the header and of every row; blank lines are skipped."""
    csv.field_size_limit(2**31 - 1)  # the default stops at 131,072 characters
    lines = io.StringIO(text, newline="")
    records = list(_lines(path, csv.reader(lines, delimiter=delimiter, strict=True, quoting=quoting)))
    header = _header(path, records[0][1])
    for line, fields in records:
        if len(fields) != len(header):
            raise RequestError(
                f"{path}, line {line}: {len(fields)} fields seen, {len(header)} expected as in the header "
                f"({', '.join(header)}); put texts that hold {delimiter!r} in double quotes"
            )
    return records


def _lines(path: Path, reader: Any) -> Iterator[tuple[int, list[str]]]:
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            where = f"{path}, line {line}"
            if "unexpected end" in str(error):
                raise _BadQuotes(
                    f"{where}: a quotation mark opens here and never closes; close it, or double it if it "
                    "belongs to the text"
                ) from error
            raise _BadQuotes(
                f"{where}: {error}; expected a quoted field to end there: double the quotation marks "
                "that belong to the text"
            ) from error
        if fields and any(field.strip() for field in fields):
            yield line, fields


def _refuse_duplicates(where: str, header: Sequence[str]) -> None:
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice:
        raise RequestError(
            f"{where} has more than one column named {twice[0]!r}; expected each name once: rename one"
        )


# JSON lines


def _json_lines(path: Path) -> Table:
    text, notes = decode_text(path)
    if not text.strip():
        raise RequestError(f"{path} is empty; expected one JSON object a line")
    records: list[dict[str, Any]] = []
    names: list[str] = []
    for line, value in _json_values(path, text):
        if not isinstance(value, dict):
            raise RequestError(
                f"{path}, line {line}: a JSON {type(value).__name__} seen, an object expected, such as "
                '{"text": "...", "label": "..."}'
            )
        records.append(value)
        names.append(f"{path.name}:{line}")
    header = dict.fromkeys(key for record in records for key in record)

    def column(name: str) -> list[Any]:
        return [record.get(name) for record in records]

    columns: dict[str, Values] = {name: partial(column, name) for name in header}
    return Table(path.name, columns, names, path.parent, notes)


def _json_values(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    """(line or position, value): one value a line, or the members of one JSON array."""
    if text.lstrip().startswith("["):
        yield from enumerate(_parse(path, 1, text), start=1)
        return
    # not splitlines(): JSON strings may hold U+2028 and its like unescaped
    for line, content in enumerate(text.split("\n"), start=1):
        if content.strip():
            yield line, _parse(path, line, content)


def _parse(path: Path, line: int, content: str) -> Any:
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        raise RequestError(
            f"{path}, line {line + error.lineno - 1}: not JSON ({error.msg}); expected one JSON object a line"
        ) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of brackets
        raise RequestError(
            f"{path}, line {line}: JSON too deep or with too long a number; expected plain objects"
        ) from error


# Parquet and Arrow


def _parquet(path: Path) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        data = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise RequestError(f"{path} cannot be read as Parquet ({said}); write the table again") from error
    names = [f"{path.name}:{i + 1}" for i in range(data.num_rows)]
    return Table(path.name, _arrow_columns(data), names, path.parent)


def _arrow_columns(data: Any) -> dict[str, Values]:
    """Columns of a pyarrow table; class names that Hugging Face keeps in the schema replace its codes."""
    _refuse_duplicates("the table", data.column_names)
    columns: dict[str, Values] = {name: partial(_values, data, name) for name in data.column_names}
    for name, classes in _class_names(data.schema.metadata or {}).items():
        if name in columns:
            columns[name] = partial(_decoded, columns[name], classes)
    return columns


def _values(data: Any, name: str) -> list[Any]:
    try:
        found: list[Any] = data.column(name).to_pylist()
    except (UnicodeDecodeError, OverflowError) as error:  # Parquet promises UTF-8 and keeps what it was given
        raise RequestError(
            f"column {name!r} holds values that cannot be read ({error}); write the table again"
        ) from error
    return found


def _decoded(values: Values, classes: Sequence[str]) -> list[Any]:
    """Codes -> class names; Hugging Face writes -1 where there is no label. No code: stays."""
    named = range(len(classes))
    return [
        None if code in (None, -1) else classes[code] if isinstance(code, int) and code in named else code
        for code in values()
    ]


def _class_names(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    try:
        found = json.loads(metadata.get(b"huggingface", b"{}"))
    except (ValueError, RecursionError):
        return {}  # somebody else's metadata under that name: the codes stay codes
    for key in ("info", "features"):
        found = found.get(key, {}) if isinstance(found, dict) else {}
    return {
        name: [str(label) for label in feature["names"]]
        for name, feature in (found.items() if isinstance(found, dict) else ())
        if isinstance(feature, dict)
        and feature.get("_type") == "ClassLabel"
        and isinstance(feature.get("names"), list)
        and feature["names"]
    }
