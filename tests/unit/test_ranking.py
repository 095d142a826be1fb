"""Ranking sources: who is chosen, how sure that is, and what is never touched."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from graftwork.backbones.base import BackboneState
from graftwork.errors import ArtefactError, RequestError
from graftwork.folds import folds
from graftwork.ranking import rank
from graftwork.ranking.estimate import Course, Rung, difference, estimates, fused, influence_of
from graftwork.ranking.probing import out_of_fold
from graftwork.ranking.sample import answerable, nested
from graftwork.ranking.significance import comparable, standing_out
from graftwork.records import Extraction, Features, Metric, Notify, Ranking, silent
from graftwork.rows import Kind, Rows, Texts
from graftwork.sources import Source
from graftwork.strategies.base import Task
from graftwork.transferability import Separation, shufflings

Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class Given:
    """A backbone whose features are given, by the row's number; every row costs `pace` of the clock."""

    name: str
    matrix: Matrix
    spend: Callable[[float], None] = lambda seconds: None
    pace: float = 0.0
    asked: set[int] = field(default_factory=set)
    kind: Kind = "text"

    @property
    def fingerprint(self) -> str:
        return f"given-{self.name}"

    @property
    def width(self) -> int:
        return self.matrix.shape[1]

    def features(self, rows: Rows, notify: Notify = silent) -> Features:
        index = [int(name) for name in rows.names]
        fresh = set(index) - self.asked
        self.asked.update(fresh)
        self.spend(self.pace * len(fresh))
        seconds = self.pace * len(fresh)
        made = Extraction(len(index), len(fresh), len(index) - len(fresh), seconds, "toy", "f32")
        return Features({"given": self.matrix[index]}, {}, made)

    def state(self) -> BackboneState:
        raise AssertionError("ranking saves nothing")


