"""Folds: every row held out once, classes spread, groups whole, and never a class missing from training."""

import numpy as np
import pytest

from graftwork.errors import RequestError
from graftwork.folds import choose_k, folds, repeated, turns


def test_every_row_is_held_out_once() -> None:
    codes = np.random.default_rng(0).integers(4, size=103)
    found = folds(codes, None, 5, seed=0)
    assert len(found) == 5
    assert np.array_equal(np.sort(np.concatenate([held for _, held in found])), np.arange(103))
    for train, held in found:
        assert np.array_equal(np.sort(np.concatenate([train, held])), np.arange(103))


def test_classes_and_sizes_are_even() -> None:
    codes = np.random.default_rng(1).permutation(np.repeat(np.arange(4), [40, 33, 21, 9]))
    found = folds(codes, None, 5, seed=0)
    counts = np.array([np.bincount(codes[held], minlength=4) for _, held in found])
    assert (np.ptp(counts, axis=0) <= 1).all()
    assert np.ptp(counts.sum(1)) <= 1


def test_groups_are_never_parted() -> None:
    rng = np.random.default_rng(2)
    groups = rng.integers(50, size=200) * 7
    codes = groups % 3
    found = folds(codes, groups, 5, seed=0)
    for train, held in found:
        assert not np.intersect1d(groups[train], groups[held]).size
    assert np.ptp([len(held) for _, held in found]) <= 15


def test_classes_are_even_where_groups_differ_in_size_and_class() -> None:
    rng = np.random.default_rng(3)
    for seed in range(5):
        sizes = rng.integers(1, 5, size=80)
        groups = np.repeat(np.arange(80), sizes)
        codes = np.repeat(rng.choice(3, size=80, p=[0.6, 0.3, 0.1]), sizes)
        counts = np.array(
            [np.bincount(codes[held], minlength=3) for _, held in folds(codes, groups, 4, seed)]
        )
        # dealing the largest group first keeps folds within one group of each other
        assert (np.ptp(counts, axis=0) <= sizes.max()).all()


def test_a_seed_fixes_the_folds_and_another_changes_them() -> None:
    codes = np.arange(60) % 3
    first, again, other = (folds(codes, None, 5, seed) for seed in (4, 4, 5))
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a[1], b[1]) for a, b in zip(first, other, strict=True))


def test_training_always_holds_every_class() -> None:
    codes = np.array([0] * 20 + [1] * 2 + [2])
    for seed in range(10):
        found = folds(codes, None, 5, seed)
        assert all(set(codes[train]) == {0, 1, 2} for train, _ in found)
        held = np.concatenate([held for _, held in found])
        assert 22 not in held and set(held) == set(range(22))


def test_a_class_in_one_group_stays_in_training_with_its_group() -> None:
    codes, groups = np.array([0, 0, 0, 0, 1, 1, 0]), np.array([0, 1, 2, 3, 4, 4, 4])
    for train, held in folds(codes, groups, 3, seed=0):
        assert set(train) >= {4, 5, 6}
        assert not set(held) & {4, 5, 6}


def test_fewer_rows_than_folds_give_fewer_folds() -> None:
    assert len(folds(np.array([0, 0, 0, 1, 1]), None, 10, seed=0)) == 5


def test_nothing_to_hold_out_is_refused() -> None:
    with pytest.raises(RequestError, match="cannot be split"):
        folds(np.arange(4), None, 2, seed=0)
    with pytest.raises(RequestError, match="cannot be split"):
        folds(np.array([0, 0, 1, 1]), np.zeros(4, dtype=np.int64), 2, seed=0)
    with pytest.raises(RequestError, match="at least 2"):
        folds(np.arange(4) % 2, None, 1, seed=0)


def test_repeats_are_shuffled_anew() -> None:
    codes = np.arange(40) % 2
    found = repeated(codes, None, 4, repeats=3, seed=0)
    assert len(found) == 12
    held = {tuple(held) for _, held in found}
    assert len(held) == 12


@pytest.mark.parametrize(
    ("counts", "k"), [([100, 80], 5), ([100, 3], 3), ([100, 2, 1], 2), ([9, 1], 5), ([1, 1], 5)]
)
def test_the_smallest_class_bounds_the_number_of_folds(counts: list[int], k: int) -> None:
    assert choose_k(np.repeat(np.arange(len(counts)), counts)) == k


def test_turns_count_earlier_rows_of_the_same_id() -> None:
    assert turns(np.array([5, 2, 5, 5, 2, 9])).tolist() == [0, 0, 1, 2, 1, 0]
