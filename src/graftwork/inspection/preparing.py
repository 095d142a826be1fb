"""The dataset as it will be learnt from: readable rows, groups, a final split."""

from dataclasses import replace

import numpy as np

from graftwork.datasets.duplicates import alike, components
from graftwork.datasets.split import draw_test
from graftwork.errors import OneClass, RowsUnreadable
from graftwork.inspection.record import Inspection
from graftwork.inspection.saying import SHOWN, some
from graftwork.rows import PLURAL, UNLABELLED, Dataset, Split

UNREADABLE_SHARE = 0.05
"""Unreadable rows are skipped up to this share; beyond it the data, not a row, is at fault."""
TEST_SHARE = 0.2
ROWS_FOR_TEST = 1000
"""With fewer labelled rows no test part is made: repeated folds use them better."""


def prepare(dataset: Dataset, found: Inspection, *, seed: int = 0, test: float | None = None) -> Dataset:
    """The dataset to learn from: readable rows, groups that hold duplicates together, a final split.

    A user's test part stays as it is. Else, with at least 1000 labelled training rows, a stratified
    test part of a fifth is drawn, no group parted (origin "made"); with fewer, none. test: the share
    to draw in any case (0: none). Raises RowsUnreadable where more than 5% of the rows are, OneClass
    where fewer than two classes have training rows.
    """
    ready = readable(dataset, found)
    ready = replace(ready, notes=(*ready.notes, *found.warnings))
    ready = _only_learnable(ready)
    if ready.split.origin == "none":
        ready = _with_test(ready, seed, test)
    return ready


def readable(dataset: Dataset, found: Inspection) -> Dataset:
    """The rows that can be read, in groups that join the user's own and the near-duplicates found.

    Raises RowsUnreadable where more than 5% of them are.
    """
    _refuse_unreadable(found)
    ready = dataset.take(np.setdiff1d(np.arange(len(dataset)), found.unreadable_rows))
    groups = np.delete(found.groups, found.unreadable_rows)
    if ready.groups is not None:
        groups = components(len(ready), alike(groups.tolist()), alike(ready.groups.tolist()))
    return replace(ready, groups=groups)


def _refuse_unreadable(found: Inspection) -> None:
    bad = found.unreadable
    listed = "; ".join(f"{name} {reason}" for name, reason in list(bad.items())[:SHOWN])
    more = f"; and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
    if len(found.unreadable_rows) == found.rows:
        raise RowsUnreadable(
            f"{found.name} has no readable row ({listed}{more}); expected {PLURAL[found.kind]}"
        )
    if len(found.unreadable_rows) > UNREADABLE_SHARE * found.rows:
        raise RowsUnreadable(
            f"{len(found.unreadable_rows)} of {found.rows} rows cannot be read, more than "
            f"{UNREADABLE_SHARE:.0%} ({listed}{more}); mend or remove them, then run again"
        )


def _only_learnable(dataset: Dataset) -> Dataset:
    """Keep the labels that training rows have; rows of other labels become unlabelled, which is said."""
    codes = dataset.target.codes
    learnt = codes[dataset.split.index("train", "validation")]
    present = np.unique(learnt[learnt != UNLABELLED])
    if len(present) < 2:
        only = f"one class ({dataset.labels[present[0]]!r})" if len(present) else "no class"
        raise OneClass(
            f"{dataset.name} has {only} with training rows; expected two at least: add rows of another"
        )
    if len(present) == len(dataset.labels):
        return dataset
    recode = np.full(len(dataset.labels) + 1, UNLABELLED)
    recode[present] = np.arange(len(present))
    lost = [label for code, label in enumerate(dataset.labels) if code not in present]
    rows = int(np.count_nonzero((codes != UNLABELLED) & (recode[codes] == UNLABELLED)))
    note = f"{some(lost)}: no training row; {rows} test rows of these classes are left out of the scores"
    target = replace(
        dataset.target, codes=recode[codes], labels=tuple(dataset.labels[code] for code in present)
    )
    return replace(dataset, target=target, notes=(*dataset.notes, note))


def _with_test(dataset: Dataset, seed: int, share: float | None) -> Dataset:
    train = dataset.split.index("train")
    labelled = np.count_nonzero(dataset.target.codes[train] != UNLABELLED)
    if share is None:
        share = TEST_SHARE if labelled >= ROWS_FOR_TEST else 0.0
    assert dataset.groups is not None
    # validation rows were set apart by the user; they and their groups stay out of the draw
    fixed = np.isin(dataset.groups, dataset.groups[dataset.split.index("validation")])
    pool = train[~fixed[train]]
    drawn = pool[draw_test(dataset.target.codes[pool], dataset.groups[pool], share, seed)]
    if not len(drawn):
        return dataset
    parts = dataset.split.parts.astype("<U10")
    parts[drawn] = "test"
    return replace(dataset, split=Split(parts, "made"))