class Clock:
    """Seconds that pass only where a toy spends them."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def spend(self, seconds: float) -> None:
        self.now += seconds


def a_task(codes: Any, groups: Any = None, metric: Metric = "accuracy", seed: int = 0) -> Task:
    rows = len(codes)
    names = [str(i) for i in range(rows)]
    return Task(
        rows=Rows(names, {"text": Texts([f"row {name}" for name in names])}),
        codes=np.asarray(codes, dtype=np.int64),
        labels=tuple("abcdefghij"[: max(codes) + 1]),
        groups=np.arange(rows) if groups is None else np.asarray(groups),
        validation=np.zeros(rows, dtype=bool),
        weights=np.ones(rows),
        metric=metric,
        seed=seed,
    )


def a_source(folder: Path, name: str) -> Source:
    (folder / f"{name}.bin").write_bytes(b"w" * 100)
    return Source(name, "text", "toy", folder, {f"{name}.bin": name}, (f"{name}.bin",), "local", None, "MIT")


def noise(rows: int, width: int = 8, seed: int = 0) -> Matrix:
    return np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)


def telling(codes: Any, strength: float, seed: int = 1, width: int = 8) -> Matrix:
    """Noise with each class moved along a direction of its own."""
    found = noise(len(codes), width, seed)
    found[np.arange(len(codes)), np.asarray(codes)] += strength
    return found


def ranked(folder: Path, task: Task, given: Mapping[str, Matrix | Exception], **options: Any) -> Ranking:
    """`rank` over toy sources, in the order given; an exception in place of features refuses to open."""
    backbones = options.pop("backbones", {})

    def opening(source: Source, notify: Notify) -> Given:
        matrix = given[source.name]
        if isinstance(matrix, Exception):
            raise matrix
        return backbones.setdefault(source.name, Given(source.name, matrix))  # type: ignore[no-any-return]

    return rank(task, [a_source(folder, name) for name in given], opening, **options)


CODES = np.arange(60) % 3


def test_an_informative_source_is_found_among_noise(tmp_path: Path) -> None:
    given = {f"noise{i}": noise(60, seed=i) for i in range(4)}
    found = ranked(tmp_path, a_task(CODES), {**given, "good": telling(CODES, 4.0)})
    first = found.candidates[0]
    assert found.choice == first.name == "good"
    assert found.p <= 0.05
    assert first.probability_best > 0.99 and first.regret < 1e-3
    assert all(one.regret > 0.3 for one in found.candidates[1:])
    assert first.expected.low > 0.8 and all(one.expected.high < 0.8 for one in found.candidates[1:])
    assert len(found.candidates) == 5 and all(one.reason for one in found.candidates)


def test_nothing_stands_out_under_noise_and_the_choice_is_none(tmp_path: Path) -> None:
    found = ranked(tmp_path, a_task(CODES), {f"noise{i}": noise(60, seed=10 + i) for i in range(3)})
    assert found.p > 0.05
    assert found.choice is None and "nothing stands out" in found.sentence
    assert len(found.candidates) == 3


def test_p_is_uniform_when_labels_are_shuffled() -> None:
    from graftwork.transferability import separations

    sources = [
        noise(24, width, seed=width) * np.logspace(0, -1, width, dtype=np.float32) for width in (4, 30)
    ]
    codes, groups = np.arange(24) % 3, np.arange(24)
    rng = np.random.default_rng(0)
    found = []
    for seed in range(60):
        dealt = rng.permutation(codes)
        labellings = shufflings(dealt, groups, 9, seed)
        found.append(standing_out([separations(one, dealt, groups, labellings) for one in sources]))
    shares = np.array(found)
    # ten possible values, 0.1 to 1.0, each in a tenth of the labellings; ties make them larger
    assert 0.5 < shares.mean() < 0.55 + 4 * 0.287 / np.sqrt(60)
    assert (shares <= 0.101).mean() < 0.1 + 4 * 0.3 / np.sqrt(60)
    assert (shares <= 0.501).mean() == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(60))


def test_all_sources_meet_the_same_shufflings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from graftwork.ranking import ranking as module

    real, met = module.separations, []

    def spying(features: Matrix, codes: Any, groups: Any, labellings: Any, **more: Any) -> Any:
        met.append(np.array(labellings))
        return real(features, codes, groups, labellings, **more)

    monkeypatch.setattr(module, "separations", spying)
    ranked(tmp_path, a_task(CODES), {f"noise{i}": noise(60, seed=i) for i in range(3)})
    assert len(met) == 3 and met[0].shape == (module.SHUFFLINGS, 60)
    assert all(np.array_equal(one, met[0]) for one in met[1:])


def test_values_are_counted_in_upper_deviations_of_the_other_labellings() -> None:
    rng = np.random.default_rng(0)
    table = np.stack([rng.exponential(size=30) ** 3, rng.standard_normal(30) * 50.0])
    found = comparable(table)
    for row, one in ((0, 0), (0, 17), (1, 4)):
        others = np.concatenate([table[row, :one], table[row, one + 1 :]])
        above = [max(value - np.median(others), 0.0) ** 2 for value in others]
        unit = np.sqrt(2 * sum(above) / len(above))
        assert found[row, one] == pytest.approx((table[row, one] - np.median(others)) / unit)


def test_a_score_whose_null_never_moves_stays_finite() -> None:
    still = Separation("evidence", 1.0, np.zeros(19))
    moving = Separation("ridge", 0.0, np.random.default_rng(0).standard_normal(19))
    assert standing_out([(still, moving)]) == pytest.approx(1 / 20)
    flat = Separation("evidence", 0.0, np.zeros(19))
    assert standing_out([(flat,)]) == 1.0


def test_the_same_model_under_two_names_counts_once(tmp_path: Path) -> None:
    good = telling(CODES, 3.0)
    found = ranked(tmp_path, a_task(CODES), {"a": good, "copy": good.copy(), "noise": noise(60)})
    assert [one.name for one in found.candidates] == ["a", "noise"]
    assert found.refused == {"copy": "gives the same features as a, and is counted once"}


def test_sources_that_hardly_differ_share_the_chances(tmp_path: Path) -> None:
    good = telling(CODES, 2.0)
    nearly = good + 1e-4 * noise(60, seed=5)
    found = ranked(tmp_path, a_task(CODES), {"a": good, "b": nearly, "noise": noise(60)})
    by_name = {one.name: one for one in found.candidates}
    assert by_name["a"].probability_best == pytest.approx(0.5, abs=0.2)
    assert by_name["b"].probability_best == pytest.approx(0.5, abs=0.2)
    assert by_name["noise"].probability_best < 0.01
    assert all(one.reason.startswith("level with ") for one in found.candidates[:2])


@pytest.mark.parametrize("error", [ArtefactError("x is damaged"), RuntimeError("driver\nsays no")])
def test_a_broken_source_is_refused_and_the_others_are_ranked(tmp_path: Path, error: Exception) -> None:
    found = ranked(tmp_path, a_task(CODES), {"broken": error, "good": telling(CODES, 3.0)})
    assert found.choice == "good"
    assert "damaged" in found.refused["broken"] or "driver says no" in found.refused["broken"]


def test_features_that_are_no_numbers_refuse_their_source_alone(tmp_path: Path) -> None:
    given = {"broken": np.full((60, 8), np.nan, np.float32), "good": telling(CODES, 3.0)}
    found = ranked(tmp_path, a_task(CODES), given)
    assert [one.name for one in found.candidates] == ["good"]
    assert "not finite" in found.refused["broken"]


def test_a_classifier_that_cannot_be_used_costs_its_source_two_scores_and_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def own(source: Source, backbone: Given) -> Any:
        if source.name == "broken":
            raise AttributeError("no such layer")
        return np.eye(8, 5, dtype=np.float32), np.zeros(5, np.float32)

    monkeypatch.setattr("graftwork.ranking.ranking.own_classifier", own)
    given = {"broken": telling(CODES, 4.0), "whole": telling(CODES, 2.0, seed=2)}
    found = ranked(tmp_path, a_task(CODES), given)
    names = {one.name: {score.name for score in one.scores} for one in found.candidates}
    assert names["whole"] - names["broken"] == {"nce", "leep"}
    assert (
        "broken is scored without its own labels: failed with AttributeError: no such layer" in found.sentence
    )


def test_rows_that_cannot_be_asked_are_counted_aloud(tmp_path: Path) -> None:
    codes = np.array([0] * 8 + [1] * 8 + [2])
    found = ranked(tmp_path, a_task(codes), {"good": telling(codes, 5.0)})
    assert "1 of 17 rows cannot be asked" in found.sentence
    assert "cannot be asked" not in ranked(tmp_path, a_task(CODES), {"good": telling(CODES, 5.0)}).sentence


def test_a_row_that_one_source_cannot_read_refuses_that_source(tmp_path: Path) -> None:
    class Blind(Given):
        def features(self, rows: Rows, notify: Notify = silent) -> Features:
            found = super().features(rows, notify)
            return replace(found, unreadable={0: "is no song"})

    given = {"blind": noise(60), "good": telling(CODES, 3.0)}
    found = ranked(tmp_path, a_task(CODES), given, backbones={"blind": Blind("blind", given["blind"])})
    assert [one.name for one in found.candidates] == ["good"]
    assert found.refused["blind"].endswith("is no song")


def test_no_source_at_all_is_an_error_that_gives_the_reasons(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"broken: x is damaged"):
        ranked(tmp_path, a_task(CODES), {"broken": ArtefactError("x is damaged")})


def test_one_source_alone_is_ranked_too(tmp_path: Path) -> None:
    found = ranked(tmp_path, a_task(CODES), {"good": telling(CODES, 3.0)})
    assert found.choice == "good" and found.candidates[0].probability_best == 1.0
    assert found.candidates[0].regret == 0.0


def test_one_row_a_class_is_an_error_and_a_single_row_of_a_class_is_not(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="every class has one row"):
        ranked(tmp_path, a_task([0, 1, 2]), {"good": noise(3)})
    codes = np.array([0] * 8 + [1] * 8 + [2])
    found = ranked(tmp_path, a_task(codes), {"good": telling(codes, 5.0), "noise": noise(17)})
    assert found.choice == "good"
    assert found.candidates[0].expected.rows == 16


def test_four_rows_are_few_but_enough_to_answer(tmp_path: Path) -> None:
    codes = np.array([0, 0, 1, 1])
    found = ranked(tmp_path, a_task(codes), {"good": telling(codes, 9.0), "noise": noise(4)})
    assert found.choice is None
    assert found.candidates[0].expected.low < 0.6


def test_unbalanced_classes_are_ranked_by_balanced_accuracy(tmp_path: Path) -> None:
    codes = np.array([0] * 90 + [1] * 10)
    task = a_task(codes, metric="balanced_accuracy")
    task = replace(task, weights=np.where(codes == 0, 100 / 180, 100 / 20))
    found = ranked(tmp_path, task, {"noise": noise(100), "good": telling(codes, 3.0)})
    assert found.metric == "balanced_accuracy" and found.choice == "good"
    by_name = {one.name: one for one in found.candidates}
    assert by_name["noise"].expected.value < 0.7 < 0.85 < by_name["good"].expected.value


# Growing samples and the budget


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A first sample of 40 rows, eight of them a pilot, so that toys of a few hundred rows grow."""
    from graftwork.ranking import looking
    from graftwork.ranking import ranking as module

    monkeypatch.setattr(looking, "PILOT", 8)
    monkeypatch.setattr(looking, "SPEED_ROWS", 4)
    monkeypatch.setattr(module, "SAMPLE", 40)
    monkeypatch.setattr(module, "SHUFFLINGS", 19)


