"""Reading every row once: what is unreadable, repeated, contradictory, absent."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from graftwork.backbones.base import Backbone
from graftwork.datasets.assemble import case_clashes
from graftwork.datasets.duplicates import Pairs, alike, components, near_pictures, near_texts
from graftwork.errors import Unreadable
from graftwork.inspection.listening import firsts_of, listen
from graftwork.inspection.record import Inspection, Leak, Repeats
from graftwork.inspection.saying import SHOWN, warnings_of
from graftwork.records import Notify, Progress, silent
from graftwork.rows import PARTS, UNLABELLED, Dataset, IntArray, Part, Texts

_ELONGATED = 1.5
_CHUNK = 2048


def _itself(backbone: Backbone) -> Backbone:
    return backbone


def inspect(
    dataset: Dataset, remember: Callable[[Backbone], Backbone] = _itself, notify: Notify = silent
) -> Inspection:
    """Read every row once and say what was found.

    remember: what makes a backbone keep its features (store.remember), so that looking again costs
    nothing.
    """
    digests, reasons = _digests(dataset, notify)
    elongated, recordings = None, None
    if dataset.kind == "image":
        near_pairs, elongated = _look_at_pictures(dataset, digests, reasons, remember, notify)
    elif dataset.kind == "audio":
        near_pairs, recordings = listen(dataset, digests, reasons, remember, notify)
    else:
        near_pairs = _look_at_texts(dataset, digests)
    same = alike(digests)
    groups, oversized = _believable(len(dataset), same, near_pairs)
    equal = components(len(dataset), same)
    exact = _repeats(dataset, equal)
    found = Inspection(
        name=dataset.name,
        kind=dataset.kind,
        rows=len(dataset),
        split_origin=dataset.split.origin,
        counts=_counts(dataset),
        unlabelled=int(np.count_nonzero(dataset.target.codes == UNLABELLED)),
        unreadable={dataset.rows.names[i]: reason for i, reason in sorted(reasons.items())},
        imbalance=_imbalance(dataset),
        exact=exact,
        near=_less(_repeats(dataset, groups), exact),
        oversized=oversized,
        conflicts=_conflicts(dataset, groups),
        absent=_absent(dataset),
        elongated=elongated,
        recordings=recordings,
        clashes=case_clashes(dataset.labels),
        notes=dataset.notes,
        warnings=(),
        unreadable_rows=tuple(sorted(reasons)),
        groups=groups,
    )
    return replace(found, warnings=(*warnings_of(found), *_group_leaks(dataset, list(reasons))))


# Reading


def _digests(dataset: Dataset, notify: Notify) -> tuple[list[bytes | None], dict[int, str]]:
    """Every row's digest, None where it cannot be read; the reasons by position."""
    digests: list[bytes | None] = []
    reasons: dict[int, str] = {}
    for i in range(len(dataset)):
        try:
            digests.append(dataset.rows.column.digest(i))
        except Unreadable as error:
            digests.append(None)
            reasons[i] = str(error)
        if (i + 1) % _CHUNK == 0 or i + 1 == len(dataset):
            notify(Progress("reading rows", i + 1, len(dataset)))
    return digests, reasons


def _look_at_pictures(
    dataset: Dataset,
    digests: list[bytes | None],
    reasons: dict[int, str],
    remember: Callable[[Backbone], Backbone],
    notify: Notify,
) -> tuple[Pairs, float]:
    """(near pairs, share of elongated pictures); adds to `reasons` what cannot be decoded."""
    from graftwork.backbones.thumbnail import COLOUR, GREY, SIDE, Thumbnail

    backbone = remember(Thumbnail())
    index = np.flatnonzero([digest is not None for digest in digests])
    # a byte a value and a chunk at a time: 100,000 pictures take 107 MB, not half a gigabyte
    greys = np.zeros((len(index), SIDE, SIDE), dtype=np.uint8)
    colours = np.zeros((len(index), COLOUR), dtype=np.uint8)
    sizes = np.full((len(index), 2), np.nan)
    for start in range(0, len(index), _CHUNK):
        chunk = index[start : start + _CHUNK]
        seen = backbone.features(dataset.rows.take(chunk))
        reasons.update({int(chunk[i]): reason for i, reason in seen.unreadable.items()})
        here = slice(start, start + len(chunk))
        values = (np.nan_to_num(seen.matrix[:, : GREY + COLOUR]) * 255).round()
        greys[here] = values[:, :GREY].reshape(-1, SIDE, SIDE)
        colours[here] = values[:, GREY:]
        sizes[here] = seen.matrix[:, GREY + COLOUR :]
        notify(Progress("looking at pictures", start + len(chunk), len(index)))
    firsts = np.intersect1d(firsts_of(digests), np.setdiff1d(index, list(reasons)))
    small = sizes.min(1, initial=np.inf) < 2 * SIDE
    if len(firsts) < len(index):
        at = np.searchsorted(index, firsts)
        greys, colours, small = greys[at], colours[at], small[at]
    pairs = near_pictures(greys, colours, small)
    readable = sizes[~np.isnan(sizes[:, 0])]
    longer = readable.max(1, initial=0) > _ELONGATED * readable.min(1, initial=np.inf)
    return firsts[pairs], float(longer.mean()) if len(readable) else 0.0


