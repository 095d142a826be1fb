"""Laws of the factorisation: what may not change the answers, and what leaving out means."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from graftwork.spectrum import Float64, LeftOut, class_loadings, factorise, held_groups, left_out
from graftwork.transferability import separations, shufflings
from graftwork.transferability.linear import coordinates, h_score, ledoit_wolf, log_evidence

Case = tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64], Float64]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Features of any shape and rank, three classes, groups, weights."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows, width = draw(st.integers(6, 30)), draw(st.integers(1, 40))
    rank = draw(st.integers(1, width))
    features = rng.standard_normal((rows, rank)) @ rng.standard_normal((rank, width))
    codes = np.concatenate([np.arange(3), rng.integers(0, 3, rows - 3)])
    groups = rng.integers(0, draw(st.integers(2, rows)), rows)
    groups[:2] = 0, 1
    return features.astype(np.float32), codes, groups, rng.uniform(0.3, 3, rows)


def answers(case: Case, strength: float = 1.0) -> LeftOut:
    features, codes, groups, weights = case
    spectrum = factorise(features, weights)
    return left_out(spectrum, codes, 3, spectrum.strengths([strength]), held_groups(spectrum, groups))


def scores(features: NDArray[np.float32], codes: NDArray[np.int64]) -> Float64:
    spectrum = factorise(features)
    marks = (codes == np.arange(3)[:, None]).astype(np.float64)
    loadings, counts = marks @ coordinates(spectrum), marks.sum(axis=1)
    evidence, _ = log_evidence(spectrum, loadings, counts)
    return np.append(evidence, h_score(spectrum, loadings, counts, ledoit_wolf(spectrum)))


def separated(
    case: Case, order: NDArray[np.int64], names: NDArray[np.int64]
) -> dict[str, tuple[float, Float64]]:
    """Scores and nulls of the rows in another order and with the classes under other numbers."""
    features, codes, groups, _ = case
    heard = np.abs(features[:, :1] * np.arange(1, 5)) % 1.0 + 0.1
    dealt = [names[labels][order] for labels in shufflings(codes, groups, 4, 0)]
    found = separations(
        features[order],
        names[codes][order],
        groups[order],
        dealt,
        source_probabilities=(heard / heard.sum(axis=1, keepdims=True))[order],
    )
    # on a line or in a plane directions coincide, and which of equals is nearest is nobody's promise
    tied = np.linalg.matrix_rank(features) < 3
    return {score.name: (score.value, score.null) for score in found if not (tied and score.name == "knn")}


@given(cases(), st.integers(0, 1000))
@settings(deadline=None, max_examples=40)
def test_neither_the_order_of_rows_nor_the_numbers_of_classes_change_a_score(case: Case, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, names = np.arange(len(case[1])), np.arange(3)
    plain = separated(case, rows, names)
    for changed in (separated(case, rng.permutation(rows), names), separated(case, rows, rng.permutation(3))):
        assert changed.keys() == plain.keys()
        for name, (value, null) in plain.items():
            np.testing.assert_allclose(changed[name][0], value, rtol=1e-3, atol=1e-3, err_msg=name)
            np.testing.assert_allclose(changed[name][1], null, rtol=1e-3, atol=1e-3, err_msg=name)


@given(cases(), st.integers(0, 1000))
@settings(deadline=None, max_examples=40)
def test_turning_the_features_changes_nothing(case: Case, seed: int) -> None:
    features, codes, groups, weights = case
    turn = np.linalg.qr(np.random.default_rng(seed).standard_normal((features.shape[1],) * 2))[0]
    turned = (features.astype(np.float64) @ turn).astype(np.float32)
    np.testing.assert_allclose(
        answers((turned, codes, groups, weights)).ridge, answers(case).ridge, atol=1e-4
    )
    np.testing.assert_allclose(scores(turned, codes), scores(features, codes), rtol=1e-2, atol=1e-2)


@given(cases(), st.integers(0, 1000))
@settings(deadline=None, max_examples=40)
def test_the_order_of_rows_changes_nothing(case: Case, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(case[1]))
    features, codes, groups, weights = (array[order] for array in case)
    moved = answers((features, codes, groups, weights))
    np.testing.assert_allclose(moved.ridge, answers(case).ridge[:, order], atol=1e-4)
    np.testing.assert_allclose(moved.discriminant, answers(case).discriminant[:, order], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(scores(features, codes), scores(case[0], case[1]), rtol=1e-3, atol=1e-3)


@given(cases(), st.floats(0.05, 50))
@settings(deadline=None, max_examples=40)
def test_leaving_out_is_literally_refitting(case: Case, ratio: float) -> None:
    features, codes, groups, weights = case
    strength = float(factorise(features, weights).strengths([ratio])[0])
    found = answers(case, ratio).ridge[0]
    for group in np.unique(groups):
        stay = groups != group
        spectrum = factorise(features[stay], weights[stay])
        slopes, bias = spectrum.linear(class_loadings(spectrum, codes[stay][None], 3)[0], strength)
        np.testing.assert_allclose(found[~stay], features[~stay] @ slopes + bias, atol=2e-4)


@given(cases())
@settings(deadline=None, max_examples=40)
def test_a_weight_of_two_is_the_row_twice(case: Case) -> None:
    features, codes, _, _ = case
    twice = np.random.default_rng(0).integers(1, 3, len(codes))
    repeated = np.repeat(np.arange(len(codes)), twice)
    weighted, literal = factorise(features, twice.astype(np.float64)), factorise(features[repeated])
    assert weighted.rank == literal.rank
    np.testing.assert_allclose(weighted.values, literal.values, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(weighted.mean, literal.mean, atol=1e-6)