MANY = np.arange(400) % 2


@pytest.mark.usefixtures("small")
def test_only_the_best_are_asked_with_more_rows(tmp_path: Path) -> None:
    strengths = {"best": 3.0, "good": 2.2, "fair": 0.8, "poor": 0.3, "none": 0.0}
    given = {name: telling(MANY, s, seed=i) for i, (name, s) in enumerate(strengths.items())}
    backbones: dict[str, Given] = {}
    found = ranked(tmp_path, a_task(MANY), given, backbones=backbones)
    asked = {name: len(one.asked) for name, one in backbones.items()}
    assert asked["poor"] == asked["none"] == 40
    assert asked["best"] == found.rows > 40
    rows = {one.name: one.rows for one in found.candidates}
    assert rows == asked
    assert "asked no further" in next(one.reason for one in found.candidates if one.name == "poor")


@pytest.mark.usefixtures("small")
def test_a_budget_is_kept_and_what_it_left_out_is_said(tmp_path: Path) -> None:
    def spent(budget: float | None) -> tuple[float, Ranking, dict[str, Given]]:
        clock = Clock()
        given = {f"s{i}": telling(MANY, 2.0 + i / 20, seed=i) for i in range(8)}
        backbones = {name: Given(name, matrix, clock.spend, 0.01) for name, matrix in given.items()}
        found = ranked(tmp_path, a_task(MANY), given, backbones=backbones, budget=budget, clock=clock)
        return clock.now, found, backbones

    unbounded, whole, _ = spent(None)
    assert unbounded > 4.0 and whole.budget is None
    seconds, found, backbones = spent(5.0)
    assert seconds <= 5.0 and found.budget == 5.0
    assert max(len(one.asked) for one in backbones.values()) == found.rows <= whole.rows
    seconds, found, _ = spent(1.0)
    assert "the budget of 1 s" in " ".join([found.sentence, *found.refused.values()])


