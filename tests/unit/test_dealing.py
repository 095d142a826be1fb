"""Batches: every row once, never alone, the same for the same seed; and what is held out."""

from typing import Literal

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from graftwork.training import hold_out
from graftwork.training.dealing import batches_an_epoch, dealt

SAMPLINGS = ("plain", "balanced", "paired")


@given(
    rows=st.integers(2, 400),
    batch=st.integers(1, 70),
    alike=st.booleans(),
    sampling=st.sampled_from(SAMPLINGS),
    seed=st.integers(0, 9),
)
def test_there_are_as_many_batches_as_foretold(
    rows: int, batch: int, alike: bool, sampling: Literal["plain", "balanced", "paired"], seed: int
) -> None:
    assume(batch > 1 or sampling != "paired")
    rng = np.random.default_rng(seed)
    codes, lengths = np.arange(rows) % 3, rng.integers(1, 9, rows) * 8 if alike else None
    found = dealt(np.arange(rows), codes, lengths, batch, sampling, seed, 1)
    assert len(found) == batches_an_epoch(rows, batch, alike)
    assert all(len(one) for one in found)


@given(rows=st.integers(2, 400), batch=st.integers(2, 70), alike=st.booleans())
def test_every_row_comes_once_an_epoch_and_none_alone(rows: int, batch: int, alike: bool) -> None:
    lengths = np.random.default_rng(rows).integers(1, 9, rows) * 8 if alike else None
    learnt = np.arange(rows) * 3
    if lengths is not None:
        lengths = np.repeat(lengths, 3)
    found = dealt(learnt, np.zeros(3 * rows, np.int64), lengths, batch, "plain", 0, 1)
    assert np.array_equal(np.sort(np.concatenate(found)), learnt)
    sizes = [len(one) for one in found]
    assert min(sizes) >= 2
    assert max(sizes) <= max(batch, 3)


def test_single_rows_are_dealt_where_they_are_asked_for() -> None:
    assert [len(one) for one in dealt(np.arange(5), np.zeros(5, int), None, 1, "plain", 0, 1)] == [1] * 5


def test_order_follows_the_seed_and_the_epoch() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return np.concatenate(dealt(np.arange(90), np.zeros(90, int), None, 8, "plain", seed, epoch)).tolist()

    assert order(1, 1) == order(1, 1)
    assert order(1, 1) != order(2, 1)
    assert order(1, 1) != order(1, 2)


def test_rows_of_about_one_length_go_together() -> None:
    lengths = np.random.default_rng(0).integers(1, 40, 1_000) * 8
    found = dealt(np.arange(1_000), np.zeros(1_000, int), lengths, 20, "plain", 0, 1)
    padded = sum(len(one) * lengths[one].max() for one in found)
    assert padded < 1.1 * lengths.sum()
    # and yet the batches do not come in order of length
    longest = np.array([lengths[one].max() for one in found])
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.5


def test_balanced_sampling_shows_each_class_as_often() -> None:
    codes = np.repeat([0, 1, 2], [90, 8, 2])
    drawn = np.concatenate(dealt(np.arange(100), codes, None, 16, "balanced", 0, 1))
    assert sorted(np.bincount(codes[drawn])) == [33, 33, 34]
    # no row of a class comes again before each of it has come
    assert len(set(drawn[codes[drawn] == 0])) == np.sum(codes[drawn] == 0)
    assert set(drawn[codes[drawn] == 2]) == {98, 99}


def test_held_out_part_keeps_groups_whole_and_every_class_learnt() -> None:
    codes = np.repeat(np.arange(3), 40)
    groups = np.arange(120) // 4
    held = hold_out(codes, groups, 0.1, seed=0)
    assert 6 <= held.sum() <= 24
    assert not set(groups[held]) & set(groups[~held])
    assert set(codes[~held]) == {0, 1, 2} == set(codes[held])


@pytest.mark.parametrize("classes", [1, 3])
def test_nothing_is_held_out_of_one_row_a_class(classes: int) -> None:
    assert not hold_out(np.arange(classes), np.arange(classes), 0.1, seed=0).any()
