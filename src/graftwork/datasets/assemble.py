"""Raw labels, groups and parts, as any source gives them -> one Dataset."""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from graftwork.datasets.hidden import without_hidden
from graftwork.datasets.items import missing
from graftwork.errors import LabelsUnfit, RequestError
from graftwork.rows import UNLABELLED, Dataset, IntArray, Part, Rows, Split, Target


def assemble(
    name: str,
    rows: Rows,
    labels: Sequence[Any],
    parts: Sequence[Part],
    groups: Sequence[Any] | None = None,
    notes: Sequence[str] = (),
) -> Dataset:
    """Build the dataset; labels lose surrounding space, empty ones mean unlabelled.

    Raises RequestError where no row has a label, none is for training, or the labels are numbers to
    be predicted rather than classes.
    """
    assert len(rows) == len(labels) == len(parts)
    if "train" not in parts:
        raise RequestError(
            f"{name} has rows for {', '.join(sorted(set(parts)))} only; expected rows for train"
        )
    names, said = _clean_labels(labels)
    target = target_of(name, names)
    unlabelled = names.count(None)
    if unlabelled:
        said.append(f"{unlabelled} of {len(names)} rows have no label; they are kept as unlabelled")
    split, more = _split(parts, target.codes)
    said += more
    ids = None if groups is None else _group_ids(groups)
    return Dataset(name, rows, target, split, ids, (*notes, *said))


def _split(parts: Sequence[Part], codes: IntArray) -> tuple[Split, list[str]]:
    """The user's split; a test part without labels is no test part, and its rows are just unlabelled."""
    named = np.array(parts, dtype="<U10")
    test = named == "test"
    if not test.any() or (codes[test] != UNLABELLED).any():
        return Split(named, "given" if test.any() else "none"), []
    named[test] = "train"
    return Split(named, "none"), [
        f"the {np.count_nonzero(test)} rows of the test part have no labels to score"
    ]


def case_clashes(labels: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Labels that differ only by case or by space inside, together."""
    alike = defaultdict(list)
    for label in labels:
        alike["".join(label.casefold().split())].append(label)
    return tuple(tuple(sorted(names)) for names in alike.values() if len(names) > 1)


def _clean_labels(labels: Sequence[Any]) -> tuple[list[str | None], list[str]]:
    """Label names (None where there is none) and what should be said of the cleaning."""
    given = [None if missing(label) else _as_text(label) for label in labels]
    written = [None if text is None else without_hidden(text) for text in given]
    written = [text or None for text in written]
    hidden = sum(one != other for one, other in zip(given, written, strict=True))
    names = [None if text is None else unicodedata.normalize("NFC", text.strip()) for text in written]
    stripped = sum(text is not None and text != text.strip() for text in written)
    said = [f"space around {stripped} labels was removed"] if stripped else []
    if hidden:
        said.append(f"control characters or marks of direction were removed from {hidden} labels")
    for clash in case_clashes(sorted({name for name in names if name is not None})):
        said.append(
            f"labels {' and '.join(map(repr, clash))} differ only by case or space; they are kept apart: "
            "write them alike if they mean one class"
        )
    return names, said


def _as_text(label: Any) -> str:
    # a column of whole numbers with gaps reaches us as floats
    if isinstance(label, float | np.floating) and float(label).is_integer():
        return str(int(label))
    return str(label)


def target_of(name: str, names: Sequence[str | None]) -> Target:
    """Clean labels, None where there is none, as codes; raises LabelsUnfit where none can be learnt."""
    counts = Counter(label for label in names if label is not None)
    if not counts:
        raise LabelsUnfit(f"{name}: none of its {len(names)} rows has a label; expected labels to learn from")
    _refuse_numbers(name, counts)
    numeric = all(label.isascii() and label.isdigit() for label in counts)
    labels = tuple(sorted(counts, key=lambda label: (int(label), label) if numeric else (0, label)))
    code = {label: i for i, label in enumerate(labels)}
    codes = [UNLABELLED if label is None else code[label] for label in names]
    return Target(np.array(codes, dtype=np.int64), labels)


def _refuse_numbers(name: str, counts: Counter[str]) -> None:
    rows = sum(counts.values())
    if len(counts) <= 20 or len(counts) < rows / 10:
        return
    if all(_is_number(label) for label in counts):
        raise LabelsUnfit(
            f"{name}: the labels are {len(counts)} different numbers, such as {next(iter(counts))}; expected "
            "classes: predicting a number is not possible yet; group the numbers into classes first"
        )
    if len(counts) > 0.5 * rows:
        raise LabelsUnfit(
            f"{name}: {rows} labelled rows have {len(counts)} different labels, such as "
            f"{next(iter(counts))[:40]!r}; expected classes of several rows: is --label the right column?"
        )


def _is_number(label: str) -> bool:
    try:
        float(label)
    except ValueError:
        return False
    return True


def _group_ids(groups: Sequence[Any]) -> IntArray:
    """An id a row; rows without a group are each their own."""
    ids: dict[Any, int] = {}
    keys = [("row", i) if missing(value) else ("group", str(value)) for i, value in enumerate(groups)]
    return np.array([ids.setdefault(key, len(ids)) for key in keys], dtype=np.int64)