@pytest.mark.usefixtures("small")
def test_a_sample_grows_as_far_as_the_budget_goes(tmp_path: Path) -> None:
    clock = Clock()
    given = {f"s{i}": telling(MANY, 2.0, seed=i) for i in range(2)}
    backbones = {name: Given(name, matrix, clock.spend, 0.01) for name, matrix in given.items()}
    found = ranked(tmp_path, a_task(MANY), given, backbones=backbones, budget=1.4, clock=clock)
    # 0.8 s for twice 40 rows, so that 0.6 s are left: twice 30 rows more
    assert clock.now <= 1.4 + 1e-9 and found.rows in (69, 70)


@pytest.mark.usefixtures("small")
def test_a_source_too_slow_for_the_budget_is_refused_by_name(tmp_path: Path) -> None:
    clock = Clock()
    given = {"quick": telling(MANY, 2.0), "slow": telling(MANY, 3.0, seed=2)}
    backbones = {name: Given(name, one, clock.spend, 0.001) for name, one in given.items()}
    backbones["slow"] = Given("slow", given["slow"], clock.spend, 1.0)
    found = ranked(tmp_path, a_task(MANY), given, backbones=backbones, budget=30.0, clock=clock)
    assert [one.name for one in found.candidates] == ["quick"]
    assert "too slow for the budget of 30 s (1 rows a second)" in found.refused["slow"]


