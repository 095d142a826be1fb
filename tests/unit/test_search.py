"""What `auto` decides with: rows to choose on, the order of trials, the choice; all of it pure functions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from graftwork.rows import Rows, Texts
from graftwork.search.candidates import (
    Candidate,
    Situation,
    cheap,
    lane_of,
    trainings,
    variants,
)
from graftwork.search.halving import Lane, Step, dropped, following, measured, rescaled
from graftwork.search.judging import Answer, Truth, choose, lead, scored
from graftwork.search.validation import trial_task, validation_of
from graftwork.strategies.base import Task

EVERYTHING = (
    "auto",
    "classical",
    "contrastive",
    "full",
    "layers",
    "lora",
    "mlp",
    "partial",
    "probe",
    "scratch",
)


def a_task(codes: NDArray[np.int64], **changed: object) -> Task:
    n = len(codes)
    values: dict[str, object] = {
        "rows": Rows([str(i) for i in range(n)], {"text": Texts([str(i) for i in range(n)])}),
        "codes": codes,
        "labels": tuple(f"label {c}" for c in range(codes.max() + 1)),
        "groups": np.arange(n),
        "validation": np.zeros(n, dtype=bool),
        "weights": np.ones(n),
        "metric": "accuracy",
        "seed": 0,
    }
    return Task(**{**values, **changed})  # type: ignore[arg-type]


def answers(
    truth: NDArray[np.int64], right: NDArray[np.bool_], rank: int, sure: float = 0.9, classes: int = 3
) -> Answer:
    """Probabilities that are right on these rows, each as sure."""
    said = np.where(right, truth, (truth + 1) % classes)
    probabilities = np.full((len(truth), classes), (1 - sure) / (classes - 1))
    probabilities[np.arange(len(truth)), said] = sure
    return Answer(rank, probabilities)


def a_truth(rows: int = 300, classes: int = 3) -> Truth:
    codes = np.arange(rows) % classes
    return Truth(codes, np.arange(rows), "accuracy", classes)


# rows to choose on


def test_the_users_validation_rows_are_asked_and_nothing_else() -> None:
    validation = np.arange(60) % 3 == 0
    found = validation_of(a_task(np.arange(60) % 4 // 2, validation=validation))
    assert found.origin == "given"
    assert found.asked.tolist() == np.flatnonzero(validation).tolist()


def test_a_validation_row_whose_group_is_learnt_from_is_not_asked() -> None:
    validation, groups = np.arange(60) >= 50, np.arange(60)
    groups[55] = groups[3]
    assert 55 not in validation_of(a_task(np.arange(60) % 2, validation=validation, groups=groups)).asked


def test_a_validation_part_that_alone_holds_a_class_is_not_taken() -> None:
    codes = np.arange(60) % 2
    codes[50:] = 2
    assert validation_of(a_task(codes, validation=np.arange(60) >= 50)).origin == "folds"


def test_many_rows_hold_a_tenth_out_and_few_are_all_asked_in_turn() -> None:
    many = validation_of(a_task(np.arange(4_000) % 4))
    assert many.origin == "held out" and len(many.folds) == 1 and 360 <= len(many.asked) <= 440
    few = validation_of(a_task(np.arange(100) % 4))
    assert few.origin == "folds" and few.asked.tolist() == list(range(100))


def test_one_label_a_class_leaves_nothing_to_choose_on() -> None:
    assert validation_of(a_task(np.arange(5))).folds == ()


@pytest.mark.parametrize("strategy", ["partial", "full", "lora", "scratch"])
def test_a_training_sees_the_rows_asked_marked(strategy: str) -> None:
    task = a_task(np.arange(100) % 4)
    fold = validation_of(task).folds[0]
    part = trial_task(task, fold, strategy, 7.0)
    assert np.flatnonzero(part.validation).tolist() == fold[1].tolist() and part.seconds == 7.0


@pytest.mark.parametrize("strategy", ["probe", "mlp", "classical", "layers", "contrastive", "a stranger"])
def test_what_may_learn_from_validation_rows_never_sees_the_rows_asked(strategy: str) -> None:
    task = a_task(np.arange(100) % 4, validation=np.arange(100) < 8)
    fold = validation_of(task).folds[0]
    part = trial_task(task, fold, strategy, None)
    assert not set(part.rows.names) & {str(i) for i in fold[1]}
    assert not part.validation.any()


# the choice


def test_a_clear_lead_is_taken() -> None:
    truth = a_truth()
    right = np.arange(300) >= 60
    probe, tuned = answers(truth.codes, right, 0), answers(truth.codes, np.arange(300) >= 20, 6)
    assert choose(truth, [probe, tuned]) == 1


def test_a_lead_within_noise_goes_to_the_cheaper() -> None:
    truth = a_truth()
    right, other = np.arange(300) >= 60, np.arange(300) >= 60
    other[:12], other[280:291] = True, False  # 12 won, 11 lost
    assert choose(truth, [answers(truth.codes, right, 0), answers(truth.codes, other, 6)]) == 0


def test_among_equals_far_ahead_of_the_probe_the_cheapest_is_taken() -> None:
    truth = a_truth()
    good = np.arange(300) >= 10
    said = [
        answers(truth.codes, np.arange(300) >= 90, 0),
        *(answers(truth.codes, good, r) for r in (8, 4, 6)),
    ]
    assert choose(truth, said) == 2


def test_equal_scores_and_clearly_surer_of_the_truth_is_taken() -> None:
    truth = a_truth()
    right = np.arange(300) >= 60
    probe, surer = answers(truth.codes, right, 0), answers(truth.codes, right, 6)
    hesitant = surer.probabilities.copy()
    wrong = np.flatnonzero(~right)
    hesitant[wrong] = 0.05
    hesitant[wrong, truth.codes[wrong]], hesitant[wrong, (truth.codes[wrong] + 1) % 3] = 0.45, 0.5
    assert lead(truth, Answer(6, hesitant), probe).score == 0
    assert choose(truth, [probe, Answer(6, hesitant)]) == 1


def test_whole_groups_make_a_lead_less_sure() -> None:
    alone = a_truth()
    right, other = np.arange(300) >= 60, np.arange(300) >= 30
    said = answers(alone.codes, other, 6), answers(alone.codes, right, 0)
    together = Truth(alone.codes, np.arange(300) // 30, "accuracy", 3)
    assert lead(together, *said).score_error > 2 * lead(alone, *said).score_error


def test_answers_on_different_rows_are_compared_on_those_they_share() -> None:
    truth = a_truth()
    probe = answers(truth.codes, np.arange(300) >= 150, 0)
    tuned = answers(truth.codes, np.arange(300) >= 150, 6)
    tuned.probabilities[:150] = np.nan  # asked only where both are right
    assert scored(truth, tuned)[0] == 1.0
    assert choose(truth, [probe, tuned]) == 0


def test_a_cheap_one_within_noise_of_the_best_is_not_taken_where_the_probe_scores_higher() -> None:
    truth, row = a_truth(1000), np.arange(1000)
    probe, best = answers(truth.codes, row >= 24, 0), answers(truth.codes, row >= 20, 6)
    other = answers(truth.codes, (row < 500) | (row >= 525), 1)
    assert lead(truth, best, probe).clear and not lead(truth, best, other).clear
    assert choose(truth, [probe, other, best]) == 2


def test_beyond_half_a_point_the_log_loss_may_speak_for_a_lead_within_its_error() -> None:
    truth, row = a_truth(), np.arange(300)
    probe, better = answers(truth.codes, row >= 22, 0), answers(truth.codes, row < 280, 6)
    found = lead(truth, better, probe)
    assert 0.005 < found.score < found.score_error and 0 < found.loss < 2 * found.loss_error
    assert found.clear
    assert not lead(truth, answers(truth.codes, row < 279, 6), probe).clear  # a third of a point is a tie


def test_one_row_more_of_a_few_is_no_lead_though_the_log_loss_is_better_too() -> None:
    truth, row = a_truth(6), np.arange(6)
    probe, other = answers(truth.codes, row >= 3, 0), answers(truth.codes, row < 4, 1)
    found = lead(truth, other, probe)
    assert 0.005 < found.score < found.score_error and 0 < found.loss < 2 * found.loss_error
    assert not found.clear and choose(truth, [probe, other]) == 0


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_the_choice_never_scores_below_the_probe(data: st.DataObject) -> None:
    rows = data.draw(st.integers(20, 80))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    metric = data.draw(st.sampled_from(["accuracy", "balanced_accuracy", "macro_f1"]))
    codes = rng.integers(0, 3, rows)
    truth = Truth(codes, rng.integers(0, rows, rows), metric, 3)
    count = data.draw(st.integers(1, 6))
    said = [
        Answer(int(rng.integers(0, 9)) if i else 0, rng.dirichlet(np.ones(3), rows)) for i in range(count)
    ]
    chosen = choose(truth, said)
    assert scored(truth, said[chosen])[0] >= scored(truth, said[0])[0] - 1e-9
    assert chosen == choose(truth, said)


def test_equally_good_candidates_cost_the_probe_nothing_on_new_rows() -> None:
    """Ten candidates of one quality: whichever is taken by 100 rows, its score elsewhere is as good."""
    lost = []
    for seed in range(25):
        rng = np.random.default_rng(seed)
        truth = a_truth(1_100)
        said = [answers(truth.codes, rng.random(1_100) < 0.8, i) for i in range(10)]
        seen = Truth(truth.codes[:100], np.arange(100), "accuracy", 3)
        chosen = choose(seen, [Answer(one.rank, one.probabilities[:100]) for one in said])
        new = [float((one.probabilities[100:].argmax(1) == truth.codes[100:]).mean()) for one in said]
        lost.append(new[0] - new[chosen])
    assert np.mean(lost) < 0.005


# what is tried next


lanes_ = st.lists(
    st.builds(
        lambda cheap, fixed, training, least: Lane(cheap, fixed + training, fixed, min(least, training)),
        st.booleans(), st.floats(0, 20), st.floats(0.1, 400), st.floats(0, 60),
    ),
    min_size=1, max_size=8,
)  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(lanes_, st.floats(1, 600), st.integers(0, 1_000))
def test_steps_never_ask_for_more_time_than_is_left_and_come_to_an_end(
    lanes: list[Lane], whole: float, seed: int
) -> None:
    rng, left = np.random.default_rng(seed), whole
    for _ in range(3 * len(lanes) + 1):
        step = following(lanes, left, whole)
        if step is None:
            return
        lane = lanes[step.lane]
        assert step.seconds <= left + 1e-9 and lane.state in ("open", "looked at")
        if step.rung and lane.state == "looked at":
            for i in dropped(lanes):
                lanes[i] = Lane(False, 1, state="stopped")
        costs = None if lane.cheap else (lane.full, lane.fixed)
        left -= step.seconds
        lanes[step.lane] = measured(lane, step.rung, step.seconds, step.seconds, costs, rng.random(), 1.0)
    raise AssertionError("the search does not end")


def test_cheap_candidates_come_first_and_too_dear_ones_are_left_out() -> None:
    lanes = [Lane(False, 30, 10, 1), Lane(True, 50), Lane(True, 10)]
    assert following(lanes, 100, 100) == Step(2, 10, 0)


def test_trainings_are_looked_at_before_one_goes_on() -> None:
    lanes = [Lane(False, 110, 5, 1), Lane(False, 300, 5, 1), Lane(False, 90, 5, 1)]
    first = following(lanes, 200, 200)
    assert first is not None and first.lane == 0 and first.rung == 0
    assert first.seconds == pytest.approx(5 + 0.07 * 200)


def test_the_best_look_goes_on_with_what_is_left() -> None:
    looked = "looked at"
    lanes = [
        Lane(False, 110, 5, 1, looked, 0.8, 0.5), Lane(False, 300, 5, 1, looked, 0.9, 0.5),
        Lane(False, 90, 5, 1, looked, 0.9, 0.4),
    ]  # fmt: skip
    assert following(lanes, 120, 200) == Step(2, 90, 1)
    assert following(lanes, 60, 200) == Step(2, 60, 1)
    assert dropped(lanes) == [0]


def test_one_training_that_takes_the_whole_time_is_begun_at_once() -> None:
    lanes = [Lane(False, 260, 10, 25), Lane(False, 150, 10, 25)]
    assert following(lanes, 270, 270) == Step(0, 260, 1)


def test_a_training_that_could_say_nothing_is_not_begun() -> None:
    assert following([Lane(False, 260, 10, 25)], 30, 300) is None
    assert following([Lane(False, 260, 10, 25)], 36, 300) == Step(0, 36, 1)


def test_a_lane_learns_its_cost_from_its_pace_and_others_from_it() -> None:
    before = Lane(False, 110, 10, 4)
    after = measured(before, 0, 20, 19.5, (58, 8), 0.7, 0.9)
    assert (after.full, after.fixed, after.state) == (58, 8, "looked at")
    assert rescaled(Lane(False, 210, 10, 4), before, after) == Lane(False, 108, 8, 2)
    assert measured(before, 0, 20, 12, (58, 8), 0.7, 0.9).state == "ended"  # it stopped by itself


# candidates


def test_only_what_is_registered_and_can_be_done_is_a_candidate() -> None:
    at = Situation("image", 500, 50, blocks=8)
    assert {one.strategy for one in trainings(at, EVERYTHING)} == {"partial", "full", "scratch"}
    assert [one.strategy for one in trainings(at, ("probe", "partial"))] == ["partial", "partial"]
    fixed = Situation("image", 500, 50, blocks=0)
    assert {one.strategy for one in trainings(fixed, EVERYTHING)} == {"scratch"}
    assert [one.strategy for one in cheap(("probe", "mlp", "classical"))] == ["classical", "mlp"]


def test_what_somebody_else_registered_is_tried_last() -> None:
    at = Situation("text", 5_000, 900, blocks=6)
    assert trainings(at, (*EVERYTHING, "theirs"))[-1] == Candidate("theirs")


@pytest.mark.parametrize(
    ("at", "first"),
    [
        (Situation("text", 6_000, 3_000, 6, True), "full"),
        (Situation("text", 48, 8, 6, True), "contrastive"),
        (Situation("image", 1_800, 180, 19), "partial"),
        (Situation("text", 6_000, 3_000, 6, True, losing=True), "scratch"),
    ],
)
def test_the_first_training_follows_from_kind_and_size(at: Situation, first: str) -> None:
    assert trainings(at, EVERYTHING)[0].strategy == first


def test_costs_grow_with_what_learns() -> None:
    at = Situation("image", 1_800, 180, 19, forward_s=0.02)
    two, four, full = (
        lane_of(one, at)
        for one in (
            Candidate("partial", {"blocks": 2}),
            Candidate("partial", {"blocks": 4}),
            Candidate("full"),
        )
    )
    assert two.full < four.full < full.full and two.least < four.least < full.least


def test_the_best_trainings_neighbours_have_other_rates() -> None:
    found = variants(Candidate("partial", {"blocks": 2}), {"options": {"rate": 1e-3}})
    assert [one.settings for one in found] == [{"blocks": 2, "rate": 4e-4}, {"blocks": 2, "rate": 2.5e-3}]
    assert variants(Candidate("scratch"), {}) == []
