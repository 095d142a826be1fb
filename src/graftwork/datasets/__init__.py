"""Data as users have it -> Dataset: folders, tables, lists. Nothing here knows of models."""

from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from graftwork.datasets.assemble import assemble
from graftwork.datasets.columns import Asked
from graftwork.datasets.digest import dataset_digest
from graftwork.datasets.encoding import decode_text
from graftwork.datasets.folders import entries, find_files, labelled_files, readable_name
from graftwork.datasets.from_tables import as_parts, dataset_of_tables, part_tables, rows_of_table
from graftwork.datasets.items import column_of, kind_of, name_of
from graftwork.datasets.kinds import CALLED
from graftwork.datasets.kinds import SUFFIXES as FILES_OF
from graftwork.datasets.tables import SUFFIXES, Table, from_frame, is_table, read_table
from graftwork.errors import RequestError
from graftwork.rows import Column, Dataset, Files, Kind, Part, Rows, Texts

__all__ = ["dataset_digest", "load", "rows_from_items", "rows_from_path"]


def load(
    data: Any,
    *,
    text: str | None = None,
    file: str | None = None,
    label: str | None = None,
    group: str | Sequence[Any] | None = None,
    split: str | Sequence[str] | None = None,
    name: str | None = None,
    labels: Sequence[Any] | None = None,
    confined: bool = False,
) -> Dataset:
    """The dataset that `data` holds; contents are read later, when asked for.

    data: a folder of class folders; a folder of train/ validation/ test/ with class folders; a CSV,
    TSV, Parquet or JSON-lines file, or a workbook (.xlsx, .xlsm, .xls, .ods), of which the first sheet
    with data is read; a folder of such tables named train, validation, test; a pandas or pyarrow table;
    or a list of texts, paths, PIL images, arrays, or recordings as (samples, rate)
    together with `labels`.
    text, file, label, group, split: names of columns, where guessing would be a guess; with a list,
    group and split are sequences, one value an item. confined: the data are a stranger's, so a table that
    names a file outside its own folder is refused.

    The split's origin is "given" where the data has a test part, else "none".
    Raises RequestError, in one line, where the data cannot be used.
    """
    if labels is not None:
        return _from_items(data, labels, group, split, name or "items")
    asked = Asked(text, file, label, _one_name("group", group), _one_name("split", split))
    table = from_frame(data)
    if table is not None:
        return dataset_of_tables(name or "table", [(None, table)], asked)
    if not isinstance(data, str | Path):
        raise RequestError(
            f"a {type(data).__name__} seen; expected a folder, a table, or a list together with labels=[...]"
        )
    path = _existing(data)
    if path.is_file():
        return dataset_of_tables(
            name or path.resolve().stem, [(None, _table(path))], asked, confined=confined
        )
    tables = part_tables(path)
    if tables:
        return dataset_of_tables(
            name or path.resolve().name,
            [(part, read_table(p)) for part, p in tables],
            asked,
            confined=confined,
        )
    unused = [f"--{role}" for role, column in vars(asked).items() if column is not None]
    if unused:
        verb = "names a column" if len(unused) == 1 else "name columns"
        beside = next((Path(e.path) for e in entries(path) if is_table(Path(e.path))), None)
        hint = "" if beside is None else f"; name the table in it: {beside}"
        raise RequestError(f"{' and '.join(unused)} {verb}, but {path} is a folder of files, no table{hint}")
    found = labelled_files(path)
    names = [readable_name(p.relative_to(path)) for p in found.files]
    rows = Rows(names, {found.kind: Files(found.kind, found.files)})
    return assemble(name or path.resolve().name, rows, found.labels, found.parts, notes=found.notes)


def rows_from_items(items: Sequence[Any], kind: Kind) -> Rows:
    """Unlabelled rows of texts, or of pictures or recordings in any form that `column_of` takes.

    Raises RequestError where an item is of another kind; a missing file shows when it is read.
    """
    if isinstance(items, str | bytes | Path):
        raise RequestError(f"one {type(items).__name__} seen; expected a list of items: put it in brackets")
    return Rows([name_of(item, i) for i, item in enumerate(items)], {kind: column_of(items, kind)})


