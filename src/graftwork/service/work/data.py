"""A dataset of the service as rows: what was uploaded, and what people have corrected since."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from graftwork import datasets
from graftwork.datasets.assemble import assemble, target_of
from graftwork.datasets.encoding import decode_text
from graftwork.datasets.hidden import without_hidden
from graftwork.datasets.kinds import kind_of_files, kind_of_value
from graftwork.errors import RequestError, Unreadable
from graftwork.rows import UNLABELLED, Column, Contents, Dataset, Files, Kind, Rows, Split, Texts
from graftwork.service.database import tables
from graftwork.service.intake.arrange import CONTENTS, Arranged, arranged, to_load
from graftwork.service.intake.names import CLASSES, LABEL, LETTERS
from graftwork.service.problems import bad_request, not_found
from graftwork.service.settings import Settings

COLUMNS = ("text", "file", "label", "group", "split")
_TEXTS = frozenset({".txt", ".md", ".text"})
_TEXT_BYTES = 4_000_000


@dataclass(frozen=True)
class Corrected:
    """A row that a person has labelled; either text or the path of a file is given."""

    name: str
    label: str
    text: str | None
    path: Path | None


def row(session: Session, dataset_id: str | None) -> tables.Dataset:
    """The dataset's record; raises a Problem where it has gone."""
    found = session.get(tables.Dataset, dataset_id)
    if found is None:
        raise not_found("dataset", str(dataset_id))
    return found


def asked(dataset: tables.Dataset) -> dict[str, str]:
    """The columns that were named when it was made."""
    return {name: dataset.options[name] for name in COLUMNS if dataset.options.get(name)}


def corrected(session: Session, dataset: tables.Dataset, settings: Settings, until: float) -> list[Corrected]:
    """Corrections made up to a moment, oldest first: what a job began with is what it goes on with."""
    wanted = select(tables.Correction).where(
        tables.Correction.dataset_id == dataset.id, tables.Correction.created <= until
    )
    folder = settings.dataset(dataset.id) / "corrections"
    return [
        Corrected(f"correction {number}", one.label, one.text, folder / one.sha256 if one.sha256 else None)
        for number, one in enumerate(
            session.scalars(wanted.order_by(tables.Correction.created, tables.Correction.id)), start=1
        )
    ]


def load(dataset: tables.Dataset, settings: Settings) -> Dataset:
    """The rows that were uploaded, by their owner's names; raises RequestError or a Problem."""
    folder = settings.dataset(dataset.id)
    done = arranged(folder)
    if done is None:
        raise bad_request(f"the files of {dataset.name} were not unpacked; make the dataset again")
    found = (
        _singles(dataset.name, folder / CONTENTS, done) if done.singles else _loaded(dataset, folder, done)
    )
    _refuse_many(found)
    return replace(found, notes=(*done.notes, *found.notes))


def joined(data: Dataset, corrections: Sequence[Corrected]) -> Dataset:
    """The dataset with corrections as training rows.

    A correction of what is already a training row gives that row its label, the latest one's; one of a
    validation or test row changes nothing, as those rows stay what they were given as. Both are said.
    """
    latest: dict[bytes, tuple[Corrected, Column]] = {}
    for one in corrections:
        column = _column(data.kind, one)
        latest[column.digest(0)] = (one, column)
    if not latest:
        return data
    labels = [None if code == UNLABELLED else data.labels[code] for code in data.target.codes]
    at = _positions(data, set(latest))
    added, held, relabelled = [], 0, 0
    for digest, (one, column) in latest.items():
        same = at.get(digest, [])
        if any(data.split.parts[i] != "train" for i in same):
            held += 1
        elif same:
            relabelled += 1
            for i in same:
                labels[i] = _label(one.label)
        else:
            added.append((one, column))
    labels += [_label(one.label) for one, _ in added]
    rows = Rows(
        [*data.rows.names, *(one.name for one, _ in added)],
        {data.kind: _extended(data.rows.column, [column for _, column in added])},
    )
    groups = data.groups
    if groups is not None:
        groups = np.concatenate([groups, groups.max(initial=-1) + 1 + np.arange(len(added))])
    parts = np.concatenate([data.split.parts, np.full(len(added), "train", data.split.parts.dtype)])
    return Dataset(
        data.name,
        rows,
        target_of(data.name, labels),
        Split(parts, data.split.origin),
        groups,
        (*data.notes, *_notes(len(added), relabelled, held)),
    )


