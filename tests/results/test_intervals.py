"""Intervals against scipy, against a direct computation, and against the coverage that they promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special, stats
from sklearn.metrics import roc_auc_score

from gauntlet.registry import GauntletError
from gauntlet.results import auroc_interval, mean_interval, median_interval, proportion_interval
from gauntlet.results.intervals import gap_interval
from gauntlet.results.roc_intervals import area_interval

SCORES = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=12)


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (0, 10), (3, 10), (10, 10), (997, 1000), (5000, 10000)])
def test_a_proportion_has_scipys_exact_interval(successes: int, n: int, level: float) -> None:
    exact = stats.binomtest(successes, n).proportion_ci(level, method="exact")
    np.testing.assert_allclose(proportion_interval(successes, n, level), (exact.low, exact.high), rtol=1e-9, atol=1e-12)


@given(n=st.integers(1, 10**6), share=st.floats(0, 1))
def test_a_proportions_interval_holds_the_point_and_has_width(n: int, share: float) -> None:
    low, high = proportion_interval(share * n, n)
    assert 0 <= low <= share * n / n <= high <= 1
    assert high - low > 0


def test_without_trials_nothing_is_known() -> None:
    assert proportion_interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("successes", [-1, 11, float("nan")])
def test_impossible_successes_are_refused(successes: float) -> None:
    with pytest.raises(GauntletError, match="successes between 0 and n = 10"):
        proportion_interval(successes, 10)


@pytest.mark.parametrize(("p", "n"), [(0.5, 30), (0.95, 60), (0.99, 200)])
def test_a_proportions_interval_covers_at_least_as_promised(p: float, n: int) -> None:
    """Summed over all outcomes, not simulated: exact intervals never cover less than they say."""
    k = np.arange(n + 1)
    bounds = np.array([proportion_interval(i, n) for i in k])
    covered = (bounds[:, 0] <= p) & (p <= bounds[:, 1])
    assert stats.binom.pmf(k, n, p)[covered].sum() >= 0.95


def direct_delong(id_scores: np.ndarray, ood_scores: np.ndarray) -> tuple[float, float]:
    """AUROC and its variance straight from DeLong et al. 1988, over all pairs."""
    pairs = (ood_scores[:, None] > id_scores) + 0.5 * (ood_scores[:, None] == id_scores)
    by_ood, by_id = pairs.mean(1), pairs.mean(0)
    return pairs.mean(), by_ood.var(ddof=1) / len(ood_scores) + by_id.var(ddof=1) / len(id_scores)


@pytest.mark.parametrize("digits", [0, 1, 8])
def test_the_auroc_interval_is_delongs_on_the_logit_scale(digits: int) -> None:
    """With many ties (rounded to whole numbers), some, and none."""
    rng = np.random.default_rng(digits)
    id_scores, ood_scores = rng.normal(0, 1, 150).round(digits), rng.normal(1, 2, 90).round(digits)
    auroc, variance = direct_delong(id_scores, ood_scores)
    low, high = special.logit(auroc_interval(id_scores, ood_scores))
    assert (low + high) / 2 == pytest.approx(special.logit(auroc), abs=1e-12)
    half = stats.norm.ppf(0.975) * np.sqrt(variance) / (auroc * (1 - auroc))
    assert (high - low) / 2 == pytest.approx(half, rel=1e-12)


@pytest.mark.parametrize(("area", "n", "m"), [(0.9, 40, 60), (0.99, 50, 1000), (0.05, 30, 30)])
def test_where_few_images_decide_the_interval_takes_in_newcombes_score_interval(area: float, n: int, m: int) -> None:
    """Newcombe 2006, method 5, solved by scipy: |true - area| = 1.96 standard errors at the true area."""

    def excess(true: float) -> float:
        more = (n + m) / 2 - 1
        variance = true * (1 - true) * (1 + more * (1 - true) / (2 - true) + more * true / (1 + true)) / (n * m)
        return abs(true - area) - stats.norm.ppf(0.975) * np.sqrt(variance)

    ends = optimize.brentq(excess, 1e-9, area), optimize.brentq(excess, area, 1 - 1e-9)
    assert area_interval(area, 1e-12, (n, m)) == pytest.approx(ends, abs=1e-9)


def test_a_saturated_model_has_the_gap_interval_of_its_accuracy() -> None:
    """All right and all certain: a gap of 0, and at most what the exact bound of 50 right images leaves."""
    assert gap_interval(np.ones(50), np.ones(50)) == pytest.approx((0.0, 1 - proportion_interval(50, 50)[0]))


@settings(deadline=None)
@given(id_scores=SCORES, ood_scores=SCORES)
def test_the_auroc_interval_holds_the_point_and_has_width(id_scores: list[float], ood_scores: list[float]) -> None:
    labels = [0] * len(id_scores) + [1] * len(ood_scores)
    auroc = roc_auc_score(labels, id_scores + ood_scores)
    low, high = auroc_interval(id_scores, ood_scores)
    assert 0 <= low <= auroc + 1e-12
    assert auroc - 1e-12 <= high <= 1
    assert high - low > 1e-3


@pytest.mark.parametrize(
    ("id_scores", "ood_scores", "auroc"),
    [(np.zeros(40), np.ones(25), 1.0), (np.ones(25), np.zeros(40), 0.0), (np.ones(30), np.ones(25), 0.5)],
)
def test_where_the_variance_is_zero_the_exact_bound_of_pairs_stands_in(
    id_scores: np.ndarray, ood_scores: np.ndarray, auroc: float
) -> None:
    assert auroc_interval(id_scores, ood_scores) == proportion_interval(auroc * 25, 25)


def test_images_that_all_differ_have_delongs_interval() -> None:
    rng = np.random.default_rng(0)
    inside, outside = rng.normal(size=400), rng.normal(1, 1, 300)
    plain = auroc_interval(inside, outside)
    numbered = auroc_interval(inside, outside, id_images=np.arange(400), ood_images=400 + np.arange(300))
    assert numbered == pytest.approx(plain, abs=2e-4)  # n - 1 is taken of all images, not of each side


@pytest.mark.parametrize("correlation", [-0.8, 0.0, 0.8])
def test_the_auroc_interval_of_two_versions_of_each_image_covers_as_promised(correlation: float) -> None:
    """Which DeLong's, for independent sides, does not: it covers all or too little."""
    rng, covered, trials = np.random.default_rng(1), 0, 400
    truth = stats.norm.cdf(1 / np.sqrt(2))
    for _ in range(trials):
        both = rng.multivariate_normal([0, 1], [[1, correlation], [correlation, 1]], 200)
        low, high = auroc_interval(*both.T, id_images=np.arange(200), ood_images=np.arange(200))
        covered += low <= truth <= high
    assert stats.binomtest(covered, trials, 0.95).pvalue > 1e-3


