"""Laws of datasets: what order, names and paths must not change, and what splits must keep."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from graftwork.datasets import dataset_digest, load
from graftwork.datasets.duplicates import components
from graftwork.datasets.split import draw_test
from graftwork.inspection import inspect
from graftwork.rows import UNLABELLED, Dataset

words = st.text(min_size=1, max_size=12).filter(str.strip)
labels = st.sampled_from(["a", "b", "猫", "10"])
parts = st.sampled_from(["train", "validation", "test"])
rows = st.lists(st.tuples(words, labels, parts), min_size=1, max_size=12).map(
    # labelled training rows make any list a dataset
    lambda some: [("first", "a", "train"), *some]
)
laws = settings(max_examples=60, deadline=None)


def dataset(given_rows: list[tuple[str, str, str]]) -> Dataset:
    texts, names, split = (list(column) for column in zip(*given_rows, strict=True))
    return load(texts, labels=names, split=split)


def content(one: Dataset) -> list[tuple[bytes, int, str]]:
    column = one.rows.column
    return [(column.read(i), int(one.target.codes[i]), str(one.split.parts[i])) for i in range(len(one))]


@laws
@given(rows, st.randoms())
def test_taking_rows_is_taking_their_content(some: list[tuple[str, str, str]], random: object) -> None:
    whole = dataset(some)
    index = np.array(random.choices(range(len(some)), k=5), dtype=np.int64)  # type: ignore[attr-defined]
    assert content(whole.take(index)) == [content(whole)[i] for i in index]
    again = np.array([3, 0, 0], dtype=np.int64)
    assert content(whole.take(index).take(again)) == content(whole.take(index[again]))


@laws
@given(rows, st.randoms())
def test_the_digest_is_that_of_a_set_of_rows(some: list[tuple[str, str, str]], random: object) -> None:
    shuffled = list(some)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert dataset_digest(dataset(shuffled)) == dataset_digest(dataset(some))


@laws
@given(rows, st.integers(0, 11), st.integers(0, 2))
def test_the_digest_changes_with_any_content_label_or_part(
    some: list[tuple[str, str, str]], at: int, what: int
) -> None:
    others = {"a": "b", "train": "test"}
    changed = list(some)
    row = list(changed[at % len(some)])
    row[what] = row[what] + "!" if what == 0 else others.get(row[what], "a" if what == 1 else "train")
    changed[at % len(some)] = (row[0], row[1], row[2])
    if not any(part == "train" for _, _, part in changed):
        return
    assert dataset_digest(dataset(changed)) != dataset_digest(dataset(some))


@laws
@given(rows, st.randoms())
def test_inspecting_in_another_order_finds_the_same(some: list[tuple[str, str, str]], random: object) -> None:
    shuffled = list(some)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = inspect(dataset(some)), inspect(dataset(shuffled))
    assert (one.counts, one.exact.within, one.near.within) == (
        other.counts,
        other.exact.within,
        other.near.within,
    )
    assert len(np.unique(one.groups)) == len(np.unique(other.groups))
    assert len(one.conflicts) == len(other.conflicts)


codes = st.lists(st.integers(UNLABELLED, 4), min_size=1, max_size=200).map(
    lambda some: np.array(some, dtype=np.int64)
)
shares = st.sampled_from([0.0, 0.1, 0.2, 0.5, 0.9, 1.0])


@laws
@given(codes, shares, st.integers(0, 1000))
def test_a_split_of_single_rows_is_stratified_to_the_row(some: np.ndarray, share: float, seed: int) -> None:
    test = draw_test(some, np.arange(len(some)), share, seed)
    assert not test[some == UNLABELLED].any()
    for code in set(some.tolist()) - {UNLABELLED}:
        total = int((some == code).sum())
        assert test[some == code].sum() == min(np.rint(share * total), total - 1)


@laws
@given(codes, shares, st.integers(0, 1000), st.integers(1, 40))
def test_a_split_parts_no_group_and_empties_no_class(
    some: np.ndarray, share: float, seed: int, groups: int
) -> None:
    ids = np.random.default_rng(seed).integers(0, groups, len(some))
    test = draw_test(some, ids, share, seed)
    assert (test == draw_test(some, ids, share, seed)).all()
    for group in np.unique(ids):
        assert len(set(test[ids == group].tolist())) == 1
    for code in set(some.tolist()) - {UNLABELLED}:
        assert (~test & (some == code)).any()


@laws
@given(st.integers(1, 30), st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=30))
def test_components_are_the_closure_of_their_pairs(rows: int, pairs: list[tuple[int, int]]) -> None:
    inside = [(a % rows, b % rows) for a, b in pairs]
    ids = components(rows, np.array(inside, dtype=np.int64).reshape(-1, 2))
    assert all(ids[a] == ids[b] for a, b in inside)
    # numbered by first appearance
    assert list(dict.fromkeys(ids.tolist())) == list(range(ids.max() + 1))
    # no more is joined than the pairs join: each pair can join two components at most once
    assert ids.max() + 1 >= rows - len(inside)
