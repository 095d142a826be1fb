"""The files of a dataset, laid out in its folder as a folder or table that `graft inspect` would read.

contents/NAME/...     an archive, unpacked
contents/NAME.csv     tables, and files that they name, under the names their owner gave them
contents/000001       single files with labels: a label is never part of a path
arranged.json         what was done, and the names and labels of single files; written last
"""

import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from graftwork import paths
from graftwork.datasets.folders import part_named, subfolders
from graftwork.datasets.from_tables import part_tables
from graftwork.datasets.tables import is_table
from graftwork.datasets.workbooks import SUFFIXES as WORKBOOKS
from graftwork.service.intake import archives, tables
from graftwork.service.intake.kinds import EXPECTED
from graftwork.service.intake.names import file_name, shown
from graftwork.service.problems import bad_request, too_many
from graftwork.service.settings import Limits

CONTENTS, DONE = "contents", "arranged.json"


@dataclass(frozen=True)
class Sent:
    """One uploaded file. path: where its bytes lie. name: its owner's. label: None where none was given."""

    path: Path
    name: str
    label: str | None = None


@dataclass(frozen=True)
class Single:
    """A file that is one row. file: under contents/."""

    file: str
    name: str
    label: str | None


@dataclass(frozen=True)
class Arranged:
    """at: what to load, under contents/ ("" for all of it). singles: where the files themselves are the rows.

    bytes: that the dataset holds. They count even where they are shared with the owner's uploads, which may
    be deleted before it.
    """

    at: str
    bytes: int
    singles: tuple[Single, ...] = ()
    notes: tuple[str, ...] = ()


def arrange(
    sent: Sequence[Sent],
    folder: Path,
    limits: Limits,
    *,
    asked: bool = False,
    room: int | None = None,
    rows: int | None = None,
) -> Arranged:
    """Lay out what was sent in `folder`, whole or not at all; what was done before is not done again.

    asked: columns of a table were named. room: bytes that the owner may still fill. rows: that a dataset
    may have. Raises a Problem in one line where a file is dangerous, damaged or too large, WorkError where
    the disk is full.
    """
    known = arranged(folder)
    if known is not None:
        return known
    if not sent:
        raise bad_request(f"no file in this dataset; {EXPECTED}")
    contents = folder / CONTENTS
    clear(folder)
    folder.mkdir(parents=True, exist_ok=True)
    first = sent[0]
    with first.path.open("rb") as file:
        # workbooks are zips too: the name tells them from an archive
        packed = archives.is_archive(file.read(4)) and Path(first.name).suffix.lower() not in WORKBOOKS
    if len(sent) == 1 and packed:
        done = _unpacked(first, contents, limits, room)
    elif any(one.label is not None for one in sent):
        done = _singles(sent, contents, rows, room)
    else:
        done = _named(sent, contents, room)
    _, read = to_load(folder, done.at, asked) if not done.singles else (contents, [])
    for table in read:
        tables.check(table, table.name, limits, rows)
    paths.replace_file(folder / DONE, json.dumps(asdict(done), ensure_ascii=True).encode())
    return done


def arranged(folder: Path) -> Arranged | None:
    """What `arrange` did in `folder`; None where it has not been there, or did not end."""
    try:
        said = json.loads((folder / DONE).read_bytes())
    except FileNotFoundError:
        return None
    singles = tuple(Single(**one) for one in said["singles"])
    return Arranged(said["at"], said["bytes"], singles, tuple(said["notes"]))


def clear(folder: Path) -> None:
    """Remove what `arrange` did, or was killed at, in `folder`; corrections stay."""
    (folder / DONE).unlink(missing_ok=True)
    for name in (CONTENTS, f".{CONTENTS}"):
        shutil.rmtree(folder / name, ignore_errors=True)


def _unpacked(one: Sent, contents: Path, limits: Limits, room: int | None) -> Arranged:
    name = file_name(Path(one.name).stem, "archive")
    work = contents.with_name(f".{contents.name}")
    work.mkdir()
    done = archives.unpack(one.path, work / name, limits, room)
    if (work / name / "xl" / "workbook.xml").is_file():
        raise bad_request(f"{shown(one.name)} is a workbook under another name; call it .xlsx")
    work.rename(contents)
    notes = (f"{done.silent} files that systems leave in archives were left out",) if done.silent else ()
    return Arranged(name, done.bytes, notes=notes)


def _singles(sent: Sequence[Sent], contents: Path, rows: int | None, room: int | None) -> Arranged:
    if rows is not None and len(sent) > rows:
        raise too_many("quota-exceeded", f"{len(sent):,} files; a dataset may have {rows:,} rows", 3600)
    singles = tuple(Single(f"{number:06}", one.name, one.label) for number, one in enumerate(sent, start=1))
    return Arranged("", _placed(sent, [contents / one.file for one in singles], room), singles)


def _named(sent: Sequence[Sent], contents: Path, room: int | None) -> Arranged:
    """Tables, and what they name, as they would lie in one folder."""
    taken: set[str] = set()
    names: list[str] = []
    for number, one in enumerate(sent, start=1):
        name = file_name(one.name, f"file {number}")
        if name.casefold() in taken:
            raise bad_request(f"two files are called {shown(name)}; give each a name, or a label, of its own")
        taken.add(name.casefold())
        names.append(name)
    if not any(is_table(Path(name)) for name in taken):
        such = shown(sent[0].name)
        raise bad_request(
            f"{such} has no label and is no table or archive; give each file a label; {EXPECTED}"
        )
    held = _placed(sent, [contents / name for name in names], room)
    return Arranged(names[0] if len(sent) == 1 else "", held)


def _placed(sent: Iterable[Sent], places: Iterable[Path], room: int | None) -> int:
    """Give each file its place, without a copy where the disk can do so; the bytes that they take."""
    known: set[Path] = set()
    held = 0
    for one, place in zip(sent, places, strict=True):
        place.parent.mkdir(exist_ok=True)
        is_linked = _linked(one.path, place)
        if not is_linked or one.path not in known:
            held += one.path.stat().st_size
        if room is not None and held > room:
            raise too_many(
                "quota-exceeded",
                f"the files have {held:,} bytes or more and {max(room, 0):,} of your quota are free; delete "
                "datasets or files first",
                3600,
            )
        if not is_linked:
            shutil.copyfile(one.path, place)
        known.add(one.path)
    return held


def _linked(source: Path, place: Path) -> bool:
    try:
        os.link(source, place)
    except OSError:  # another file system, one without links, or too many
        return False
    return True


def to_load(folder: Path, at: str, asked: bool) -> tuple[Path, list[Path]]:
    """(folder or table that `datasets.load` takes, the tables that it will read) of what lies at `at`.

    A single folder at the top is looked through. One table beside folders of files is what describes them,
    unless there are several folders, which are classes then. asked: columns were named, so a table is meant.
    """
    root = folder / CONTENTS / at
    if root.is_file():
        return root, [root]
    while True:
        inside = [path for path in root.iterdir() if not path.name.startswith(".")]
        only = inside[0] if len(inside) == 1 else None
        if only is None or not only.is_dir() or part_named(only.name) is not None or not _holds_more(only):
            break
        root = only
    parts = [path for _, path in part_tables(root)]
    if parts:
        return root, parts
    found = [path for path in inside if path.is_file() and is_table(path)]
    if len(found) == 1 and (asked or len(subfolders(root)) < 2):
        return found[0], found
    return root, []


def _holds_more(folder: Path) -> bool:
    """Whether a folder holds folders or tables, and so is no class itself."""
    return any(path.is_dir() or is_table(path) for path in folder.iterdir())