def rows_from_path(path: str | Path, kind: Kind, *, text: str | None = None, file: str | None = None) -> Rows:
    """Unlabelled rows in a picture, a recording, a text file (one text), a folder of such, or a table.

    Folders are searched recursively. Raises RequestError where nothing of that kind is found.
    """
    path = _existing(path)
    if path.is_dir():
        return _rows_in_folder(path, kind)
    if is_table(path):
        rows = rows_of_table(read_table(path), kind, text, file)
        if rows.kind != kind:
            what = {"image": "pictures (--file)", "text": "texts (--text)", "audio": "recordings (--file)"}
            raise RequestError(f"{path} gives {what[rows.kind]}; expected {what[kind]}: name that column")
        return rows
    if kind == "text":
        return Rows([readable_name(path)], {"text": Texts([_whole_text(path)])})
    return Rows([readable_name(path)], {kind: Files(kind, [path])})


def _one_name(role: str, value: str | Sequence[Any] | None) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise RequestError(f"{role}: a {type(value).__name__} seen; expected the name of a column")


def _existing(said: str | Path) -> Path:
    if not str(said).strip():
        raise RequestError("an empty path seen; expected a folder, a file or a table (. is this folder)")
    path = Path(said).expanduser()
    try:
        if path.exists():
            return path
    except OSError as error:  # a text was given where a path belongs, and it is too long for one
        raise RequestError(f"{str(path)[:60]!r} is no path ({error.strerror}); expected a path") from error
    parent = path.parent
    beside = [entry.name for entry in entries(parent)] if parent.is_dir() else []
    close = get_close_matches(path.name, beside, n=1)
    hint = f"; did you mean {parent / close[0]}?" if close else f" (looked from {Path.cwd()})"
    raise RequestError(f"nothing is at {path}{hint}")


def _table(path: Path) -> Table:
    if not is_table(path):
        raise RequestError(
            f"{path} is a {path.suffix or 'suffixless'} file; expected a folder of class folders, or a table "
            f"({', '.join(sorted(SUFFIXES))})"
        )
    return read_table(path)


def _from_items(items: Any, labels: Sequence[Any], group: Any, split: Any, name: str) -> Dataset:
    items = list(items)
    if not items:
        raise RequestError("an empty list seen; expected at least one item")
    for what, values in (("labels", labels), ("group", group), ("split", split)):
        if values is not None and (isinstance(values, str) or len(values) != len(items)):
            seen = f"{values!r}" if isinstance(values, str) else f"{len(values)} values"
            raise RequestError(f"{what}: {seen} seen for {len(items)} items; expected one value an item")
    kind = kind_of(items)
    gap = next((i for i, item in enumerate(items) if kind == "text" and not isinstance(item, str)), None)
    if gap is not None:
        raise RequestError(
            f"item {gap + 1} is {items[gap]!r}; expected a text as the others are: leave it and its label out"
        )
    rows = rows_from_items(items, kind)
    if kind == "text":
        rows = replace(rows, names=[f"item {i + 1}" for i in range(len(items))])
    parts: list[Part] = ["train"] * len(items) if split is None else as_parts(split, "split")
    return assemble(name, rows, labels, parts, group)


def _rows_in_folder(folder: Path, kind: Kind) -> Rows:
    files = [p for p in find_files(folder, folder).files if p.suffix.lower() in FILES_OF[kind]]
    if kind == "text":  # find_files takes texts for notes about the files beside them
        files = sorted(p for p in folder.rglob("*.txt") if p.is_file() and not p.name.startswith("."))
    if not files:
        such = {"image": ".jpg, .png and the like", "text": ".txt files", "audio": ".wav, .mp3 and the like"}
        raise RequestError(
            f"{folder} holds no {CALLED[kind]}; expected {CALLED[kind]} ({such[kind]}): name another folder "
            "or a table"
        )
    column: Column = Texts([_whole_text(p) for p in files]) if kind == "text" else Files(kind, files)
    # paths that can be opened, as for a picture named alone: two folders may hold files of one name
    return Rows([readable_name(p) for p in files], {kind: column})


def _whole_text(path: Path) -> str:
    return decode_text(path)[0].strip()