@pytest.mark.usefixtures("small")
def test_sources_after_the_budget_was_spent_are_not_opened(tmp_path: Path) -> None:
    clock = Clock()
    opened = []

    def opening(source: Source, notify: Notify) -> Given:
        clock.spend(20.0)
        opened.append(source.name)
        return Given(source.name, telling(MANY, 2.0, seed=len(opened)))

    sources = [a_source(tmp_path, name) for name in ("a", "b", "c")]
    found = rank(a_task(MANY), sources, opening, budget=30.0, clock=clock)
    assert opened == ["a", "b"]
    assert found.refused == {"c": "was not looked at: the budget of 30 s was spent"}


@pytest.mark.usefixtures("small")
def test_what_was_dropped_early_gains_what_the_survivors_gained_and_is_less_sure(tmp_path: Path) -> None:
    strengths = {"best": 2.5, "good": 2.2, "poor": 0.5, "none": 0.0}
    given = {name: telling(MANY, s, seed=i) for i, (name, s) in enumerate(strengths.items())}
    found = ranked(tmp_path, a_task(MANY), given)
    by_name = {one.name: one.expected for one in found.candidates}
    width = {name: one.high - one.low for name, one in by_name.items()}
    assert by_name["poor"].rows == 40 < by_name["best"].rows
    assert width["poor"] > 2 * width["best"]


# Against not transferring


def answers(matrix: Matrix, codes: Any, seen: list[int] | None = None) -> Any:
    """A baseline that is a probe on features of its own."""

    def given(index: Any) -> Any:
        mine, place = codes[index], np.full(len(index), -1)
        for fold, (_, held) in enumerate(folds(mine, index, 5, 0)):
            place[held] = fold
        if seen is not None:
            seen.append(len(index))
        weights = np.ones(len(index))
        return out_of_fold(matrix[index], mine, place, weights, int(codes.max()) + 1, 0), place

    return given


def test_no_source_beats_a_better_baseline_and_that_is_said(tmp_path: Path) -> None:
    given = {"weak": telling(CODES, 1.0), "noise": noise(60)}
    found = ranked(tmp_path, a_task(CODES), given, baseline=answers(telling(CODES, 5.0, seed=9), CODES))
    assert "no source beats the model without transfer" in found.sentence
    assert found.ahead is not None and found.ahead.high < 0.0 and found.ahead.rows == 60
    assert found.baseline is not None and found.baseline.value > 0.95
    found = ranked(tmp_path, a_task(CODES), {"good": telling(CODES, 5.0)}, baseline=answers(noise(60), CODES))
    assert "better than the model without transfer" in found.sentence and "perhaps" not in found.sentence
    assert found.baseline is not None and found.baseline.value < 0.6


@pytest.mark.usefixtures("small")
def test_the_baseline_is_left_out_where_the_budget_is_spent(tmp_path: Path) -> None:
    clock = Clock()
    given = {"good": telling(MANY, 2.0)}
    backbones = {"good": Given("good", given["good"], clock.spend, 1.0)}
    seen: list[int] = []
    found = ranked(
        tmp_path,
        a_task(MANY),
        given,
        backbones=backbones,
        budget=20.0,
        clock=clock,
        baseline=answers(noise(400), MANY, seen),
    )
    assert found.baseline is None and not seen
    assert "the model without transfer was left out: the budget of 20 s was spent" in found.sentence


# The parts