def test_the_auroc_interval_covers_as_promised() -> None:
    rng = np.random.default_rng(0)
    true = stats.norm.cdf(1 / np.sqrt(2))
    hits = 0
    for _ in range(1000):
        low, high = auroc_interval(rng.normal(0, 1, 100), rng.normal(1, 1, 80))
        hits += low <= true <= high
    assert 0.93 <= hits / 1000 <= 0.97


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_scores_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(GauntletError, match="finite OOD scores"):
        auroc_interval([1.0], [0.0, bad])


def test_no_scores_are_refused() -> None:
    with pytest.raises(GauntletError, match="at least one of the ID scores"):
        auroc_interval([], [1.0])


def test_a_mean_has_scipys_t_interval() -> None:
    values = np.random.default_rng(0).exponential(size=40)
    expected = stats.t.interval(0.95, 39, values.mean(), stats.sem(values))
    np.testing.assert_allclose(mean_interval(values), expected, rtol=1e-12)


def test_a_single_value_has_no_interval_of_its_mean() -> None:
    assert np.isnan(mean_interval([3.0])).all()


@pytest.mark.parametrize("n", [6, 7, 25, 100, 101])
def test_the_medians_interval_is_the_tightest_pair_of_order_statistics(n: int) -> None:
    values = np.random.default_rng(n).permutation(n).astype(float)  # value = rank - 1
    low, high = median_interval(values)
    coverage = [stats.binom.cdf(n - 1 - r, n, 0.5) - stats.binom.cdf(r, n, 0.5) for r in (low, low + 1)]
    assert high == n - 1 - low
    assert coverage[0] >= 0.95 > coverage[1]


def test_the_median_of_few_values_has_the_quantitys_own_bounds() -> None:
    assert median_interval([1.0, 2.0], low=0.0) == (0.0, np.inf)
    assert median_interval([]) == (-np.inf, np.inf)


def test_infinite_values_bound_the_median_from_above() -> None:
    assert median_interval([1.0] * 6 + [np.inf] * 6) == (1.0, np.inf)


def test_nan_among_the_medians_values_is_refused() -> None:
    with pytest.raises(GauntletError, match="got NaN"):
        median_interval([1.0, float("nan")])
