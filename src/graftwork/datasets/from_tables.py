"""Tables, whose columns have found their roles -> rows and datasets."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from graftwork.datasets.assemble import assemble
from graftwork.datasets.columns import Asked, Roles, choose
from graftwork.datasets.folders import entries, part_named
from graftwork.datasets.items import column_of, missing
from graftwork.datasets.kinds import CALLED, kind_of_files
from graftwork.datasets.tables import Table, is_table
from graftwork.errors import RequestError
from graftwork.rows import Dataset, Kind, Part, Rows


def part_tables(folder: Path) -> list[tuple[Part, Path]]:
    """Tables named after parts, such as train.csv or test-00000-of-00002.parquet; [] without train."""
    found = []
    for path in (Path(entry.path) for entry in entries(folder)):
        part = part_named(path.stem) or part_named(path.stem.partition("-")[0])
        if part is not None and path.is_file() and is_table(path):
            found.append((part, path))
    return found if any(part == "train" for part, _ in found) else []


def dataset_of_tables(
    name: str, tables: Sequence[tuple[Part | None, Table]], asked: Asked, *, confined: bool = False
) -> Dataset:
    """One dataset of tables in one folder; confined: files that they name must lie in it.

    The part of each table is given, or None: then its split column says it, or all rows are for
    training. Raises RequestError where columns do not show what they are for.
    """
    pieces = [_piece(part, table, asked) for part, table in tables]
    kinds = sorted({CALLED[piece.kind] for piece in pieces})
    if len(kinds) > 1:
        raise RequestError(
            f"{name}: some of its tables hold {kinds[0]}, others {kinds[1]}; say --text or --file"
        )
    values = [value for piece in pieces for value in piece.values]
    names = [row for piece in pieces for row in piece.names]
    kind = pieces[0].kind
    rows = Rows(names, {kind: column_of(values, kind, tables[0][1].folder, confined=confined)})
    groups = [group for piece in pieces for group in piece.groups]
    return assemble(
        name,
        rows,
        labels=[label for piece in pieces for label in piece.labels],
        parts=[part for piece in pieces for part in piece.parts],
        groups=None if all(map(missing, groups)) else groups,
        notes=[note for piece in pieces for note in piece.notes],
    )


def rows_of_table(table: Table, wanted: Kind, text: str | None, file: str | None) -> Rows:
    """The rows of a table, labels or none, in its order; empty cells stay (as rows of no content).

    wanted: the kind of files in a column that does not say it.
    """
    roles = choose(table, Asked(text=text, file=file), labelled=False)
    values = table.columns[roles.content]()
    kind = _kind(table, roles, values, "image" if wanted == "text" else wanted)
    return Rows(_names(table, values, kind), {kind: column_of(values, kind, table.folder)})


def as_parts(values: Sequence[Any], where: str) -> list[Part]:
    """Words a user calls the parts by -> parts; raises RequestError naming a word that is none."""
    parts = []
    for i, value in enumerate(values):
        part = part_named(str(value))
        if part is None:
            raise RequestError(
                f"{where}, row {i + 1}: {value!r} names no part; expected train, validation or test"
            )
        parts.append(part)
    return parts


@dataclass(frozen=True)
class _Piece:
    """What one table contributes; all sequences are as long as its rows with content."""

    kind: Kind
    values: list[Any]
    names: list[str]
    labels: list[Any]
    parts: list[Part]
    groups: list[Any]
    notes: tuple[str, ...]


def _piece(part: Part | None, table: Table, asked: Asked) -> _Piece:
    # a test table without the label column is unlabelled, not wrong
    unlabelled = part not in (None, "train") and asked.label not in table.columns
    roles = choose(table, replace(asked, label=None) if unlabelled else asked, labelled=not unlabelled)
    values = table.columns[roles.content]()
    kept = [i for i, value in enumerate(values) if not missing(value)]
    if not kept:
        raise RequestError(f"{table.name}: column {roles.content!r} is empty; expected one example a row")
    gaps = len(table) - len(kept)
    notes = (f"{table.name}: {gaps} rows without a {roles.content} were left out",) if gaps else ()
    kind = _kind(table, roles, values)
    names = _names(table, values, kind)
    parts = _parts(table, roles) if part is None else [part] * len(table)
    labels, groups = _cells(table, roles.label), _cells(table, roles.group)

    def pick(cells: list[Any]) -> list[Any]:
        return [cells[i] for i in kept]

    return _Piece(
        kind, pick(values), pick(names), pick(labels), pick(parts), pick(groups), (*table.notes, *notes)
    )


def _kind(table: Table, roles: Roles, values: Sequence[Any], default: Kind = "image") -> Kind:
    if roles.file is None:
        return "text"
    return kind_of_files(values, f"{table.name}, column {roles.file!r}", default)


def _cells(table: Table, column: str | None) -> list[Any]:
    return [None] * len(table) if column is None else table.columns[column]()


def _parts(table: Table, roles: Roles) -> list[Part]:
    if roles.split is None:
        return ["train"] * len(table)
    return as_parts(table.columns[roles.split](), f"{table.name}, column {roles.split!r}")


def _names(table: Table, values: Sequence[Any], kind: Kind) -> list[str]:
    """Files are known by their path, other rows by their place in the table."""
    if kind != "text" and all(isinstance(value, str) for value in values):
        return [str(value) for value in values]
    return list(table.row_names)