def _notes(added: int, relabelled: int, held: int) -> list[str]:
    said = []
    if added or relabelled:
        said.append(f"corrections: {added} rows were added, {relabelled} training rows were relabelled")
    if held:
        said.append(f"corrections of {held} validation or test rows were left out: those rows judge")
    return said


def _loaded(dataset: tables.Dataset, folder: Path, done: Arranged) -> Dataset:
    columns = asked(dataset)
    at, read = to_load(folder, done.at, bool(columns))
    # columns name nothing where class folders do; `load` would say so of options of the command line
    return datasets.load(at, name=dataset.name, confined=True, **(columns if read else {}))


def _singles(name: str, contents: Path, done: Arranged) -> Dataset:
    files = [contents / one.file for one in done.singles]
    names = [one.name for one in done.singles]
    labels = [one.label for one in done.singles]
    if all(Path(one).suffix.lower() in _TEXTS for one in names):
        column: Column = Texts([_text(path, said) for path, said in zip(files, names, strict=True)])
    else:
        with files[0].open("rb") as file:
            seen = kind_of_value(file.read(512)) or "image"
        kind = kind_of_files(names, "the selection", seen)
        column = Files(kind, files)
    return assemble(name, Rows(names, {column.kind: column}), labels, ["train"] * len(names))


def _text(path: Path, name: str) -> str:
    if path.stat().st_size > _TEXT_BYTES:
        raise bad_request(f"{name} has more than {_TEXT_BYTES / 1e6:.0f} MB; expected one text a file")
    try:
        return decode_text(path)[0].strip()
    except RequestError as error:
        raise RequestError(str(error).replace(str(path), name)) from error


def _refuse_many(data: Dataset) -> None:
    if len(data.labels) > CLASSES:
        raise RequestError(
            f"{data.name} has {len(data.labels):,} classes; expected {CLASSES:,} at most: is the label "
            "column the right one?"
        )
    longest = max(data.labels, key=len)
    if len(longest) > LABEL:
        raise RequestError(
            f"{data.name} has a label of {len(longest):,} characters, {longest[:40]!r}...; expected "
            f"{LABEL:,} at most: is the label column the right one?"
        )
    letters = sum(map(len, data.labels))
    if letters > LETTERS:
        raise RequestError(
            f"{data.name} has labels of {letters:,} characters together; expected {LETTERS:,} at most: is "
            "the label column the right one?"
        )


def _positions(data: Dataset, wanted: set[bytes]) -> dict[bytes, list[int]]:
    """Where contents lie among the rows; what cannot be read is nowhere."""
    found: dict[bytes, list[int]] = {}
    for i in range(len(data)):
        try:
            digest = data.rows.column.digest(i)
        except Unreadable:
            continue  # the inspection that follows says so
        if digest in wanted:
            found.setdefault(digest, []).append(i)
    return found


def _column(kind: Kind, one: Corrected) -> Column:
    """The one row of a correction; raises RequestError where it is of another kind than the dataset."""
    if kind == "text" and one.text is not None:
        return Texts([one.text])
    if kind != "text" and one.path is not None:
        return Files(kind, [one.path])
    raise RequestError(
        f"{one.name} is {'a text' if one.text is not None else 'a file'}; the dataset is of {kind}"
    )


def _extended(column: Column, more: Sequence[Column]) -> Column:
    match column:
        case Texts():
            return Texts([*column.values, *(one.text(0) for one in more if isinstance(one, Texts))])
        case Files():
            return Files(
                column.kind, [*column.paths, *(one.paths[0] for one in more if isinstance(one, Files))]
            )
        case Contents():
            return Contents(column.kind, [*column.contents, *(one.read(0) for one in more)])
    raise AssertionError(type(column).__name__)


def _label(said: str) -> str | None:
    return unicodedata.normalize("NFC", without_hidden(said).strip()) or None