def _look_at_texts(dataset: Dataset, digests: Sequence[bytes | None]) -> Pairs:
    column = dataset.rows.column
    assert isinstance(column, Texts)
    firsts = firsts_of(digests)
    return firsts[near_texts([column.text(int(i)) for i in firsts])]


# Judging


def _believable(rows: int, same: Pairs, near: Pairs) -> tuple[IntArray, tuple[int, ...]]:
    """(group of each row, sizes of what is too large to be near-duplicates and was left apart)."""
    limit = max(20, int(0.05 * rows))
    joined = components(rows, same, near)
    sizes = np.bincount(joined)
    distinct = len(joined) and sizes - np.bincount(joined[same[:, 1]], minlength=len(sizes))
    # equal contents always stay together; only what nearness joined can be too much
    large = np.flatnonzero(np.asarray(distinct) > limit)
    kept = near[~np.isin(joined[near[:, 0]], large)]
    return components(rows, same, kept), tuple(int(sizes[i]) for i in large)


def _counts(dataset: Dataset) -> dict[str, dict[str, int]]:
    counts = {}
    for part in PARTS:
        codes = dataset.target.codes[dataset.split.index(part)]
        if len(codes):
            by_code = np.bincount(codes[codes != UNLABELLED], minlength=len(dataset.labels))
            counts[str(part)] = dict(zip(dataset.labels, map(int, by_code), strict=True))
    return counts


def _imbalance(dataset: Dataset) -> float:
    codes = dataset.target.codes[dataset.split.index("train")]
    counts = np.bincount(codes[codes != UNLABELLED])
    counts = counts[counts > 0]
    if len(counts) < 2:
        return 1.0
    return float(counts.max() * (len(counts) - 1) / (counts.sum() - counts.max()))


def _repeats(dataset: Dataset, ids: IntArray) -> Repeats:
    within = sum(
        len(index) - len(np.unique(ids[index])) for index in (dataset.split.index(part) for part in PARTS)
    )
    leaks = []
    pairs: tuple[tuple[Part, Part], ...] = (
        ("validation", "train"),
        ("test", "train"),
        ("test", "validation"),
    )
    for part, seen_in in pairs:
        rows, others = dataset.split.index(part), dataset.split.index(seen_in)
        both = rows[np.isin(ids[rows], ids[others])]
        if len(both):
            examples = tuple(
                (dataset.rows.names[i], dataset.rows.names[others[np.argmax(ids[others] == ids[i])]])
                for i in both[:SHOWN]
            )
            leaks.append(Leak(part, seen_in, len(both), examples))
    return Repeats(within, tuple(leaks))


def _less(all_: Repeats, exact: Repeats) -> Repeats:
    """What nearness adds to the exact repeats."""
    known = {(leak.part, leak.seen_in): leak for leak in exact.leaks}
    leaks = []
    for leak in all_.leaks:
        before = known.get((leak.part, leak.seen_in))
        if before is None:
            leaks.append(leak)
        elif leak.rows > before.rows:
            examples = tuple(pair for pair in leak.examples if pair not in before.examples)
            leaks.append(replace(leak, rows=leak.rows - before.rows, examples=examples))
    return Repeats(all_.within - exact.within, tuple(leaks))


def _conflicts(dataset: Dataset, groups: IntArray) -> tuple[tuple[tuple[str, str], ...], ...]:
    codes = dataset.target.codes
    labelled = np.flatnonzero(codes != UNLABELLED)
    found = []
    order = labelled[np.argsort(groups[labelled], kind="stable")]
    edges = np.flatnonzero(np.diff(groups[order])) + 1
    for members in np.split(order, edges):
        if len(members) > 1 and len(np.unique(codes[members])) > 1:
            found.append(tuple((dataset.rows.names[i], dataset.labels[codes[i]]) for i in members))
    return tuple(found)


def _group_leaks(dataset: Dataset, unreadable: list[int]) -> list[str]:
    """What is said where the user's own groups lie on both sides of the user's own split."""
    if dataset.groups is None:
        return []
    learnt = np.setdiff1d(dataset.split.index("train", "validation"), unreadable)
    test = np.setdiff1d(dataset.split.index("test"), unreadable)
    shared = np.intersect1d(dataset.groups[learnt], dataset.groups[test])
    return [f"groups both in test and in what is learnt from: {len(shared)}"] if len(shared) else []


def _absent(dataset: Dataset) -> tuple[tuple[str, str], ...]:
    counts = _counts(dataset)
    return tuple(
        (part, label) for part, by in counts.items() if any(by.values()) for label in by if not by[label]
    )
