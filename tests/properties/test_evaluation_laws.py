"""Laws of scores, verdicts and folds, whatever the answers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graftwork.errors import RequestError
from graftwork.evaluation import assess, measure
from graftwork.folds import folds
from graftwork.intervals import tango, wilson
from graftwork.model import softmax
from graftwork.records import Metric
from graftwork.verdict import judge

METRICS: list[Metric] = ["accuracy", "balanced_accuracy", "macro_f1"]


@st.composite
def answers(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Truth, two models' probabilities and groups; some classes may be absent, some ties, some perfect."""
    rows, classes = draw(st.integers(1, 40)), draw(st.integers(2, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    truth = rng.integers(draw(st.integers(1, classes)), size=rows)
    strength = draw(st.sampled_from([0.0, 1.0, 3.0, 50.0]))
    pair = []
    for _ in range(2):
        logits = np.round(rng.normal(size=(rows, classes)), draw(st.integers(0, 3)))
        logits[np.arange(rows), truth] += strength
        pair.append(softmax(logits))
    return truth, *pair, rng.integers(draw(st.integers(1, rows)), size=rows)


def labels(classes: int) -> tuple[str, ...]:
    return tuple(f"label {code}" for code in range(classes))


@given(answers(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_every_interval_holds_its_value_and_is_finite(drawn, grouped: bool) -> None:
    truth, ours, _, groups = drawn
    found = assess(truth, ours, labels(ours.shape[1]), groups=groups if grouped else None)
    scores = [
        *found.scores.values(),
        *(each for one in found.classes for each in (one.recall, one.precision)),
    ]
    for score in scores:
        assert np.isfinite([score.low, score.value, score.high]).all()
        assert score.low <= score.value <= score.high
    assert sum(map(sum, found.confusion)) == sum(one.rows for one in found.calibration) == len(truth)


@given(answers(), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_the_order_of_rows_does_not_matter(drawn, random) -> None:
    truth, ours, _, _ = drawn
    order = np.array(random.sample(range(len(truth)), len(truth)))
    first = assess(truth, ours, labels(ours.shape[1]))
    other = assess(truth[order], ours[order], labels(ours.shape[1]))
    assert first.confusion == other.confusion
    assert first.classes == other.classes
    assert first.scores["calibration_error"].value == pytest.approx(other.scores["calibration_error"].value)
    for name in set(first.scores) - {"calibration_error"}:  # whose interval is resampled by position
        one, two = first.scores[name], other.scores[name]
        assert (one.low, one.value, one.high) == pytest.approx((two.low, two.value, two.high), abs=1e-9)


@given(answers(), st.sampled_from(METRICS), st.booleans())
@settings(max_examples=60, deadline=None)
def test_swapping_the_models_turns_the_difference_round(drawn, metric: Metric, grouped: bool) -> None:
    truth, ours, theirs, groups = drawn
    groups = groups if grouped else None
    one = judge(truth, ours, {"other": theirs}, metric, groups=groups)
    two = judge(truth, theirs, {"other": ours}, metric, groups=groups)
    assert one.difference == pytest.approx(-two.difference)
    assert (one.decisive.low, one.decisive.high) == pytest.approx(
        (-two.decisive.high, -two.decisive.low), abs=1e-6
    )
    turned = {"helped": "hurt", "hurt": "helped", "undecided": "undecided"}
    assert two.outcome == turned[one.outcome]


@given(answers(), st.sampled_from(METRICS))
@settings(max_examples=40, deadline=None)
def test_a_model_is_level_with_itself(drawn, metric: Metric) -> None:
    truth, ours, _, _ = drawn
    verdict = judge(truth, ours, {"itself": ours}, metric)
    assert (verdict.outcome, verdict.difference) == ("undecided", 0.0)
    assert verdict.decisive.low <= 0.0 <= verdict.decisive.high


@given(answers(), st.sampled_from(METRICS))
@settings(max_examples=40, deadline=None)
def test_another_baseline_never_makes_help_easier(drawn, metric: Metric) -> None:
    truth, ours, theirs, _ = drawn
    alone = judge(truth, ours, {"first": theirs}, metric)
    both = judge(truth, ours, {"first": theirs, "second": np.roll(theirs, 1, axis=1)}, metric)
    if both.outcome == "helped":
        assert alone.outcome == "helped"
    assert both.decisive.low <= alone.decisive.low or both.outcome == "hurt"


@given(answers(), st.sampled_from(METRICS))
@settings(max_examples=40, deadline=None)
def test_the_stated_difference_is_that_of_the_scores(drawn, metric: Metric) -> None:
    truth, ours, theirs, groups = drawn
    found = judge(truth, ours, {"other": theirs}, metric, groups=groups).difference
    assert found == pytest.approx(measure(metric, truth, ours) - measure(metric, truth, theirs))


@given(st.integers(1, 400), st.data())
def test_more_level_means_a_wider_interval(rows: int, data: st.DataObject) -> None:
    gains = data.draw(st.integers(0, rows))
    losses = data.draw(st.integers(0, rows - gains))
    for narrow, wide in (
        (wilson(gains / rows, rows, 0.9), wilson(gains / rows, rows, 0.99)),
        (tango(gains, losses, rows, 0.9), tango(gains, losses, rows, 0.99)),
    ):
        assert wide.low <= narrow.low <= narrow.high <= wide.high
    assert -1 <= tango(gains, losses, rows, 0.95).low <= (gains - losses) / rows
    assert (gains - losses) / rows <= tango(gains, losses, rows, 0.95).high <= 1


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(2, 6), st.integers(0, 1000), st.data()
)
@settings(max_examples=150, deadline=None)
def test_folds_keep_their_promises(codes: list[int], k: int, seed: int, data: st.DataObject) -> None:
    ids = data.draw(st.lists(st.integers(0, 20), min_size=len(codes), max_size=len(codes)))
    truth, groups = np.array(codes), np.array(ids)
    try:
        found = folds(truth, groups, k, seed)
    except RequestError:
        # refused only where each class lies in one group, or shares its groups with one that does
        lonely = [code for code in np.unique(truth) if len(np.unique(groups[truth == code])) == 1]
        assert lonely or len(np.unique(groups)) < 4
        return
    held_once = np.concatenate([held for _, held in found])
    assert len(held_once) == len(set(held_once))
    for train, held in found:
        assert len(held) and not np.intersect1d(train, held).size and len(train) + len(held) == len(truth)
        assert not np.intersect1d(groups[train], groups[held]).size
        assert set(truth[train]) == set(codes)
