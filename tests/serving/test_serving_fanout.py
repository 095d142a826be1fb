"""What many tasks say of one run's features is what each says by itself."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tiny_tasks
import toys
from graftwork.errors import FeatureWidth
from graftwork.heads import LinearHead
from graftwork.model import Familiarity, Head, softmax
from graftwork.serving import fanout
from graftwork.serving.tasks import Task
from graftwork.unknown import Shortlisted, single

FEATURES = np.random.default_rng(5).poisson(3, (40, toys.WIDTH)).astype(np.float32)


def task(head: Head, familiarity: Familiarity | None = None) -> Task:
    return Task(Path("t.graft"), "", "text", head.labels, head, familiarity, "toy", 0, "toy")


def same(asked: list[tuple[Task, np.ndarray]], features: np.ndarray = FEATURES) -> None:
    for (one, rows), (probabilities, unknown) in zip(asked, fanout.answer(asked, features), strict=True):
        wanted = softmax(one.head.logits(features[rows]))
        np.testing.assert_allclose(probabilities, wanted, rtol=1e-12, atol=1e-15)
        flags = one.familiarity.unknown(features[rows]) if one.familiarity else np.zeros(len(rows), bool)
        assert np.array_equal(unknown, flags)


def linear(seed: int, classes: int = 3) -> LinearHead:
    made = tiny_tasks.head("linear", tuple(f"label {i}" for i in range(classes)), seed)
    assert isinstance(made, LinearHead)
    return made


def test_linear_heads_of_many_shapes_answer_as_each_by_itself() -> None:
    rng = np.random.default_rng(0)
    same([
        (task(linear(seed, 2 + seed % 4)), rng.integers(0, len(FEATURES), 1 + seed % 3))
        for seed in range(60)
    ])  # fmt: skip


def test_a_block_holds_only_so_many_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "BLOCK_BYTES", 3 * 8 * toys.WIDTH * 3)
    same([(task(linear(seed)), np.array([seed % 40])) for seed in range(10)])


def test_many_rows_of_many_heads_take_no_more_memory_than_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "BLOCK_BYTES", 8 * toys.WIDTH * 40)
    largest = 0
    linear_of = fanout._linear

    def watched(heads: Sequence[Head], seen: np.ndarray) -> np.ndarray:
        nonlocal largest
        largest = max(largest, seen.nbytes)
        return linear_of(heads, seen)

    monkeypatch.setattr(fanout, "_linear", watched)
    same([(task(linear(seed)), np.arange(40)) for seed in range(10)])
    assert largest == 8 * toys.WIDTH * 40


@pytest.mark.parametrize("kind", ["cosine", "distance", "mlp", "kernel"])
def test_other_heads_answer_beside_them(kind: str) -> None:
    rows = np.arange(4)
    same([(task(linear(0)), rows), (task(tiny_tasks.head(kind)), rows), (task(linear(1)), rows)])


def test_labels_that_no_row_carried_stay_all_but_impossible() -> None:
    labels = ("label 0", "a", "label 1", "b", "label 2")
    wide = linear(0).over(labels)
    asked = [(task(wide), np.arange(3)), (task(linear(1, 5)), np.arange(3))]
    same(asked)
    assert fanout.answer(asked, FEATURES)[0][0][:, [1, 3]].max() < 1e-9


def test_one_input_may_be_asked_of_many_tasks_and_one_task_of_none() -> None:
    same(
        [
            (task(linear(0)), np.array([7])),
            (task(linear(1)), np.array([7])),
            (task(linear(2)), np.array([], int)),
        ]
    )


def test_features_of_another_width_are_refused() -> None:
    with pytest.raises(FeatureWidth):
        fanout.answer([(task(linear(0)), np.array([0]))], np.ones((1, toys.WIDTH + 1), np.float32))


@pytest.mark.parametrize("rows", [20, 100, 900])
def test_unknown_inputs_are_the_same_ones_whether_few_or_many_are_asked_about(rows: int) -> None:
    whole = tiny_tasks.known(rows)
    quick = Shortlisted.of(whole)
    rng = np.random.default_rng(1)
    known, strange = rng.poisson(3, (200, toys.WIDTH)), rng.poisson(0.3, (200, toys.WIDTH))
    asked = np.concatenate([known, strange]).astype(np.float32)
    wanted = whole.unknown(asked)
    assert 0.3 < wanted.mean() < 0.7
    assert np.array_equal(np.concatenate([quick.unknown(asked[i : i + 1]) for i in range(400)]), wanted)
    assert np.array_equal(quick.unknown(asked), wanted)
    same([(task(linear(i), quick), np.array([i])) for i in range(40)])


def test_a_shortlist_without_one_near_row_is_not_the_last_word() -> None:
    whole = tiny_tasks.known(300)
    blind = Shortlisted(whole, np.zeros((300, 16), np.float32))
    asked = np.random.default_rng(2).poisson(3, (50, toys.WIDTH)).astype(np.float32)
    flags = np.concatenate([blind.unknown(row[None]) for row in asked])
    assert np.array_equal(flags, whole.unknown(asked)) and not flags.all()


def test_more_neighbours_than_a_shortlist_holds_are_found_all_the_same() -> None:
    asked = np.random.default_rng(2).poisson(3, (50, toys.WIDTH)).astype(np.float32)
    whole = replace(tiny_tasks.known(300), neighbours=40)
    whole = replace(whole, threshold=float(np.median(whole.distance(asked))))
    flags = np.concatenate([Shortlisted.of(whole).unknown(row[None]) for row in asked])
    assert np.array_equal(flags, whole.unknown(asked)) and 0 < flags.mean() < 1


def test_half_precision_is_read_exactly() -> None:
    every = np.arange(65_536, dtype=np.uint16).view(np.float16)
    finite = every[np.isfinite(every)]
    assert np.array_equal(single(finite).view(np.uint32), finite.astype(np.float32).view(np.uint32))
