"""Multinomial logistic regression against scikit-learn's, and folds that keep groups whole."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

import graftwork.logistic as module
from graftwork.logistic import design, grouped_folds, linear, logistic, logits
from graftwork.spectrum import Float64, factorise


def toy(rows: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(0)
    features = (rng.standard_normal((rows, width)) * np.logspace(0, -1, width) + 1).astype(np.float32)
    scores = features[:, :3] @ rng.standard_normal((3, 4)) + 0.5 * rng.standard_normal((rows, 4))
    return features, np.asarray((scores - scores.mean(0)).argmax(1), dtype=np.int64)


def centred(scores: Float64) -> Float64:
    return np.asarray(scores - scores.mean(1, keepdims=True))


@pytest.mark.parametrize(("rows", "width"), [(150, 12), (40, 90)])
@pytest.mark.parametrize("strength", [0.1, 10.0])
def test_equals_scikit_learns_at_the_same_strength(rows: int, width: int, strength: float) -> None:
    features, codes = toy(rows, width)
    weights = np.random.default_rng(1).uniform(0.5, 2, rows)
    spectrum = factorise(features, weights)
    found = logistic(design(spectrum), codes, 4, strength, np.ones((rows, 1), bool), tolerance=1e-9)
    coefficients, bias = linear(spectrum, found[0])
    exact = features.astype(np.float64)
    theirs = LogisticRegression(C=1 / strength, tol=1e-10, max_iter=20_000).fit(exact, codes, weights)
    np.testing.assert_allclose(
        centred(exact @ coefficients + bias), centred(theirs.decision_function(exact)), atol=2e-3
    )


def test_models_of_one_run_equal_models_run_alone() -> None:
    features, codes = toy(120, 10)
    rows = design(factorise(features))
    used = np.arange(120)[:, None] % 3 != np.arange(3)
    together = logistic(rows, codes, 4, 1.0, used, tolerance=1e-8)
    for fold in range(3):
        alone = logistic(rows, codes, 4, 1.0, used[:, [fold]], tolerance=1e-8)
        np.testing.assert_allclose(together[fold], alone[0], atol=1e-4)


def test_a_start_from_a_neighbouring_strength_changes_nothing() -> None:
    features, codes = toy(120, 10)
    rows, used = design(factorise(features)), np.ones((120, 1), bool)
    start = logistic(rows, codes, 4, 3.0, used, tolerance=1e-8)
    warm = logistic(rows, codes, 4, 0.3, used, start, tolerance=1e-8)
    np.testing.assert_allclose(warm, logistic(rows, codes, 4, 0.3, used, tolerance=1e-8), atol=1e-3)


def test_rows_read_again_block_by_block_give_the_same_model(monkeypatch: pytest.MonkeyPatch) -> None:
    features, codes = toy(300, 10)
    spectrum, used = factorise(features), np.ones((300, 1), bool)
    held = logistic(design(spectrum), codes, 4, 1.0, used, tolerance=1e-6)
    monkeypatch.setattr(module, "HELD_IN_MEMORY", 0)
    monkeypatch.setattr(module, "EXACT", 0)
    read = design(spectrum)
    assert read.rows is None
    again = logistic(read, codes, 4, 1.0, used, tolerance=1e-6)
    np.testing.assert_allclose(held, again, atol=2e-3)
    weights, bias = linear(spectrum, again[0])
    everything = slice(0, 300)
    np.testing.assert_allclose(logits(read, again, everything)[:, 0], features @ weights + bias, atol=1e-4)


def test_folds_keep_groups_whole_and_classes_spread() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 80, 200)
    codes = groups % 4
    folds = grouped_folds(codes, groups, 5, seed=1)
    for group in np.unique(groups):
        assert len(set(folds[groups == group])) == 1
    table = np.array([[((folds == f) & (codes == c)).sum() for c in range(4)] for f in range(5)])
    assert table.min() >= 5
    assert (folds != grouped_folds(codes, groups, 5, seed=2)).any()


def test_two_rows_of_a_class_lie_in_two_folds() -> None:
    codes = np.repeat(np.arange(30), 2)
    folds = grouped_folds(codes, np.arange(60), 10, seed=0)
    assert all(len(set(folds[codes == c])) == 2 for c in range(30))