def test_every_beginning_of_the_order_is_stratified_and_has_two_rows_of_each_class() -> None:
    codes = np.array([0] * 300 + [1] * 90 + [2] * 4)
    order = nested(codes, np.arange(394), seed=3)
    assert np.array_equal(np.sort(order), np.arange(394))
    assert np.bincount(codes[order[:6]]).tolist() == [2, 2, 2]
    for size in (50, 100, 200):
        counts = np.bincount(codes[order[:size]], minlength=3)
        assert abs(counts[0] / size - 300 / 394) < 0.06 and counts[2] >= 2
    assert not np.array_equal(order, nested(codes, np.arange(394), seed=4))


def test_samples_hold_new_groups_before_second_rows_of_a_group() -> None:
    codes = np.zeros(60, dtype=np.int64)
    codes[30:] = 1
    groups = np.concatenate([np.arange(30) % 10, 10 + np.arange(30) % 10])
    order = nested(codes, groups, seed=0)
    assert len(np.unique(groups[order[:20]])) == 20


def test_a_class_of_one_group_cannot_be_asked() -> None:
    assert answerable(np.array([0, 0, 1, 1]), np.array([0, 1, 2, 2])).tolist() == [True, True, False, False]


def test_out_of_fold_answers_never_use_the_row_or_its_group() -> None:
    rng = np.random.default_rng(0)
    codes = np.arange(40) % 2
    features = telling(codes, 1.0, seed=3)
    groups = np.arange(40) // 2
    before = out_of_fold(features, codes, groups, np.ones(40), 2, 0)
    # a wild row leaves its own group's answers to the others: those are functions of the other groups
    for group in (0, 7):
        members = groups == group
        others = ~members
        flipped = codes.copy()
        flipped[members] = 1 - flipped[members]
        after = out_of_fold(features, flipped, groups, np.ones(40), 2, 0)
        assert np.array_equal(before[members].argmax(1), after[members].argmax(1))
        assert others.any()
    assert rng is not None


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "macro_f1"])
def test_influences_say_how_the_metric_moves_when_rows_are_counted_twice(metric: Metric) -> None:
    from graftwork.evaluation import measure

    rng = np.random.default_rng(0)
    truth, given = rng.integers(0, 3, 300), rng.integers(0, 3, 300)
    value, influence = influence_of(metric, truth, given, 3)
    assert value == pytest.approx(measure(metric, truth, np.eye(3)[given]))
    assert influence.sum() == pytest.approx(0.0, abs=1e-12)
    twice = np.concatenate([np.arange(300), np.arange(40)])
    moved = measure(metric, truth[twice], np.eye(3)[given[twice]])
    assert moved - value == pytest.approx(influence[:40].sum() * 300 / 340, abs=2e-3)


def a_course(answers: Mapping[int, Any], truth: Any) -> Course:
    truth = np.asarray(truth)
    rows = len(truth)
    rung = Rung(rows, {s: np.asarray(one) for s, one in answers.items()})
    return Course(truth, np.arange(rows), np.ones(rows, dtype=bool), int(truth.max()) + 1, rows, [rung])


def test_a_dropped_source_is_credited_with_the_gain_of_the_survivors() -> None:
    truth = np.zeros(20, dtype=np.int64)
    truth[1::2] = 1

    def given(rows: int, right: int) -> Any:
        return np.where(np.arange(rows) < right, truth[:rows], 1 - truth[:rows])

    small = Rung(10, {0: given(10, 5), 1: given(10, 5), 2: given(10, 4)})
    large = Rung(20, {0: given(20, 16), 1: given(20, 14)})
    course = Course(truth, np.arange(20), np.ones(20, dtype=bool), 2, 20, [small, large])
    found = [one.expected for one in estimates(course, np.zeros(3), "accuracy", 0)]
    # from 0.5 to 0.8 and 0.7: a gain of 0.25, on top of 0.4
    assert [one.value for one in found] == pytest.approx([0.8, 0.7, 0.65])
    assert found[2].high - found[2].low > found[1].high - found[1].low + 0.2


