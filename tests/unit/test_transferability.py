"""Scores against dense computations; their nulls under shuffled labels."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from sklearn.covariance import ledoit_wolf as their_ledoit_wolf

from graftwork.spectrum import Float64, class_loadings, class_weights, factorise
from graftwork.transferability import h_score, ledoit_wolf, log_evidence, separations, shuffled, shufflings

CASES = [(50, 10, 10), (25, 60, 60), (40, 60, 7)]
"""Rows, width, rank: rows over width, width over rows, and rank below both."""


def toy(rows: int, width: int, rank: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    codes = np.arange(rows) % 3
    inner = rng.standard_normal((rows, rank))
    inner[:, :3] += 1.2 * np.eye(3)[codes]
    mixed = inner @ rng.standard_normal((rank, width)) if rank < width else inner
    return (1.0 + mixed).astype(np.float32), codes


def dense_evidence(features: NDArray[np.float32], target: Float64, signal: float, noise: float) -> float:
    """log N(P y; 0, P (signal X X' + noise I) P'), P dropping the constant vector."""
    rows = len(target)
    project = np.linalg.svd(np.ones((1, rows)))[2][1:]
    inside = project @ features.astype(np.float64)
    covariance = signal * inside @ inside.T + noise * np.eye(rows - 1)
    return float(multivariate_normal(np.zeros(rows - 1), covariance).logpdf(project @ target))


@pytest.mark.parametrize(("rows", "width", "rank"), CASES)
@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_log_evidence_is_the_best_dense_marginal_likelihood(
    rows: int, width: int, rank: int, scale: float
) -> None:
    features, codes = toy(rows, width, rank)
    features = (scale * features).astype(np.float32)
    spectrum = factorise(features)
    assert spectrum.rank == min(rank, rows - 1)
    loadings = class_loadings(spectrum, codes[None], 3)[0]
    found, _ = log_evidence(spectrum, loadings, class_weights(spectrum, codes, 3))
    for c in range(3):
        target = (codes == c).astype(np.float64)
        best = max(
            -minimize(
                lambda at, y=target: -dense_evidence(features, y, np.exp(at[0]) / scale**2, np.exp(at[1])),
                start,
                method="Nelder-Mead",
                bounds=[(-16, 4), (-15, 2)],
                options={"maxiter": 400, "xatol": 1e-6, "fatol": 1e-8},
            ).fun
            for start in ([-4.0, -2.0], [-2.0, -3.0])
        )
        assert found[c] == pytest.approx(best, abs=1e-3)


def test_log_evidence_of_a_perfect_fit_is_finite() -> None:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((20, 40)).astype(np.float32)
    spectrum = factorise(features)
    codes = (features[:, 0] > 0).astype(np.int64)
    found, strengths = log_evidence(
        spectrum, class_loadings(spectrum, codes[None], 2)[0], class_weights(spectrum, codes, 2)
    )
    assert np.isfinite(found).all() and (strengths > 0).all()


@pytest.mark.parametrize(("rows", "width", "rank"), CASES)
def test_h_score_equals_dense_matrices(rows: int, width: int, rank: int) -> None:
    features, codes = toy(rows, width, rank)
    exact = features.astype(np.float64)
    spectrum = factorise(features)
    covariance, shrinkage = their_ledoit_wolf(exact)
    assert ledoit_wolf(spectrum) == pytest.approx(shrinkage, rel=1e-6)
    means = np.stack([exact[codes == c].mean(0) for c in codes]) - exact.mean(0)
    expected = np.trace(np.linalg.solve(covariance, (1 - shrinkage) * means.T @ means / rows))
    loadings = class_loadings(spectrum, codes[None], 3)[0]
    found = h_score(spectrum, loadings, class_weights(spectrum, codes, 3), ledoit_wolf(spectrum))
    assert found == pytest.approx(expected, rel=1e-5)


def test_true_labels_stand_far_above_their_null() -> None:
    features, codes = toy(90, 20, 20)
    for score in separations(features, codes, np.arange(90), shufflings(codes, np.arange(90), 19, 0)):
        assert score.p == pytest.approx(1 / 20), score
        assert score.z > 3, score


def test_p_is_about_uniform_under_shuffled_labels() -> None:
    rng = np.random.default_rng(0)
    features, codes = toy(24, 32, 32)
    # uneven variances: else the covariance is shrunk away whole, and the H-score with it
    features *= np.logspace(0, -1, 32, dtype=np.float32)
    groups, shares = np.arange(24), np.empty((60, 4))
    for i in range(60):
        labels = rng.permutation(codes)
        scores = separations(features, labels, groups, shufflings(labels, groups, 9, i))
        shares[i] = [score.p for score in scores]
    # ten possible values, 0.1 to 1.0, each in a tenth of the labellings
    for column in shares.T:
        assert abs(column.mean() - 0.55) < 4 * 0.287 / np.sqrt(60)
        assert (column <= 0.1001).mean() < 0.1 + 4 * np.sqrt(0.09 / 60)


def test_shufflings_are_deterministic_and_scores_work_without_a_null() -> None:
    features, codes = toy(40, 10, 10)
    groups = np.arange(40)
    dealt = shufflings(codes, groups, 5, 3)
    np.testing.assert_array_equal(dealt, shufflings(codes, groups, 5, 3))
    scored = separations(features, codes, groups, dealt)
    alone = separations(features, codes, groups, [])
    assert [s.value for s in alone] == [s.value for s in scored]
    assert all(np.isnan(s.p) and np.isnan(s.z) for s in alone)


def test_constant_features_separate_nothing() -> None:
    codes, groups = np.arange(30) % 3, np.arange(30)
    scores = {
        s.name: s
        for s in separations(np.ones((30, 5), np.float32), codes, groups, shufflings(codes, groups, 5, 0))
    }
    assert scores["h_score"].value == 0.0
    assert scores["ridge"].value <= 0.0
    assert all(s.p == 1.0 for s in scores.values())


def test_labels_of_a_group_stay_together_when_shuffled() -> None:
    groups = np.repeat(np.arange(20), 3)
    codes = groups % 4
    dealt = shuffled(codes, groups, np.random.default_rng(0))
    assert (np.bincount(dealt) == np.bincount(codes)).all()
    assert (dealt.reshape(20, 3) == dealt.reshape(20, 3)[:, :1]).all()
    assert (dealt != codes).any()
