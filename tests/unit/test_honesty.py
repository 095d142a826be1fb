"""What the stated rates and levels promise, checked over many draws whose truth is known.

Pools are Gaussian classes and the models closed forms, so that hundreds of fits take a second.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from scipy.stats import multinomial

from graftwork.evaluation import assess, measure
from graftwork.folds import repeated
from graftwork.intervals import tango
from graftwork.model import softmax
from graftwork.records import Assessment, Metric
from graftwork.verdict import MARGIN, judge, judge_folds

WIDTH, CLASSES = 8, 3
LABELS = ("ant", "bee", "cat")
CENTRES = 0.9 * np.random.default_rng(0).normal(size=(CLASSES, WIDTH))
Answer = Callable[[np.ndarray], np.ndarray]


def sample(
    rows: int, rng: np.random.Generator, centres: np.ndarray = CENTRES
) -> tuple[np.ndarray, np.ndarray]:
    codes = rng.permutation(np.arange(rows) % CLASSES)
    return centres[codes] + rng.normal(size=(rows, WIDTH)), codes


def fit(features: np.ndarray, codes: np.ndarray) -> Answer:
    """Linear discriminant with a shrunken covariance: features -> probabilities."""
    means = np.stack([features[codes == code].mean(0) for code in range(CLASSES)])
    rest = features - means[codes]
    spread = 0.7 * rest.T @ rest / len(rest) + 0.3 * np.eye(features.shape[1])
    weights = np.linalg.solve(spread, means.T)
    bias = -0.5 * (means * weights.T).sum(1)
    return lambda rows: softmax(rows @ weights + bias)


def good(features: np.ndarray) -> np.ndarray:
    return features


def worse(features: np.ndarray) -> np.ndarray:
    return features[:, :3]


def covered(hits: list[bool]) -> None:
    """Of 200 draws the stated 95% interval must hold the truth in 92 to 98%."""
    assert len(hits) == 200
    assert 0.92 <= np.mean(hits) <= 0.98


POOL, POOL_CODES = sample(6_000, np.random.default_rng(1))
TRAIN, TRAIN_CODES = sample(90, np.random.default_rng(2))
OURS = fit(good(TRAIN), TRAIN_CODES)(good(POOL))
THEIRS = fit(worse(TRAIN), TRAIN_CODES)(worse(POOL))


@cache
def draws(rows: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """200 small draws from the pool, each with the rest, on which its truth is known."""
    rng = np.random.default_rng(3)
    found = []
    for _ in range(200):
        drawn = rng.choice(len(POOL), rows, replace=False)
        found.append((drawn, np.setdiff1d(np.arange(len(POOL)), drawn)))
    return found


@cache
def assessments() -> list[Assessment]:
    return [assess(POOL_CODES[drawn], OURS[drawn], LABELS) for drawn, _ in draws(120)]


@pytest.mark.parametrize("score", ["accuracy", "balanced_accuracy", "macro_f1"])
def test_intervals_of_scores_cover_the_truth(score: Metric) -> None:
    hits = []
    for (_, rest), found in zip(draws(120), assessments(), strict=True):
        truth = measure(score, POOL_CODES[rest], OURS[rest])
        hits.append(bool(found.scores[score].low <= truth <= found.scores[score].high))
    covered(hits)


@pytest.mark.parametrize("score", ["log_loss", "auroc", "calibration_error"])
def test_intervals_of_probabilities_cover_the_truth(score: str) -> None:
    truth = assess(POOL_CODES, OURS, LABELS).scores[score].value
    hits = [each.scores[score].low <= truth <= each.scores[score].high for each in assessments()]
    # a calibration error near 0 is covered nearly always: its interval begins at 0
    assert np.mean(hits) >= 0.92


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "macro_f1"])
def test_intervals_of_the_difference_cover_the_truth(metric: Metric) -> None:
    hits = []
    for drawn, rest in draws(120):
        given = {"baseline": THEIRS[drawn]}
        found = judge(POOL_CODES[drawn], OURS[drawn], given, metric).decisive
        truth = measure(metric, POOL_CODES[rest], OURS[rest]) - measure(
            metric, POOL_CODES[rest], THEIRS[rest]
        )
        hits.append(bool(found.low <= truth <= found.high))
    covered(hits)


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy"])
def test_intervals_of_grouped_rows_cover_the_truth(metric: Metric) -> None:
    rng, shares, differences = np.random.default_rng(4), [], []
    truth = measure(metric, POOL_CODES, OURS)
    difference = truth - measure(metric, POOL_CODES, THEIRS)
    for drawn, _ in draws(60):
        rows = np.repeat(drawn, rng.integers(1, 5, size=60))
        score = assess(POOL_CODES[rows], OURS[rows], LABELS, groups=rows).scores[metric]
        found = judge(POOL_CODES[rows], OURS[rows], {"baseline": THEIRS[rows]}, metric, groups=rows).decisive
        shares.append(score.low <= truth <= score.high)
        differences.append(found.low <= difference <= found.high)
    # unequal groups: the effective rows are a guess on the safe side, so there is no upper limit
    assert min(np.mean(shares), np.mean(differences)) >= 0.92


def over_folds(
    features: np.ndarray, codes: np.ndarray, seed: int, second: Answer
) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy of both procedures on every held-out part of three times five folds."""
    scores = []
    for train, held in repeated(codes, None, 5, 3, seed):
        for view in (good, second):
            answers = fit(view(features[train]), codes[train])(view(features[held]))
            scores.append(float((answers.argmax(1) == codes[held]).mean()))
    ours, theirs = np.array(scores).reshape(-1, 2).T
    return ours, theirs


