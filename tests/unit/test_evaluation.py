"""Scores against scikit-learn or a literal definition; classes that are absent; answers that are refused."""

import numpy as np
import pytest
from sklearn import metrics

from graftwork.errors import RequestError
from graftwork.evaluation import assess, calibration_bins, declare_metric, measure
from graftwork.model import softmax
from graftwork.records import Metric

LABELS = ("ant", "bee", "cat", "dog")
METRICS: list[Metric] = ["accuracy", "balanced_accuracy", "macro_f1"]


def answers(rows: int, classes: int = 4, seed: int = 0, strength: float = 1.5):
    rng = np.random.default_rng(seed)
    truth = rng.integers(classes, size=rows)
    logits = rng.normal(size=(rows, classes))
    logits[np.arange(rows), truth] += strength
    return truth, softmax(logits)


def test_values_equal_scikit_learns() -> None:
    truth, probabilities = answers(300)
    scores = assess(truth, probabilities, LABELS).scores
    said = probabilities.argmax(1)
    assert scores["accuracy"].value == pytest.approx(metrics.accuracy_score(truth, said))
    assert scores["balanced_accuracy"].value == pytest.approx(metrics.balanced_accuracy_score(truth, said))
    assert scores["macro_f1"].value == pytest.approx(metrics.f1_score(truth, said, average="macro"))
    assert scores["log_loss"].value == pytest.approx(metrics.log_loss(truth, probabilities))
    assert scores["auroc"].value == pytest.approx(
        metrics.roc_auc_score(truth, probabilities, multi_class="ovr", average="macro")
    )


def test_ties_count_half_in_auroc() -> None:
    truth, probabilities = answers(200, 2)
    rounded = np.round(probabilities[:, 1], 1)
    scores = assess(truth, np.stack([1 - rounded, rounded], axis=1), ("no", "yes")).scores
    assert scores["auroc"].value == pytest.approx(metrics.roc_auc_score(truth, rounded))


def test_classes_and_confusion_equal_scikit_learns() -> None:
    truth, probabilities = answers(300, seed=1)
    found = assess(truth, probabilities, LABELS)
    said = probabilities.argmax(1)
    precision, recall, f1, rows = metrics.precision_recall_fscore_support(truth, said)
    assert found.confusion == tuple(map(tuple, metrics.confusion_matrix(truth, said)))
    for code, each in enumerate(found.classes):
        assert (each.label, each.rows) == (LABELS[code], rows[code])
        assert each.precision.value == pytest.approx(precision[code])
        assert each.recall.value == pytest.approx(recall[code])
        assert each.f1 == pytest.approx(f1[code])
        assert each.precision.rows == (said == code).sum()


@pytest.mark.parametrize("metric", METRICS)
def test_measure_gives_what_assess_gives(metric: Metric) -> None:
    truth, probabilities = answers(150, seed=2)
    assert measure(metric, truth, probabilities) == assess(truth, probabilities, LABELS).scores[metric].value


def test_calibration_error_is_its_literal_definition() -> None:
    truth, probabilities = answers(1000, seed=3, strength=0.5)
    order = np.argsort(probabilities.max(1))
    total = 0.0
    for part in np.array_split(order, 10):
        right = (probabilities[part].argmax(1) == truth[part]).astype(float)
        gap = probabilities[part].max(1).mean() - right.mean()
        total += len(part) / 1000 * (gap**2 - right.mean() * (1 - right.mean()) / (len(part) - 1))
    found = assess(truth, probabilities, LABELS).scores["calibration_error"]
    assert total > 0
    assert found.value == pytest.approx(np.sqrt(total))


def test_calibration_error_of_calibrated_answers_is_near_zero() -> None:
    rng = np.random.default_rng(4)
    probabilities = softmax(2 * rng.normal(size=(3000, 4)))
    truth = (rng.random(3000)[:, None] > probabilities.cumsum(1)).sum(1)
    score = assess(truth, probabilities, LABELS).scores["calibration_error"]
    assert score.value < 0.02
    assert score.low == 0.0


def test_bins_hold_equal_mass_and_every_row() -> None:
    truth, probabilities = answers(500)
    bins = calibration_bins(truth, probabilities)
    assert [each.rows for each in bins] == [50] * 10
    assert [each.confidence for each in bins] == sorted(each.confidence for each in bins)


def test_equal_confidences_share_one_bin() -> None:
    probabilities = np.tile([0.7, 0.1, 0.1, 0.1], (40, 1))
    (only,) = calibration_bins(np.repeat(np.arange(4), 10), probabilities)
    assert (only.rows, only.confidence, only.accuracy) == (40, pytest.approx(0.7), 0.25)