def test_no_sample_promises_that_every_answer_will_be_right() -> None:
    truth = np.arange(60) % 2
    (found,) = estimates(a_course({0: truth}, truth), np.zeros(1), "accuracy", 0)
    # the mean of Beta(60.5, 0.5)
    assert found.expected.value == pytest.approx(60.5 / 61)
    assert found.expected.high == 1.0 and found.expected.low == pytest.approx(0.94, abs=0.001)


def test_more_rows_are_expected_to_mend_half_of_the_errors_at_most() -> None:
    truth = np.arange(200) % 2
    better, worse = (np.where(np.arange(200) < wrong, 1 - truth, truth) for wrong in (10, 40))
    rungs = [Rung(100, {0: worse[:100], 1: worse[:100]}), Rung(200, {0: better, 1: better})]
    course = Course(truth, np.arange(200), np.ones(200, dtype=bool), 2, 200_000, rungs)
    found = estimates(course, np.zeros(2), "accuracy", 0)[0].expected
    assert found.value == pytest.approx(0.975)


def test_grouped_rows_count_once_in_every_interval() -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat(rng.integers(0, 2, 50), 8)
    given = {
        s: np.repeat(np.where(rng.random(50) < share, truth[::8], 1 - truth[::8]), 8)
        for s, share in ((0, 0.8), (1, 0.78))
    }
    alone = a_course(given, truth)
    together = replace(alone, groups=np.repeat(np.arange(50), 8))
    wide, narrow = (estimates(one, np.zeros(2), "accuracy", 0) for one in (together, alone))
    for grouped, single in zip(wide, narrow, strict=True):
        assert grouped.expected.high - grouped.expected.low > 2 * (single.expected.high - single.expected.low)
    assert 0.5 < wide[0].probability_best < narrow[0].probability_best


def test_the_difference_from_few_groups_is_covered_as_often_as_is_said() -> None:
    groups, covered = np.repeat(np.arange(6), 20), 0
    truth = np.arange(120) % 2
    for trial in range(150):
        rng = np.random.default_rng(trial)
        # shares of right answers differ from group to group, by 0.1 on average
        shares = np.array([[0.8], [0.7]]) + 0.1 * rng.standard_normal((2, 6))
        right = rng.random((2, 120)) < shares[:, groups]
        given = {s: np.where(right[s], truth, 1 - truth) for s in range(2)}
        _, low, high = difference(replace(a_course(given, truth), groups=groups), "accuracy", 0)
        covered += low <= 0.1 <= high
    assert covered / 150 > 0.9


def test_few_rows_are_drawn_to_what_the_scores_say_and_many_are_not() -> None:
    scores = np.array([1.5, 0.5, -0.5, -1.5])

    def expected(rows: int) -> list[float]:
        truth = np.zeros(rows, dtype=np.int64)
        truth[::2] = 1
        # rightly answered shares, source 3 by luck (or truly) far better than its scores say
        wrong = {s: round(share * rows) for s, share in enumerate((0.2, 0.25, 0.3, 0.1))}
        rng = np.random.default_rng(0)
        given = {}
        for s, count in wrong.items():
            given[s] = truth.copy()
            bad = rng.permutation(rows)[:count]
            given[s][bad] = 1 - truth[bad]
        return [one.expected.value for one in estimates(a_course(given, truth), scores, "accuracy", 0)]

    few, many = expected(20), expected(4000)
    assert many == pytest.approx([0.8, 0.75, 0.7, 0.9], abs=0.02)
    assert few[3] < 0.87 and np.mean(few) == pytest.approx(0.7875, abs=0.01)


def test_fused_scores_leave_out_those_that_widths_decide_and_those_not_all_have() -> None:
    def one(evidence: float, h_score: float, leep: bool) -> tuple[Separation, ...]:
        nothing = np.zeros(0)
        found = [Separation("evidence", evidence, nothing), Separation("h_score", h_score, nothing)]
        return (*found, *([Separation("leep", 9.0, nothing)] if leep else []))

    found = fused([one(1.0, 0.0, False), one(2.0, 50.0, True), one(3.0, -9.0, False)])
    assert found == pytest.approx([-1.2247, 0.0, 1.2247], abs=1e-3)
