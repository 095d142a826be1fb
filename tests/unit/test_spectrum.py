"""The factorisation against dense computations, scikit-learn and literal refitting."""

import warnings

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import RidgeCV

from graftwork.errors import RequestError
from graftwork.spectrum import (
    Float64,
    class_loadings,
    discriminant,
    factorise,
    held_groups,
    indicators,
    left_out,
)

SHAPES = [(60, 12), (30, 70)]
"""Rows over width, and width over rows."""


def toy(
    rows: int, width: int, classes: int = 3, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    codes = np.concatenate([np.arange(classes), rng.integers(0, classes, rows - classes)])
    centres = rng.standard_normal((classes, width))
    return (2 + centres[codes] + rng.standard_normal((rows, width))).astype(np.float32), codes


def ridge_by_hand(
    features: NDArray[np.float32], codes: NDArray[np.int64], weights: Float64, strength: float
) -> tuple[Float64, Float64]:
    """Weights and bias by the normal equations, the intercept not penalised."""
    rows, target = features.astype(np.float64), indicators(codes, codes.max() + 1)
    mean, middle = weights @ rows / weights.sum(), weights @ target / weights.sum()
    centred = (rows - mean) * weights[:, None]
    solved = np.linalg.solve(centred.T @ (rows - mean) + strength * np.eye(rows.shape[1]), centred.T @ target)
    return solved, middle - mean @ solved


def gaussian_by_hand(
    features: NDArray[np.float32], codes: NDArray[np.int64], weights: Float64, strength: float, classes: int
) -> tuple[Float64, Float64]:
    """Linear discriminant with covariance (within scatter + strength I) / total weight."""
    rows, counts = features.astype(np.float64), np.bincount(codes, weights, classes)
    means = np.stack([weights[codes == c] @ rows[codes == c] / counts[c] for c in range(classes)])
    apart = rows - means[codes]
    scatter = (apart * weights[:, None]).T @ apart + strength * np.eye(rows.shape[1])
    middle = weights @ rows / weights.sum()
    solved = np.linalg.solve(scatter / weights.sum(), (means - middle).T)
    bias = -0.5 * np.einsum("cd,dc->c", means - middle, solved) + np.log(counts / weights.sum())
    return solved, bias - middle @ solved


@pytest.mark.parametrize(("rows", "width"), SHAPES)
def test_factors_rebuild_the_centred_weighted_rows(rows: int, width: int) -> None:
    features, _ = toy(rows, width)
    weights = np.random.default_rng(1).uniform(0.5, 2, rows)
    spectrum = factorise(features, weights)
    everything = slice(0, rows)
    basis = spectrum.basis(everything)
    np.testing.assert_allclose(basis.T @ basis, np.eye(spectrum.rank + 1), atol=1e-9)
    np.testing.assert_allclose(
        (basis[:, :-1] * spectrum.values) @ spectrum.directions.T, spectrum.centred(everything), atol=1e-8
    )
    assert spectrum.spread == pytest.approx((spectrum.centred(everything) ** 2).sum())


@pytest.mark.parametrize(("rows", "width"), SHAPES)
def test_directions_below_the_cut_are_dropped(rows: int, width: int) -> None:
    rng = np.random.default_rng(0)
    flat = (rng.standard_normal((rows, 4)) @ rng.standard_normal((4, width))).astype(np.float32)
    assert factorise(flat).rank == 4
    assert factorise(1e-4 * flat).rank == 4
    constant = np.full((rows, width), 1e6 / 3, dtype=np.float32)
    # uneven weights: the mean is rounded, and what is left of the rows is not quite zero
    assert factorise(constant, rng.uniform(0.5, 2, rows)).rank == 0


def test_features_that_are_not_finite_are_refused() -> None:
    features, _ = toy(20, 5)
    features[3, 2] = np.nan
    with pytest.raises(RequestError, match="not finite"):
        factorise(features)


def test_a_read_only_memory_map_gives_the_same_numbers(tmp_path: pytest.TempPathFactory) -> None:
    features, codes = toy(50, 8)
    np.save(f"{tmp_path}/features.npy", features)
    mapped = np.load(f"{tmp_path}/features.npy", mmap_mode="r")
    np.testing.assert_array_equal(factorise(mapped).values, factorise(features).values)
    weights, _ = discriminant(factorise(mapped), codes, 3, 1.0)
    np.testing.assert_array_equal(weights, discriminant(factorise(features), codes, 3, 1.0)[0])


@pytest.mark.parametrize(("rows", "width"), SHAPES)
def test_ridge_path_equals_the_normal_equations(rows: int, width: int) -> None:
    features, codes = toy(rows, width)
    weights = np.random.default_rng(1).uniform(0.5, 2, rows)
    spectrum = factorise(features, weights)
    loadings = class_loadings(spectrum, codes[None], 3)[0]
    for strength in (0.3, 30.0):
        found, bias = spectrum.linear(loadings, strength)
        expected, intercept = ridge_by_hand(features, codes, weights, strength)
        np.testing.assert_allclose(found, expected, atol=1e-8)
        np.testing.assert_allclose(bias, intercept, atol=1e-8)


@pytest.mark.parametrize(("rows", "width"), SHAPES)
def test_leave_one_out_equals_scikit_learns(rows: int, width: int) -> None:
    features, codes = toy(rows, width)
    strengths = np.array([0.5, 5.0, 50.0])
    spectrum = factorise(features)
    answers = left_out(spectrum, codes, 3, strengths, held_groups(spectrum, np.arange(rows)))
    target = indicators(codes, 3)
    theirs = RidgeCV(alphas=strengths, store_cv_results=True).fit(features.astype(np.float64), target)
    np.testing.assert_allclose(
        (answers.ridge - target) ** 2, theirs.cv_results_.transpose(2, 0, 1), atol=1e-5
    )


@pytest.mark.parametrize(("rows", "width"), [*SHAPES, (60, 3)])
def test_leaving_a_group_out_equals_refitting_without_it(rows: int, width: int) -> None:
    features, codes = toy(rows, width)
    rng = np.random.default_rng(1)
    # the first eight are one group, larger than the rank where width is 3
    groups = np.where(np.arange(rows) < 8, 0, rng.integers(1, rows // 2, rows))
    weights = rng.uniform(0.5, 2, rows)
    spectrum = factorise(features, weights)
    strengths = np.array([0.5, 20.0])
    answers = left_out(spectrum, codes, 3, strengths, held_groups(spectrum, groups))
    np.testing.assert_array_equal(answers.rows, np.arange(rows))
    for group in np.unique(groups):
        out, stay = groups == group, groups != group
        for p, strength in enumerate(strengths):
            ridge, bias = ridge_by_hand(features[stay], codes[stay], weights[stay], strength)
            np.testing.assert_allclose(answers.ridge[p, out], features[out] @ ridge + bias, atol=1e-5)
            linear, offset = gaussian_by_hand(features[stay], codes[stay], weights[stay], strength, 3)
            np.testing.assert_allclose(
                answers.discriminant[p, out], features[out] @ linear + offset, rtol=1e-4, atol=1e-4
            )


def test_only_the_rows_asked_for_leave() -> None:
    features, codes = toy(40, 6)
    groups = np.arange(40) // 2
    spectrum = factorise(features)
    strengths = np.array([2.0])
    everything = left_out(spectrum, codes, 3, strengths, held_groups(spectrum, groups))
    asked = np.flatnonzero(groups % 3 == 1)
    some = left_out(spectrum, codes, 3, strengths, held_groups(spectrum, groups, asked))
    np.testing.assert_array_equal(some.rows, asked)
    np.testing.assert_allclose(some.ridge[0], everything.ridge[0, asked], atol=1e-6)
    np.testing.assert_allclose(some.discriminant[0], everything.discriminant[0, asked], atol=1e-5)


def test_a_class_that_leaves_with_its_only_group_is_not_answered() -> None:
    features, codes = toy(30, 5)
    codes = np.where(np.arange(30) == 7, 3, codes)
    spectrum = factorise(features)
    answers = left_out(spectrum, codes, 4, np.array([1.0]), held_groups(spectrum, np.arange(30)))
    assert np.isfinite(answers.discriminant).all()
    assert answers.discriminant[0, 7].argmin() == 3


@pytest.mark.parametrize(("rows", "width"), SHAPES)
@pytest.mark.parametrize("shrinkage", [0.1, 0.9])
def test_discriminant_equals_scikit_learns_shrinkage_lda(rows: int, width: int, shrinkage: float) -> None:
    features, codes = toy(rows, width)
    exact = features.astype(np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(exact, codes)
    means = np.stack([exact[codes == c].mean(0) for c in range(3)])
    scatter = float(((exact - means[codes]) ** 2).sum())
    strength = shrinkage / (1 - shrinkage) * scatter / width
    weights, bias = discriminant(factorise(features), codes, 3, strength)
    mine = (exact @ weights + bias - np.log(np.bincount(codes) / rows)) / (1 - shrinkage)
    wanted = exact @ theirs.coef_.T + theirs.intercept_ - np.log(np.bincount(codes) / rows)
    np.testing.assert_allclose(
        mine - mine.mean(1, keepdims=True), wanted - wanted.mean(1, keepdims=True), rtol=1e-5, atol=1e-5
    )


def test_strengths_follow_the_scale_of_the_features() -> None:
    features, codes = toy(50, 8)
    answers = []
    for scale in (1.0, 1e3):
        spectrum = factorise((scale * features).astype(np.float32))
        held = held_groups(spectrum, np.arange(50))
        answers.append(left_out(spectrum, codes, 3, spectrum.strengths([0.1, 1.0]), held))
    np.testing.assert_allclose(answers[0].ridge, answers[1].ridge, atol=1e-5)
    np.testing.assert_allclose(answers[0].discriminant, answers[1].discriminant, rtol=1e-4, atol=1e-4)
