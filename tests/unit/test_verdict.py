"""The verdict's one rule, its words, and what it refuses."""

import numpy as np
import pytest

from graftwork.errors import RequestError
from graftwork.intervals import corrected_t, tango
from graftwork.verdict import in_words, judge, judge_folds

TRUTH = np.arange(200) % 2


def saying(wrong: slice | list[int]) -> np.ndarray:
    """Probabilities that are right on all rows but `wrong`."""
    said = TRUTH.copy()
    said[wrong] = 1 - said[wrong]
    return np.eye(2)[said] * 0.8 + 0.1


def test_helped_needs_the_lower_bound_above_the_margin() -> None:
    ours, theirs = saying(slice(0, 10)), saying(slice(0, 40))
    verdict = judge(TRUTH, ours, {"classical": theirs}, "accuracy")
    assert verdict.outcome == "helped"
    assert verdict.difference == pytest.approx(0.15)
    assert (verdict.decisive.low, verdict.decisive.high) == pytest.approx(tango(30, 0, 200, 0.95))
    low = verdict.decisive.low
    assert judge(TRUTH, ours, {"classical": theirs}, "accuracy", margin=low - 1e-6).outcome == "helped"
    assert judge(TRUTH, ours, {"classical": theirs}, "accuracy", margin=low + 1e-6).outcome == "undecided"


def test_hurt_needs_the_upper_bound_below_minus_the_margin() -> None:
    ours, theirs = saying(slice(0, 40)), saying(slice(0, 10))
    verdict = judge(TRUTH, ours, {"classical": theirs}, "accuracy")
    assert verdict.outcome == "hurt"
    assert judge(TRUTH, ours, {"c": theirs}, "accuracy", margin=-verdict.decisive.high).outcome == "undecided"


def test_level_is_undecided() -> None:
    verdict = judge(TRUTH, saying(slice(0, 20)), {"classical": saying(slice(10, 30))}, "accuracy")
    assert (verdict.outcome, verdict.difference, verdict.about) == ("undecided", 0.0, "this model")


def test_help_must_hold_against_every_baseline() -> None:
    ours, weak, strong = saying(slice(0, 10)), saying(slice(0, 60)), saying(slice(5, 17))
    verdict = judge(TRUTH, ours, {"weak": weak, "strong": strong}, "accuracy")
    assert verdict.outcome == "undecided"
    assert verdict.decisive.baseline == "strong"
    assert [each.baseline for each in verdict.comparisons] == ["weak", "strong"]
    assert judge(TRUTH, ours, {"weak": weak}, "accuracy").outcome == "helped"


def test_hurt_by_one_of_several_is_judged_at_a_share_of_alpha() -> None:
    # losses chosen so that the plain 95% bound is below minus the margin and the halved alpha's is not
    ours, theirs, weak = saying(slice(0, 8)), saying(slice(0, 1)), saying(slice(0, 90))
    plain, shared = tango(0, 7, 200, 0.95).high, tango(0, 7, 200, 0.975).high
    margin = -(plain + shared) / 2
    assert judge(TRUTH, ours, {"strong": theirs}, "accuracy", margin=margin).outcome == "hurt"
    both = judge(TRUTH, ours, {"strong": theirs, "weak": weak}, "accuracy", margin=margin)
    assert both.outcome == "undecided"
    clear = judge(TRUTH, saying(slice(0, 60)), {"strong": theirs, "weak": weak}, "accuracy")
    assert (clear.outcome, clear.decisive.baseline) == ("hurt", "strong")


def test_copies_of_rows_do_not_decide() -> None:
    ours, theirs = saying(slice(0, 8)), saying(slice(0, 12))
    copies = np.repeat(np.arange(200), 8)
    blind = judge(TRUTH[copies], ours[copies], {"c": theirs[copies]}, "accuracy")
    grouped = judge(TRUTH[copies], ours[copies], {"c": theirs[copies]}, "accuracy", groups=copies)
    assert (blind.outcome, grouped.outcome) == ("helped", "undecided")
    plain = judge(TRUTH, ours, {"c": theirs}, "accuracy").decisive
    assert grouped.decisive.difference == pytest.approx(plain.difference)
    assert grouped.decisive.high - grouped.decisive.low > 0.75 * (plain.high - plain.low)


