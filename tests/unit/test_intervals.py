"""Intervals against independent computations: brute-force inversion of the tests they come from."""

import numpy as np
import pytest
from scipy import stats

from graftwork.intervals import (
    corrected_t,
    effective_wilson,
    grouping,
    percentile,
    quantile,
    resampled_sums,
    share_interval,
    tango,
    variance_of_sum,
    wilson,
)


@pytest.mark.parametrize(("right", "rows"), [(0, 10), (3, 10), (10, 10), (57, 60), (318, 372)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_wilson_inverts_the_score_test(right: int, rows: int, level: float) -> None:
    shares = np.linspace(0, 1, 200_001)[1:-1]
    statistic = abs(right / rows - shares) / np.sqrt(shares * (1 - shares) / rows)
    accepted = shares[statistic <= stats.norm.ppf((1 + level) / 2)]
    assert wilson(right / rows, rows, level) == pytest.approx((accepted[0], accepted[-1]), abs=1e-5)


def accepted_differences(gains: int, losses: int, rows: int, level: float) -> tuple[float, float]:
    """Tango's test inverted by brute force: the nuisance by maximum likelihood on a grid."""
    accepted = []
    for difference in np.linspace(-1, 1, 1001)[1:-1]:
        nuisance = np.linspace(max(0.0, -difference), (1 - difference) / 2, 2001)[1:-1]
        both = 1 - 2 * nuisance - difference
        likelihood = (
            gains * np.log(nuisance + difference)
            + losses * np.log(nuisance)
            + (rows - gains - losses) * np.log(np.maximum(both, 1e-300))
        )
        share = nuisance[likelihood.argmax()]
        spread = np.sqrt(rows * (2 * share + difference * (1 - difference)))
        if abs(gains - losses - rows * difference) <= stats.norm.ppf((1 + level) / 2) * spread:
            accepted.append(difference)
    return accepted[0], accepted[-1]


@pytest.mark.parametrize("counts", [(10, 3, 50), (0, 4, 30), (5, 5, 12), (40, 8, 372), (7, 0, 9), (0, 0, 40)])
@pytest.mark.parametrize("level", [0.95])
def test_tango_inverts_the_paired_score_test(counts: tuple[int, int, int], level: float) -> None:
    assert tango(*counts, level) == pytest.approx(accepted_differences(*counts, level), abs=2.5e-3)


def test_tango_has_its_closed_forms_at_the_ends() -> None:
    assert tango(0, 0, 50, 0.95)[1] == pytest.approx(
        stats.norm.ppf(0.975) ** 2 / (50 + 1.959964**2), abs=1e-6
    )
    low, high = tango(50, 0, 50, 0.95)
    assert (low, high) == pytest.approx(((50 - 1.959964**2) / (50 + 1.959964**2), 1.0), abs=1e-5)


def test_tango_turns_round_with_the_models() -> None:
    low, high = tango(12, 5, 80, 0.95)
    assert tango(5, 12, 80, 0.95) == pytest.approx((-high, -low))


def test_corrected_t_is_nadeau_and_bengios_formula() -> None:
    differences = np.array([0.02, 0.05, 0.01, 0.04, 0.03])
    spread = np.sqrt((1 / 5 + 40 / 160) * differences.var(ddof=1))
    wanted = 0.03 + np.array([-1, 1]) * stats.t.ppf(0.975, 4) * spread
    assert corrected_t(differences, 160, 40, 0.95) == pytest.approx(tuple(wanted))
    naive = stats.t.interval(0.95, 4, loc=0.03, scale=stats.sem(differences))
    assert corrected_t(differences, 160, 40, 0.95).high > naive[1]


def test_one_fold_says_nothing() -> None:
    assert corrected_t(np.array([0.4]), 80, 20, 0.95) == (-1.0, 1.0)


def test_quantile_is_normal_or_students() -> None:
    assert quantile(0.95) == pytest.approx(stats.norm.ppf(0.975))
    assert quantile(0.9, 7) == pytest.approx(stats.t.ppf(0.95, 7))


def test_copies_of_rows_do_not_make_a_share_surer() -> None:
    right = np.random.default_rng(0).random(60) < 0.8
    copies, groups = np.repeat(right, 4), np.repeat(np.arange(60), 4)
    alone, together = wilson(right.mean(), 60, 0.95), share_interval(copies, groups, 0.95)
    assert together == pytest.approx(alone, abs=0.01)
    blind = share_interval(copies, None, 0.95)
    assert blind.high - blind.low < 0.6 * (together.high - together.low)


def test_perfect_groups_count_as_groups() -> None:
    right, groups = np.ones(40, dtype=bool), np.repeat(np.arange(8), 5)
    assert share_interval(right, groups, 0.95).low == pytest.approx(wilson(1.0, 8, 0.95, 7).low)


def test_one_group_alone_says_nothing() -> None:
    assert share_interval(np.array([True, False, True]), np.zeros(3, dtype=np.int64), 0.95) == (0.0, 1.0)


def test_effective_rows_of_equal_rows_are_the_rows() -> None:
    right = np.arange(50) < 35
    ends = effective_wilson(0.7, (right - 0.7) / 50, None, 1e9, 0.95)
    assert ends == pytest.approx(wilson(0.7, 49, 0.95))  # the unbiased variance costs one row


def test_variance_of_sum_adds_within_groups_first() -> None:
    contributions, groups = np.array([1.0, -1.0, 2.0, -2.0]), np.array([7, 7, 3, 3])
    assert variance_of_sum(contributions, groups) == (0.0, 1)
    assert variance_of_sum(contributions, None) == (pytest.approx(4 / 3 * 10), np.inf)


def test_groups_of_one_row_are_no_groups() -> None:
    assert grouping(None) is None
    assert grouping(np.array([5, 9, 2])) is None
    assert grouping(np.array([5, 9, 5])) is not None


def test_resampling_draws_whole_groups() -> None:
    columns, groups = np.array([[1.0, 0], [1, 0], [1, 0], [0, 1]]), np.array([4, 4, 4, 8])
    sums = resampled_sums(columns, groups, seed=0)
    assert set(map(tuple, sums)) == {(6.0, 0.0), (3.0, 1.0), (0.0, 2.0)}


def test_resampled_means_vary_as_theory_says() -> None:
    values = np.random.default_rng(3).normal(size=400)
    means = resampled_sums(values[:, None], None, seed=1)[:, 0] / 400
    assert means.mean() == pytest.approx(values.mean(), abs=0.01)
    assert means.std() == pytest.approx(values.std() / 20, rel=0.1)


def test_percentile_widens_for_few_observations() -> None:
    replicates = np.random.default_rng(0).normal(size=100_000)
    assert percentile(replicates, 10**6, 0.95) == pytest.approx((-1.96, 1.96), abs=0.03)
    stretched = stats.t.ppf(0.975, 9) * np.sqrt(10 / 9)
    assert percentile(replicates, 10, 0.95) == pytest.approx((-stretched, stretched), abs=0.06)
    assert percentile(replicates, 1, 0.95) == (-1.0, 1.0)
