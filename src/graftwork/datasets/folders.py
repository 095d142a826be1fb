"""Folders of pictures: which files there are, and what their folders say of them."""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from graftwork.errors import RequestError
from graftwork.rows import Part

PICTURES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .gif .bmp .dib .tif .tiff .avif .jp2 .ico .ppm .pgm .pbm".split()
)
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
_SIDE = frozenset(".txt .json .jsonl .csv .tsv .xml .md .yaml .yml .html .log .license".split())


@dataclass
class Found:
    """Files below one folder that could be pictures, and what was left out on the way."""

    files: list[Path] = field(default_factory=list)
    side_files: Counter[str] = field(default_factory=Counter)
    links_out: int = 0

    def notes(self, name: str) -> list[str]:
        notes = []
        if self.side_files:
            what = ", ".join(f"{count} {suffix}" for suffix, count in sorted(self.side_files.items()))
            notes.append(f"files beside the pictures in {name} were left out: {what}")
        if self.links_out:
            notes.append(f"{self.links_out} links that lead out of {name} were not followed")
        return notes


def part_named(name: str) -> Part | None:
    """The part that a folder, a file's stem or a cell of a split column names, if any."""
    return PART_NAMES.get(name.strip().casefold())


def readable_name(path: Path) -> str:
    """The path as text that can be printed, whatever bytes the file system holds."""
    return os.fsencode(path.as_posix()).decode("utf-8", "replace")


def subfolders(folder: Path) -> list[Path]:
    """Folders directly inside, sorted, without hidden ones and without links."""
    inside = [Path(e.path) for e in os.scandir(folder) if e.is_dir(follow_symlinks=False)]
    return sorted(path for path in inside if not path.name.startswith((".", "__MACOSX")))


def find_pictures(folder: Path, root: Path, found: Found | None = None, deep: bool = True) -> Found:
    """Every file below `folder` that could be a picture, sorted; links out of `root` are not followed.

    Files of no known suffix count: whether they are pictures shows when they are decoded.
    """
    found = Found() if found is None else found
    for entry in sorted(os.scandir(folder), key=lambda e: e.name):
        path = Path(entry.path)
        if entry.name.startswith((".", "__MACOSX")) or entry.name.casefold() in _SILENT:
            continue
        if entry.is_symlink() and not path.resolve().is_relative_to(root.resolve()):
            found.links_out += 1
        elif entry.is_dir(follow_symlinks=False):
            if deep:
                find_pictures(path, root, found)
        elif path.suffix.lower() in _SIDE:
            found.side_files[path.suffix.lower()] += 1
        elif entry.is_file():
            found.files.append(path)
    return found


@dataclass(frozen=True)
class Labelled:
    """Pictures with the label and the part that their folders give them."""

    files: list[Path]
    labels: list[str]
    parts: list[Part]
    notes: tuple[str, ...]


def labelled_pictures(root: Path) -> Labelled:
    """Read a folder of class folders, or of train/, validation/, test/ each with class folders.

    Raises RequestError where the folder has another shape.
    """
    files: list[Path] = []
    labels: list[str] = []
    parts: list[Part] = []
    found = Found()
    empty = []
    part_folders, notes = _part_folders(root)
    for part, top in part_folders:
        for folder in subfolders(top):
            members = find_pictures(folder, root, Found(side_files=found.side_files))
            found.links_out += members.links_out
            if not members.files:
                empty.append(readable_name(folder.relative_to(root)))
            files += members.files
            labels += [unicodedata.normalize("NFC", readable_name(Path(folder.name)))] * len(members.files)
            parts += [part] * len(members.files)
    if not files:
        raise _no_pictures(root, found)
    if empty:
        notes.append(f"no pictures in {', '.join(empty)}")
    return Labelled(files, labels, parts, (*notes, *found.notes(root.name)))


def _part_folders(root: Path) -> tuple[list[tuple[Part, Path]], list[str]]:
    """(part, folder of class folders) pairs; without part folders, the root holds the training rows."""
    inside = subfolders(root)
    parts = [(part, folder) for part, folder in _named_parts(inside) if subfolders(folder)]
    if not any(part == "train" for part, _ in parts):
        _refuse_nested(root, inside)
        return [("train", root)], []
    rest = [folder.name for folder in inside if all(folder != top for _, top in parts)]
    return parts, [f"folders beside train were left out: {', '.join(rest)}"] if rest else []


def _named_parts(folders: list[Path]) -> Iterator[tuple[Part, Path]]:
    for folder in folders:
        part = part_named(folder.name)
        if part is not None:
            yield part, folder


def _refuse_nested(root: Path, inside: list[Path]) -> None:
    """Refuse a folder of data sets: its folders are no classes."""
    deeper = [f for f in inside if any(part == "train" for part, _ in _named_parts(subfolders(f)))]
    if deeper and len(deeper) == len(inside):
        names = ", ".join(folder.name for folder in deeper)
        raise RequestError(
            f"{root} holds {names}, each with its own train folder; expected one data set: "
            f"point at one of them, such as {deeper[0]}"
        )


def _no_pictures(root: Path, found: Found) -> RequestError:
    loose = find_pictures(root, root, deep=False).files
    if loose:
        return RequestError(
            f"{root} holds {len(loose)} files and no class folders with pictures; "
            "expected one folder a class, each with its pictures, or a table"
        )
    if found.side_files:
        what = ", ".join(f"{count} {suffix}" for suffix, count in sorted(found.side_files.items()))
        return RequestError(
            f"{root} holds no pictures (but {what} files); expected one folder a class, each with its "
            "pictures; texts go into a table (CSV, TSV, Parquet, JSON lines) with a text and a label column"
        )
    return RequestError(
        f"{root} is empty; expected one folder a class, each with its pictures, or tables such as train.csv"
    )