def test_balanced_accuracy_weighs_classes_alike() -> None:
    truth = np.repeat([0, 1], [180, 20])
    constant = np.tile([0.9, 0.1], (200, 1))
    ours = np.eye(2)[truth] * 0.8 + 0.1
    ours[:20] = [0.1, 0.9]
    verdict = judge(truth, ours, {"classical": constant}, "balanced_accuracy")
    assert verdict.outcome == "helped"
    assert verdict.difference == pytest.approx((160 / 180 + 1) / 2 - 0.5)
    assert judge(truth, ours, {"classical": constant}, "accuracy").outcome == "undecided"


def test_bootstrap_verdicts_repeat_with_their_seed() -> None:
    ours, theirs = saying(slice(0, 10)), saying(slice(0, 40))
    first, again = (judge(TRUTH, ours, {"c": theirs}, "macro_f1", seed=3) for _ in range(2))
    assert first == again


def test_folds_use_the_corrected_interval() -> None:
    ours = np.array([0.90, 0.84, 0.88, 0.86, 0.92, 0.85, 0.89, 0.87, 0.91, 0.88])
    theirs = ours - np.array([0.10, 0.16, 0.12, 0.05, 0.15, 0.11, 0.13, 0.08, 0.14, 0.06])
    verdict = judge_folds(ours, {"classical": theirs}, 80, 20, "accuracy")
    wanted = corrected_t(ours - theirs, 80, 20, 0.95)
    assert verdict.decisive.low == pytest.approx(wanted.low)
    assert (verdict.outcome, verdict.about, verdict.rows) == ("helped", "the procedure", 100)


def test_folds_that_agree_by_luck_are_not_called_certain() -> None:
    verdict = judge_folds(np.ones(5), {"c": np.full(5, 0.9)}, 8, 2, "accuracy")
    assert verdict.outcome == "undecided"
    assert verdict.decisive.low <= tango(1, 0, 10, 0.95).low


def test_scores_of_unequal_folds_are_refused() -> None:
    with pytest.raises(RequestError, match="same two or more folds"):
        judge_folds(np.ones(5), {"c": np.ones(4)}, 80, 20, "accuracy")
    with pytest.raises(RequestError, match="same two or more folds"):
        judge_folds(np.ones(1), {"c": np.ones(1)}, 80, 20, "accuracy")


def test_no_baseline_no_verdict() -> None:
    with pytest.raises(RequestError, match="without transfer"):
        judge(TRUTH, saying([]), {}, "accuracy")


def test_a_baseline_that_is_not_finite_is_refused() -> None:
    with pytest.raises(RequestError, match="no finite probabilities"):
        judge(TRUTH, saying([]), {"c": np.full((200, 2), np.nan)}, "accuracy")


def test_words_say_what_came_out() -> None:
    ours, theirs = saying(slice(0, 10)), saying(slice(0, 40))
    helped = in_words(judge(TRUTH, ours, {"classical": theirs, "scratch": saying(slice(0, 80))}, "accuracy"))
    assert helped.startswith(
        "Transfer helped: 15.0 points more accuracy than the best model without it (classical), 95% interval"
    )
    assert helped.endswith(", on 200 test rows")
    hurt = in_words(judge(TRUTH, theirs, {"classical": ours}, "accuracy", caution="seen before"))
    assert hurt.startswith("Transfer hurt: 15.0 points less accuracy than the model without it (classical)")
    assert "better choice" in hurt and hurt.endswith("Caution: seen before")
    level = in_words(judge(TRUTH, ours, {"classical": saying(slice(5, 15))}, "macro_f1"))
    assert level.startswith("Undecided: ") and "macro F1" in level
    folds = in_words(judge_folds(np.full(5, 0.9), {"c": np.full(5, 0.5)}, 1200, 300, "balanced_accuracy"))
    assert "balanced accuracy" in folds and folds.endswith("on repeated folds of 1,500 rows")
