"""Folders of pictures or recordings: which files there are, and what their folders say of them."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from graftwork.datasets.kinds import CALLED, kind_of_files
from graftwork.errors import RequestError
from graftwork.rows import Kind, Part

PART_NAMES: dict[str, Part] = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
"""What users call the parts, in lower case."""

_SILENT = frozenset({"thumbs.db", "desktop.ini", "icon\r"})
_SIDE = frozenset(
    ".txt .json .jsonl .csv .tsv .xlsx .xlsm .xls .ods .xml .md .yaml .yml .html .log .license".split()
)


@dataclass
class Found:
    """Files below one folder that could be rows, and what was left out on the way."""

    files: list[Path] = field(default_factory=list)
    side_files: Counter[str] = field(default_factory=Counter)
    links_out: int = 0

    def notes(self, name: str, kind: Kind) -> list[str]:
        notes = []
        if self.side_files:
            notes.append(f"files beside the {CALLED[kind]} in {name} were left out: {self.said_beside()}")
        if self.links_out:
            notes.append(f"links that lead out of {name} were not followed: {self.links_out}")
        return notes

    def said_beside(self) -> str:
        return ", ".join(f"{count} {suffix}" for suffix, count in sorted(self.side_files.items()))


def part_named(name: str) -> Part | None:
    """The part that a folder, a file's stem or a cell of a split column names, if any."""
    return PART_NAMES.get(name.strip().casefold())


def readable_name(path: Path) -> str:
    """The path as text that can be printed, whatever bytes the file system holds."""
    return os.fsencode(path.as_posix()).decode("utf-8", "replace")


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """What lies directly inside, sorted by name; raises RequestError where the folder cannot be read."""
    try:
        return sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise RequestError(
            f"{readable_name(folder)} cannot be opened ({error.strerror or error}); "
            "expected a folder that you may read"
        ) from error


def subfolders(folder: Path) -> list[Path]:
    """Folders directly inside, sorted, without hidden ones and without links."""
    inside = [Path(entry.path) for entry in entries(folder) if entry.is_dir(follow_symlinks=False)]
    return [path for path in inside if not path.name.startswith((".", "__MACOSX"))]


def find_files(folder: Path, root: Path, found: Found | None = None, deep: bool = True) -> Found:
    """Every file below `folder` that could be a row, sorted; links out of `root` are not followed.

    Files of no known suffix count: what they hold shows when they are decoded.
    """
    found = Found() if found is None else found
    for entry in entries(folder):
        path = Path(entry.path)
        if entry.name.startswith((".", "__MACOSX")) or entry.name.casefold() in _SILENT:
            continue
        if entry.is_symlink() and not path.resolve().is_relative_to(root.resolve()):
            found.links_out += 1
        elif entry.is_dir(follow_symlinks=False):
            if deep:
                find_files(path, root, found)
        elif path.suffix.lower() in _SIDE:
            found.side_files[path.suffix.lower()] += 1
        elif entry.is_file():
            found.files.append(path)
    return found


@dataclass(frozen=True)
class Labelled:
    """Pictures or recordings with the label and the part that their folders give them."""

    kind: Kind
    files: list[Path]
    labels: list[str | None]
    parts: list[Part]
    notes: tuple[str, ...]


def labelled_files(root: Path) -> Labelled:
    """Read a folder of class folders, or of train/, validation/, test/ each with class folders.

    Files beside the class folders have no label. Raises RequestError where the folder has another shape,
    or holds both pictures and recordings.
    """
    found = Found()
    labels: list[str | None] = []
    parts: list[Part] = []
    empty = []
    part_folders, notes = _part_folders(root)
    for part, top in part_folders:
        for folder in [*subfolders(top), top]:
            before = len(found.files)
            find_files(folder, root, found, deep=folder != top)
            count = len(found.files) - before
            if not count and folder != top:
                empty.append(readable_name(folder.relative_to(root)))
            labels += [None if folder == top else readable_name(Path(folder.name))] * count
            parts += [part] * count
    if not any(label is not None for label in labels):
        raise _no_classes(root, found)
    kind = kind_of_files(found.files, str(root))
    if empty:
        notes.append(f"no {CALLED[kind]} in {', '.join(empty)}")
    return Labelled(kind, found.files, labels, parts, (*notes, *found.notes(root.resolve().name, kind)))


def _part_folders(root: Path) -> tuple[list[tuple[Part, Path]], list[str]]:
    """(part, folder of class folders) pairs; without part folders, the root holds the training rows."""
    inside = subfolders(root)
    parts = list(_named_parts(inside))
    # "train" may also be a kind of vehicle: as a part it holds class folders
    if not any(part == "train" and subfolders(folder) for part, folder in parts):
        _refuse_nested(root, inside)
        if parts and len(parts) == len(inside):
            raise RequestError(
                f"{root} holds {_names(inside)} and no train folder with class folders; expected one folder "
                "a class in each part, or a table that names the files (--file) and their labels"
            )
        return [("train", root)], []
    rest = [folder for folder in inside if part_named(folder.name) is None]
    return parts, [f"folders beside train were left out: {_names(rest)}"] if rest else []


def _named_parts(folders: list[Path]) -> Iterator[tuple[Part, Path]]:
    for folder in folders:
        part = part_named(folder.name)
        if part is not None:
            yield part, folder


def _refuse_nested(root: Path, inside: list[Path]) -> None:
    """Refuse a folder of data sets: its folders are no classes."""
    deeper = [f for f in inside if any(part == "train" for part, _ in _named_parts(subfolders(f)))]
    if deeper and len(deeper) == len(inside):
        raise RequestError(
            f"{root} holds {_names(deeper)}, each with its own train folder; expected one data set: "
            f"point at one of them, such as {deeper[0]}"
        )


def _names(folders: list[Path]) -> str:
    return ", ".join(readable_name(Path(folder.name)) for folder in folders)


def _no_classes(root: Path, found: Found) -> RequestError:
    if found.links_out:
        return RequestError(
            f"{root} holds only links that lead out of it ({found.links_out}); expected the pictures "
            "or recordings themselves: copy them, or point at the folder that holds them"
        )
    if found.files:
        return RequestError(
            f"{root} holds {len(found.files)} files and no class folders with pictures or recordings; "
            "expected one folder a class, each with its files, or a table"
        )
    if found.side_files:
        return RequestError(
            f"{root} holds no pictures or recordings (but {found.said_beside()} files); expected one folder "
            "a class, each with its files; texts go into a table (CSV, TSV, XLSX, Parquet, JSON lines) with "
            "a text and a label column"
        )
    return RequestError(
        f"{root} is empty; expected one folder a class, each with its pictures or recordings, or tables "
        "such as train.csv"
    )