def test_a_class_absent_from_the_truth_has_no_say_in_means() -> None:
    truth, probabilities = answers(200, 3, seed=5)
    wide = np.hstack([probabilities * 0.99, np.full((200, 1), 0.01)])
    without, found = assess(truth, probabilities, LABELS[:3]), assess(truth, wide, LABELS)
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "auroc"):
        assert found.scores[name].value == pytest.approx(without.scores[name].value)
    for metric in METRICS:
        assert measure(metric, truth, wide) == pytest.approx(found.scores[metric].value)
    dog = found.classes[3]
    assert (dog.rows, dog.recall.value, dog.recall.low, dog.recall.high, dog.f1) == (0, 0.0, 0.0, 1.0, 0.0)
    assert (dog.precision.rows, dog.precision.low, dog.precision.high) == (0, 0.0, 1.0)


def test_one_class_alone_has_no_auroc() -> None:
    _, probabilities = answers(30)
    assert "auroc" not in assess(np.zeros(30, dtype=np.int64), probabilities, LABELS).scores


def test_every_interval_holds_its_value() -> None:
    truth, probabilities = answers(80, seed=6, strength=3)
    groups = np.arange(80) // 2
    for found in (assess(truth, probabilities, LABELS), assess(truth, probabilities, LABELS, groups=groups)):
        for score in found.scores.values():
            assert score.low <= score.value <= score.high
            assert score.low < score.high
            assert score.rows == 80


def test_perfect_answers_are_not_called_certain() -> None:
    truth = np.repeat(np.arange(4), 5)
    found = assess(truth, np.eye(4)[truth], LABELS).scores
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "auroc"):
        assert found[name].value == found[name].high == 1.0
        assert 0.7 < found[name].low < 0.95


def test_copies_of_rows_do_not_narrow_any_interval() -> None:
    truth, probabilities = answers(120, seed=7)
    alone = assess(truth, probabilities, LABELS).scores
    copies = np.repeat(np.arange(120), 5)
    together = assess(truth[copies], probabilities[copies], LABELS, groups=copies).scores
    for name, score in alone.items():
        assert together[name].high - together[name].low > 0.85 * (score.high - score.low), name


def test_copies_of_rows_do_not_look_like_miscalibration() -> None:
    truth, probabilities = answers(120, seed=7)
    alone = assess(truth, probabilities, LABELS).scores["calibration_error"].value
    copies = np.repeat(np.arange(120), 5)
    together = assess(truth[copies], probabilities[copies], LABELS, groups=copies).scores["calibration_error"]
    assert together.value == pytest.approx(alone, abs=0.02)
    assert (
        assess(truth[copies], probabilities[copies], LABELS).scores["calibration_error"].value > alone + 0.05
    )


def test_a_single_row_can_be_assessed() -> None:
    scores = assess(np.array([1]), np.array([[0.2, 0.8]]), ("no", "yes")).scores
    assert (scores["accuracy"].value, scores["accuracy"].high) == (1.0, 1.0)
    assert scores["log_loss"].low < scores["log_loss"].value < scores["log_loss"].high
    assert (scores["calibration_error"].low, scores["calibration_error"].high) == (0.0, 1.0)


def test_a_probability_of_zero_leaves_the_loss_finite() -> None:
    probabilities = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    score = assess(np.array([0, 1, 1]), probabilities, ("no", "yes")).scores["log_loss"]
    assert np.isfinite([score.value, score.low, score.high]).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t, p: (t, np.where(np.arange(4) == 2, np.nan, p)), "no finite probabilities"),
        (lambda t, p: (t, 2 * p), "apply softmax"),
        (lambda t, p: (t, p - 0.5), "apply softmax"),
        (lambda t, p: (t, p[:, :3]), "one column a label"),
        (lambda t, p: (t, p[:-1]), "one column a label"),
        (lambda t, p: (t - 1, p), "unlabelled rows"),
        (lambda t, p: (t[:0], p[:0]), "no labelled rows"),
    ],
)
def test_unfit_answers_are_refused_with_the_reason(change, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        assess(*change(*answers(20)), LABELS)


@pytest.mark.parametrize(
    ("counts", "metric"),
    [
        ([50, 50], "accuracy"),
        ([67, 33], "accuracy"),
        ([75, 25], "balanced_accuracy"),
        ([86, 1162, 1250, 1223, 835, 896], "accuracy"),
        ([500, 100, 50, 20], "balanced_accuracy"),
        ([7], "accuracy"),
    ],
)
def test_the_declared_metric_follows_the_balance_of_classes(counts: list[int], metric: str) -> None:
    codes = np.repeat(np.arange(len(counts)), counts)
    assert declare_metric(codes) == metric
    assert declare_metric(np.append(codes, [-1] * 500)) == metric
