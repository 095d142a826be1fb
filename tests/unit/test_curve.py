"""Learning curves on made-up features: nested draws, bounded time, labels saved, a plain sentence."""

import itertools

import numpy as np
import pytest

from graftwork import curve
from graftwork.curve import draw_rows, learning_curve

CLASSES = 3
RNG = np.random.default_rng(0)
CENTRES = 2.0 * RNG.normal(size=(CLASSES, 6))
CODES = np.arange(90) % CLASSES
ROWS = CENTRES[CODES] + RNG.normal(size=(90, 6))
HELD_CODES = np.arange(300) % CLASSES
HELD = CENTRES[HELD_CODES] + RNG.normal(size=(300, 6))


def nearest_mean(chosen: np.ndarray, seed: int) -> np.ndarray:
    means = np.stack([ROWS[chosen][CODES[chosen] == code].mean(0) for code in range(CLASSES)])
    nearest = np.square(HELD[:, None] - means).sum(2).argmin(1)
    return np.eye(CLASSES)[nearest]


def constant(chosen: np.ndarray, seed: int) -> np.ndarray:
    return np.tile(np.eye(CLASSES)[0], (len(HELD), 1))


def drawn(learners=None, full=None, **options):
    learners = {"probe": nearest_mean, "classical": constant} if learners is None else learners
    full = {"probe": 0.97, "classical": 0.5} if full is None else full
    options = {"transfer": "probe", "full": full, "seconds": None, **options}
    return learning_curve(learners, CODES, None, HELD_CODES, "accuracy", **options)


def test_sizes_double_up_to_all_rows() -> None:
    points = drawn().curves["probe"]
    assert [point.per_class for point in points] == [1, 2, 4, 8, 16, 30]
    assert [point.rows for point in points] == [3, 6, 12, 24, 48, 90]
    assert (points[-1].mean, points[-1].draws) == (0.97, 1)
    assert points[0].draws >= points[-2].draws >= 3


def test_mean_and_error_are_of_the_draws() -> None:
    seen: dict[int, list[float]] = {}

    def spy(chosen: np.ndarray, seed: int) -> np.ndarray:
        said = nearest_mean(chosen, seed)
        seen.setdefault(len(chosen), []).append(float((said.argmax(1) == HELD_CODES).mean()))
        return said

    for point in drawn({"probe": spy}, {}).curves["probe"]:
        scores = np.array(seen[point.rows])
        assert point.draws == len(scores)
        assert point.mean == pytest.approx(scores.mean())
        assert point.error == pytest.approx(scores.std(ddof=1) / np.sqrt(len(scores)))


def test_all_learners_learn_from_the_same_rows() -> None:
    seen: dict[str, set[tuple[int, ...]]] = {"probe": set(), "classical": set()}

    def spy(name: str):
        def learn(chosen: np.ndarray, seed: int) -> np.ndarray:
            seen[name].add((seed, *chosen))
            return constant(chosen, seed)

        return learn

    drawn({name: spy(name) for name in seen})
    assert seen["probe"] == seen["classical"]


def test_labels_saved_counts_rows_the_transfer_did_not_need() -> None:
    found = drawn(full={"probe": 0.99, "classical": 0.4})
    first = found.curves["probe"][0]
    assert first.mean > 0.4
    assert found.labels_saved == 90 - first.rows == 87
    assert "With 1 label a class (3 rows)" in found.sentence
    assert "classical with all 90 rows: 87 labels saved." in found.sentence


def test_the_best_baseline_counts_even_without_a_curve() -> None:
    found = drawn(full={"probe": 0.99, "classical": 0.4, "scratch": 1.0})
    assert found.labels_saved is None
    assert "does not reach scratch with all 90 rows" in found.sentence
    assert "scratch" not in found.curves


def test_a_lucky_small_size_saves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def lucky(chosen: np.ndarray, seed: int) -> np.ndarray:
        return np.eye(CLASSES)[HELD_CODES] if len(chosen) in (3, 48) else constant(chosen, seed)

    found = drawn({"probe": lucky}, {"probe": 0.9, "classical": 0.8})
    assert found.labels_saved == 90 - 48


def test_no_baseline_no_labels_saved() -> None:
    found = drawn({"probe": nearest_mean}, {"probe": 0.9})
    assert found.labels_saved is None
    assert found.sentence.startswith("Going from 48 to 90 labelled rows changed its score by")


def test_no_fit_begins_after_the_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()
    monkeypatch.setattr(curve.time, "monotonic", lambda: float(next(clock)))
    found = drawn(seconds=4.5)
    # the clock strikes once a fit: four fits, the smallest sizes of both learners
    assert [[p.per_class for p in found.curves[name]] for name in ("probe", "classical")] == [[1, 2, 30]] * 2


def test_progress_counts_every_fit() -> None:
    steps = []
    drawn(notify=steps.append)
    assert [step.done for step in steps] == list(range(1, steps[0].total + 1))
    assert {step.unit for step in steps} == {"fits"}


def test_a_seed_fixes_the_curve() -> None:
    assert drawn(seed=5) == drawn(seed=5)
    assert drawn(seed=5).curves["probe"][0] != drawn(seed=6).curves["probe"][0]


def test_draws_are_nested_and_even() -> None:
    codes = np.repeat([0, 1, 2], [5, 20, 40])
    small, large = draw_rows(codes, None, 4, seed=1), draw_rows(codes, None, 8, seed=1)
    assert np.bincount(codes[small]).tolist() == [4, 4, 4]
    assert np.bincount(codes[large]).tolist() == [5, 8, 8]
    assert set(small) < set(large)


def test_copies_of_a_row_are_drawn_last() -> None:
    groups = np.repeat(np.arange(6), 5)
    codes = groups % 2
    for seed in range(5):
        chosen = draw_rows(codes, groups, 3, seed)
        assert sorted(groups[chosen]) == list(range(6))