def test_intervals_from_folds_cover_the_procedures_difference() -> None:
    rng, gains = np.random.default_rng(5), []
    for _ in range(400):
        features, codes = sample(48, rng)
        both = [
            fit(view(features), codes)(view(POOL[:4000])).argmax(1) == POOL_CODES[:4000]
            for view in (good, worse)
        ]
        gains.append(both[0].mean() - both[1].mean())
    truth, hits = np.mean(gains), []
    for seed in range(200):
        ours, theirs = over_folds(*sample(60, rng), seed, worse)
        found = judge_folds(ours, {"baseline": theirs}, 48, 12, "accuracy").decisive
        hits.append(bool(found.low <= truth <= found.high))
    covered(hits)


def test_with_shuffled_labels_nothing_helps() -> None:
    outcomes = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        features, codes = rng.normal(size=(200, WIDTH)), rng.integers(CLASSES, size=200)
        views = {name: view(features) for name, view in (("ours", good), ("classical", worse))}
        given = {name: fit(view[:60], codes[:60])(view[60:]) for name, view in views.items()}
        given["constant"] = np.tile(softmax(np.zeros((1, CLASSES))), (140, 1))
        outcomes.append(judge(codes[60:], given.pop("ours"), given, "accuracy").outcome)
    assert np.mean(np.array(outcomes) == "helped") <= 0.025


def test_with_shuffled_labels_nothing_helps_over_folds() -> None:
    outcomes = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        features, codes = rng.normal(size=(60, WIDTH)), rng.permutation(np.arange(60) % CLASSES)
        ours, theirs = over_folds(features, codes, seed, worse)
        outcomes.append(judge_folds(ours, {"baseline": theirs}, 48, 12, "accuracy").outcome)
    assert np.mean(np.array(outcomes) == "helped") <= 0.025


@pytest.mark.parametrize("rows", [20, 50])
@pytest.mark.parametrize("differing", [0.05, 0.1, 0.3, 0.6])
def test_two_equally_good_models_are_undecided_by_exact_count(rows: int, differing: float) -> None:
    """Every outcome of gains and losses, weighed by its probability: no sampling."""
    undecided = 0.0
    for gains in range(rows + 1):
        for losses in range(rows + 1 - gains):
            counts = [gains, losses, rows - gains - losses]
            chance = multinomial.pmf(counts, rows, [differing / 2, differing / 2, 1 - differing])
            if chance > 1e-7:
                low, high = tango(gains, losses, rows, 0.95)
                undecided += chance * (low <= MARGIN and high >= -MARGIN)
    assert undecided >= 0.95


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "macro_f1"])
@pytest.mark.parametrize("copies", [1, 3])
def test_two_equally_good_models_are_undecided(metric: Metric, copies: int) -> None:
    rng, outcomes = np.random.default_rng(6), []
    for _ in range(200):
        codes = np.repeat(rng.integers(CLASSES, size=120), copies)
        # each right on a random 90% of groups: differing answers, equal merit
        right = np.repeat(rng.random((2, 120)) < 0.9, copies, axis=1)
        said = np.where(right, codes, (codes + 1) % CLASSES)
        ours, theirs = (0.7 * np.eye(CLASSES)[each] + 0.1 for each in said)
        groups = None if copies == 1 else np.repeat(np.arange(120), copies)
        outcomes.append(judge(codes, ours, {"baseline": theirs}, metric, groups=groups).outcome)
    assert np.mean(np.array(outcomes) == "undecided") >= 0.95


def test_two_equal_procedures_are_undecided_over_folds() -> None:
    rng, outcomes = np.random.default_rng(7), []
    # two views of which neither knows more than the other
    alike = np.hstack([CENTRES[:, :4], CENTRES[:, :4]])
    for seed in range(100):
        features, codes = sample(60, rng, alike)
        scores = []
        for train, held in repeated(codes, None, 5, 3, seed):
            for view in (features[:, :4], features[:, 4:]):
                answers = fit(view[train], codes[train])(view[held])
                scores.append(float((answers.argmax(1) == codes[held]).mean()))
        ours, theirs = np.array(scores).reshape(-1, 2).T
        outcomes.append(judge_folds(ours, {"baseline": theirs}, 48, 12, "accuracy").outcome)
    assert np.mean(np.array(outcomes) == "undecided") >= 0.95


def test_a_real_gain_is_found() -> None:
    outcomes = [
        judge(POOL_CODES[drawn], OURS[drawn], {"baseline": THEIRS[drawn]}, "accuracy").outcome
        for drawn, _ in draws(120)
    ]
    assert np.mean(np.array(outcomes) == "helped") > 0.9
