"""Scores against dense computations, refits and plain loops; their nulls under shuffled labels."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.stats import chisquare
from sklearn.covariance import ledoit_wolf as their_ledoit_wolf
from sklearn.neighbors import NearestNeighbors

from graftwork.errors import RequestError
from graftwork.heads import temperature
from graftwork.spectrum import Float64, factorise
from graftwork.transferability import Separation, linear, separations, shufflings
from graftwork.transferability.leaving import asked_rows, tempered
from graftwork.transferability.linear import coordinates, h_score, ledoit_wolf, log_evidence
from graftwork.transferability.neighbours import knn, nearest
from graftwork.transferability.source_labels import leep, nce

Ints = NDArray[np.int64]
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
    """log N(P y; 0, P (signal X X' + noise I) P'), P dropping the constant vector, by Cholesky."""
    rows = len(target)
    project = np.linalg.svd(np.ones((1, rows)))[2][1:]
    inside = project @ features.astype(np.float64)
    covariance = signal * inside @ inside.T + noise * np.eye(rows - 1)
    root = np.linalg.cholesky(covariance)
    white = np.linalg.solve(root, project @ target)
    return float(-np.log(np.diag(root)).sum() - 0.5 * ((rows - 1) * np.log(2 * np.pi) + white @ white))


def best_dense_evidence(features: NDArray[np.float32], target: Float64) -> float:
    """The dense marginal likelihood at the best variances, found by a simplex from two starts."""
    size = float(((features - features.mean(0)) ** 2).sum(1).mean())
    return max(
        -float(
            minimize(
                lambda at: -dense_evidence(features, target, np.exp(at[0]) / size, np.exp(at[1])),
                start,
                method="Nelder-Mead",
                bounds=[(-16, 9), (-15, 2)],
                options={"maxiter": 600, "xatol": 1e-6, "fatol": 1e-8},
            ).fun
        )
        for start in ([-1.0, -2.0], [2.0, -3.0])
    )


def evidences(features: NDArray[np.float32], codes: Ints, classes: int) -> Float64:
    spectrum = factorise(features)
    marks = (codes == np.arange(classes)[:, None]).astype(np.float64)
    found, strengths = log_evidence(spectrum, marks @ coordinates(spectrum), marks.sum(1))
    assert (strengths > 0).all()
    return found


@pytest.mark.parametrize(("rows", "width", "rank"), CASES)
@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e4])
def test_log_evidence_is_the_best_dense_marginal_likelihood(
    rows: int, width: int, rank: int, scale: float
) -> None:
    features, codes = toy(rows, width, rank)
    features = (scale * features).astype(np.float32)
    assert factorise(features).rank == min(rank, rows - 1)
    found = evidences(features, codes, 3)
    for c in range(3):
        assert found[c] == pytest.approx(best_dense_evidence(features, 1.0 * (codes == c)), abs=1e-3)


def test_log_evidence_of_labels_without_signal_is_the_dense_one_too() -> None:
    features, codes = toy(40, 60, 60)
    dealt = np.random.default_rng(5).permutation(codes)
    found = evidences(features, dealt, 3)
    for c in range(3):
        assert found[c] == pytest.approx(best_dense_evidence(features, 1.0 * (dealt == c)), abs=1e-2)


def test_log_evidence_of_perfectly_separable_labels_is_the_dense_one_at_the_cap() -> None:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((30, 4)).astype(np.float32)
    codes = (features[:, 0] > 0).astype(np.int64)
    features[:, 0] = codes
    target = codes.astype(np.float64)
    least = float(((target - target.mean()) ** 2).sum()) / 29 / linear.SHARPEST
    best = -float(
        minimize_scalar(
            lambda at: -dense_evidence(features, target, np.exp(at), least),
            bounds=(-10, 15),
            method="bounded",
        ).fun
    )
    assert evidences(features, codes, 2)[1] == pytest.approx(best, abs=2e-2)
    wide = rng.standard_normal((20, 40)).astype(np.float32)
    assert np.isfinite(evidences(wide, (wide[:, 0] > 0).astype(np.int64), 2)).all()


def test_log_evidence_of_constant_labels_is_finite() -> None:
    features, _ = toy(20, 5, 5)
    assert np.isfinite(evidences(features, np.zeros(20, dtype=np.int64), 2)).all()


@pytest.mark.parametrize(("rows", "width", "rank"), CASES)
def test_h_score_equals_dense_matrices(rows: int, width: int, rank: int) -> None:
    features, codes = toy(rows, width, rank)
    exact = features.astype(np.float64)
    spectrum = factorise(features)
    covariance, shrinkage = their_ledoit_wolf(exact)
    assert ledoit_wolf(spectrum) == pytest.approx(shrinkage, rel=1e-6)
    means = np.stack([exact[codes == c].mean(0) for c in codes]) - exact.mean(0)
    expected = np.trace(np.linalg.solve(covariance, (1 - shrinkage) * means.T @ means / rows))
    marks = (codes == np.arange(3)[:, None]).astype(np.float64)
    found = h_score(spectrum, marks @ coordinates(spectrum), marks.sum(1), ledoit_wolf(spectrum))
    assert found == pytest.approx(expected, rel=1e-5)


def tempered_loss(logits: Float64, codes: Ints) -> float:
    """The least mean log-loss over temperatures no flatter than a twentieth of unit logits, by search."""
    lead = logits - logits.max(1, keepdims=True)
    unit = 1.0 / np.sqrt((lead**2).mean())
    doubt = 2.0 / (len(codes) + 2.0)

    def loss(log_sharpness: float, doubt: float) -> float:
        scores = np.exp(log_sharpness) * lead
        said = scores - np.log(np.exp(scores).sum(1, keepdims=True))
        truth = said[np.arange(len(codes)), codes]
        return -float(((1 - doubt) * truth + doubt * said.mean(1)).mean())

    bounds = np.log([0.05 * unit, 1e4 * unit])
    best = minimize_scalar(
        lambda at: loss(at, doubt), bounds=bounds, method="bounded", options={"xatol": 1e-9}
    )
    return loss(float(best.x), 0.0)


def refitted(
    features: NDArray[np.float32], codes: Ints, groups: Ints, strength: float, classes: int
) -> tuple[Float64, Float64]:
    """Ridge answers and discriminant logits of every row by heads fitted again without its group."""
    ridge, gaussian = np.empty((len(codes), classes)), np.empty((len(codes), classes))
    exact = features.astype(np.float64)
    for group in np.unique(groups):
        out, stay = groups == group, groups != group
        rows, target = exact[stay], np.eye(classes)[codes[stay]]
        middle, share = rows.mean(0), target.mean(0)
        penalty = strength * np.eye(rows.shape[1])
        slopes = np.linalg.solve((rows - middle).T @ (rows - middle) + penalty, (rows - middle).T @ target)
        ridge[out] = share + (exact[out] - middle) @ slopes
        counts = target.sum(0)
        means = target.T @ rows / counts[:, None]
        apart = rows - means[codes[stay]]
        covariance = (apart.T @ apart + penalty) / len(rows)
        turned = np.linalg.solve(covariance, (means - middle).T)
        bias = np.log(counts) - 0.5 * np.einsum("cd,dc->c", means - middle, turned)
        gaussian[out] = (exact[out] - middle) @ turned + bias
    return ridge, gaussian


def grouped(rows: int, kind: str) -> Ints:
    if kind == "alone":
        return np.arange(rows)
    # one large group, several of two and three, some rows alone
    return np.concatenate([np.zeros(7), np.arange(1, rows - 6) // (2 if kind == "pairs" else 3) + 1]).astype(
        int
    )


@pytest.mark.parametrize(("rows", "width", "rank"), CASES)
@pytest.mark.parametrize("kind", ["alone", "pairs", "threes"])
def test_leave_one_out_scores_equal_refitting_without_the_group(
    rows: int, width: int, rank: int, kind: str
) -> None:
    features, codes = toy(rows, width, rank)
    groups = grouped(rows, kind)
    found = {s.name: s.value for s in separations(features, codes, groups, [])}
    spectrum = factorise(features)
    marks = (codes == np.arange(3)[:, None]).astype(np.float64)
    _, strengths = log_evidence(spectrum, marks @ coordinates(spectrum), marks.sum(1))
    options = spectrum.strengths(linear.RATIOS)
    strength = float(options[np.abs(np.log(options) - np.log(strengths).mean()).argmin()])
    ridge, gaussian = refitted(features, codes, groups, strength, 3)
    spread = ((np.eye(3)[codes] - np.bincount(codes) / rows) ** 2).sum()
    assert found["ridge"] == pytest.approx(1 - ((np.eye(3)[codes] - ridge) ** 2).sum() / spread, rel=1e-5)
    assert found["log_loss"] == pytest.approx(-tempered_loss(ridge, codes), rel=1e-5)
    assert found["discriminant"] == pytest.approx(-tempered_loss(gaussian, codes), rel=1e-4)


def test_scores_in_float32_are_those_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large inputs are computed in float32: the same scores to four digits, true labels and shuffled."""
    for rows, width in ((300, 40), (90, 200)):
        features, codes = toy(rows, width, width)
        groups = np.concatenate([np.arange(rows - 20), np.repeat(np.arange(10), 2) + rows])
        dealt = shufflings(codes, groups, 3, 0)
        fine = separations(features, codes, groups, dealt)
        monkeypatch.setattr(linear, "EXACT", 0)
        for rough, exact in zip(separations(features, codes, groups, dealt), fine, strict=True):
            assert rough.value == pytest.approx(exact.value, rel=1e-4, abs=1e-5), rough.name
            np.testing.assert_allclose(rough.null, exact.null, rtol=1e-3, atol=1e-4)
        monkeypatch.undo()


def test_the_temperature_of_many_labellings_is_each_ones_own() -> None:
    rng = np.random.default_rng(0)
    codes = np.stack([rng.integers(0, 4, 60) for _ in range(3)])
    logits = 3.0 * rng.standard_normal((3, 4, 60))
    for i in range(2):  # the third has nothing to do with its labels
        logits[i, codes[i], np.arange(60)] += 4.0 * (i + 1)
    found = tempered(logits, codes, np.ones((3, 60), dtype=bool))
    for i in range(2):
        assert found[i] == pytest.approx(temperature(logits[i].T, codes[i], np.ones(60))[1], rel=1e-4)
    assert found[2] == pytest.approx(tempered_loss(logits[2].T, codes[2]), rel=1e-4)


def test_rows_whose_class_has_no_other_group_are_not_asked() -> None:
    codes = np.array([[0, 0, 1, 1, 2, 0]])
    groups = np.array([0, 0, 1, 1, 2, 3])
    np.testing.assert_array_equal(asked_rows(codes, groups, 3)[0], [True, True, False, False, False, True])
    features = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
    for score in separations(features, codes[0], groups, shufflings(codes[0], groups, 4, 0)):
        assert np.isfinite(score.value) and np.isfinite(score.null).all(), score.name


def test_a_class_without_rows_changes_nothing() -> None:
    features, codes = toy(30, 8, 8)
    plain = separations(features, codes, np.arange(30), [])
    gap = separations(features, codes + (codes > 0), np.arange(30), [])
    assert [s.value for s in gap] == pytest.approx([s.value for s in plain])


def test_rows_all_of_one_group_separate_nothing_left_out() -> None:
    features, codes = toy(30, 8, 8)
    groups = np.zeros(30, dtype=np.int64)
    found = {s.name: s for s in separations(features, codes, groups, shufflings(codes, groups, 3, 0))}
    assert found["ridge"].value == 0.0
    assert found["log_loss"].value == found["discriminant"].value == pytest.approx(-np.log(3))
    assert all(s.p == 1.0 for s in found.values())


@pytest.mark.parametrize("grouped_by", [1, 3])
def test_nearest_neighbours_equal_scikit_learns_outside_the_group(grouped_by: int) -> None:
    features, codes = toy(45, 12, 12)
    groups = np.arange(45) // grouped_by
    found = nearest(features, groups, 5)
    centred = features.astype(np.float64) - features.mean(0, dtype=np.float64)
    # one less than all, as scikit-learn wants it; a row is its own nearest
    theirs = NearestNeighbors(n_neighbors=44, metric="cosine").fit(centred).kneighbors(centred)[1]
    expected, total = np.bincount(codes) / 45, 0.0
    for i in range(45):
        others = [j for j in theirs[i] if groups[j] != groups[i]][:5]
        assert set(others) == set(found[i])
        agreeing = sum(codes[j] == codes[i] for j in others)
        total += np.log((agreeing + expected[codes[i]]) / 6.0) / 45
    assert knn(found, codes[None], 3)[0] == pytest.approx(total)


def test_rows_without_neighbours_outside_their_group_have_fewer_votes() -> None:
    features, codes = toy(9, 4, 4)
    groups = np.array([0, 0, 0, 0, 0, 0, 0, 0, 1])
    found = nearest(features, groups, 5)
    assert (np.sort(found[:8], axis=1) == [-1, -1, -1, -1, 8]).all()
    assert (found[8] >= 0).all()
    assert np.isfinite(knn(found, codes[None], 3)).all()


def answers(rows: int, known: int, seed: int = 0) -> NDArray[np.float32]:
    drawn = np.random.default_rng(seed).gamma(0.3, size=(rows, known)) + 1e-6
    return (drawn / drawn.sum(1, keepdims=True)).astype(np.float32)


def test_nce_is_the_conditional_entropy_counted_by_hand() -> None:
    probabilities, codes = answers(40, 6), np.arange(40) % 3
    source = [int(np.argmax(row)) for row in probabilities]
    total = 0.0
    for z in set(source):
        members = [codes[i] for i in range(40) if source[i] == z]
        for c in set(members):
            joint = members.count(c) / 40
            total += joint * np.log(joint / (len(members) / 40))
    assert nce(probabilities, codes[None], 3)[0] == pytest.approx(total)
    assert nce(np.eye(3, dtype=np.float32)[codes], codes[None], 3)[0] == pytest.approx(0.0)


def test_leep_is_the_expected_empirical_prediction_by_loops() -> None:
    probabilities, codes = answers(25, 5), np.arange(25) % 3
    joint = np.zeros((3, 5))
    for i in range(25):
        joint[codes[i]] += probabilities[i] / 25
    conditional = joint / joint.sum(0)
    total = 0.0
    for i in range(25):
        total += np.log(sum(conditional[codes[i], z] * probabilities[i, z] for z in range(5))) / 25
    assert leep(probabilities, codes[None], 3)[0] == pytest.approx(total, rel=1e-5)
    unheard = np.column_stack([probabilities, np.zeros(25, np.float32)])
    assert leep(unheard, codes[None], 3)[0] == pytest.approx(total, rel=1e-5)


def test_source_labels_are_scored_where_the_source_has_a_classifier() -> None:
    features, codes = toy(40, 10, 10)
    names = [s.name for s in separations(features, codes, np.arange(40), [])]
    more = [
        s.name for s in separations(features, codes, np.arange(40), [], source_probabilities=answers(40, 6))
    ]
    assert more == [*names, "nce", "leep"]


def test_features_that_are_not_finite_are_refused() -> None:
    features, codes = toy(20, 5, 5)
    features[3, 2] = np.inf
    with pytest.raises(RequestError, match="not finite"):
        separations(features, codes, np.arange(20), [])


def test_true_labels_stand_far_above_their_null() -> None:
    features, codes = toy(90, 20, 20)
    for score in separations(features, codes, np.arange(90), shufflings(codes, np.arange(90), 19, 0)):
        assert score.p == pytest.approx(1 / 20), score
        assert score.z > 2, score


@pytest.mark.parametrize(("rows", "width", "clumps"), [(24, 32, 1), (40, 8, 1), (30, 45, 2)])
def test_p_is_uniform_under_shuffled_labels(rows: int, width: int, clumps: int) -> None:
    """Ten values, 0.1 to 1.0, each as often: chi-square over many labellings, each with its own null."""
    features, codes = toy(rows, width, width)
    # uneven variances: else the covariance is shrunk away whole, and the H-score with it
    features *= np.logspace(0, -1, width, dtype=np.float32)
    groups, heard = np.arange(rows) // clumps, answers(rows, 6)
    found: dict[str, list[float]] = {}
    for i in range(200):
        labels = shufflings(codes, groups, 1, 1000 + i)[0]
        dealt = shufflings(labels, groups, 9, i)
        for score in separations(features, labels, groups, dealt, source_probabilities=heard):
            found.setdefault(score.name, []).append(score.p)
    for name, shares in found.items():
        times = np.bincount(np.round(10 * np.array(shares)).astype(int), minlength=11)[1:]
        if name in ("knn", "nce"):  # counts tie, and a tie is never taken for a gain
            assert (np.cumsum(times)[:3] <= 20 * np.arange(1, 4) + 4 * np.sqrt(18 * np.arange(1, 4))).all(), (
                name
            )
        else:
            assert chisquare(times).pvalue > 1e-4, (name, times)


def test_ties_count_as_at_least_as_good() -> None:
    score = Separation("knn", 0.5, np.array([0.5, 0.5 - 1e-12, 0.2, 0.7]))
    assert score.p == pytest.approx(4 / 5)
    assert Separation("knn", 0.5, np.full(4, 0.5)).z == 0.0


def test_scores_follow_no_scale_and_no_order_of_classes() -> None:
    features, codes = toy(60, 15, 15)
    groups = np.arange(60)
    plain = separations(features, codes, groups, [])
    for changed in (
        separations((1e3 * features).astype(np.float32), codes, groups, []),
        separations(features, (codes + 1) % 3, groups, []),
    ):
        for one, other in zip(plain, changed, strict=True):
            assert other.value == pytest.approx(one.value, rel=1e-3), one.name


def test_shufflings_are_deterministic_and_scores_work_without_a_null() -> None:
    features, codes = toy(40, 10, 10)
    groups = np.arange(40)
    dealt = shufflings(codes, groups, 5, 3)
    np.testing.assert_array_equal(dealt, shufflings(codes, groups, 5, 3))
    scored = separations(features, codes, groups, dealt)
    alone = separations(features, codes, groups, [])
    assert [s.value for s in alone] == pytest.approx([s.value for s in scored])
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
    dealt = shufflings(codes, groups, 1, 0)[0]
    assert (np.bincount(dealt) == np.bincount(codes)).all()
    assert (dealt.reshape(20, 3) == dealt.reshape(20, 3)[:, :1]).all()
    assert (dealt != codes).any()
