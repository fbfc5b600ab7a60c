"""Paired comparison of detectors: against the definition, the bootstrap, and its own promises."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from gauntlet.registry import GauntletError
from gauntlet.results.intervals import normal_interval
from gauntlet.results.paired_tests import paired_auroc, tied_with_best
from gauntlet.results.roc_intervals import (
    auroc_interval,
    autc_interval,
    delong_variance,
    mean_auroc_interval,
    oscr_interval,
    placements,
)

RNG = np.random.default_rng(0)


def scene(n: int, m: int, gap_a: float, gap_b: float, noise: float = 1.0, rng=RNG):
    """Scores of two detectors that share much of what they see."""
    common = rng.normal(size=n), rng.normal(size=m)
    a = common[0] + noise * rng.normal(size=n), common[1] + gap_a + noise * rng.normal(size=m)
    b = common[0] + noise * rng.normal(size=n), common[1] + gap_b + noise * rng.normal(size=m)
    return (*a, *b)


def test_is_delongs_covariance_pair_by_pair():
    id_a, ood_a, id_b, ood_b = (np.round(side, 1) for side in scene(40, 30, 1.0, 0.6))

    def kernel(id_, ood):
        return (np.sign(ood[:, None] - id_[None]) + 1) / 2  # (M, N)

    a, b = kernel(id_a, ood_a), kernel(id_b, ood_b)
    of_ood, of_id = np.cov(a.mean(1), b.mean(1)), np.cov(a.mean(0), b.mean(0))
    covariance = of_ood / 30 + of_id / 40
    error = np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    found = paired_auroc(id_a, ood_a, id_b, ood_b)
    difference = a.mean() - b.mean()
    assert found.difference == pytest.approx(difference, abs=1e-12)
    assert (found.low, found.high) == pytest.approx((difference - 1.959964 * error, difference + 1.959964 * error))
    assert found.p_value == pytest.approx(2 * stats.norm.sf(abs(difference) / error), rel=1e-9)


def test_the_other_way_round_it_is_the_other_way_round():
    id_a, ood_a, id_b, ood_b = scene(50, 60, 1.0, 0.5)
    there, back = paired_auroc(id_a, ood_a, id_b, ood_b), paired_auroc(id_b, ood_b, id_a, ood_a)
    assert there.difference == -back.difference
    assert there.low == -back.high
    assert there.p_value == back.p_value


def test_a_constant_detector_leaves_the_interval_of_the_other():
    id_a, ood_a, _, _ = scene(50, 60, 1.0, 0.5)
    found = paired_auroc(id_a, ood_a, np.zeros(50), np.zeros(60))
    sides = placements(id_a, ood_a)
    expected = normal_interval(sides.of_id.mean(), delong_variance(*sides))
    assert (found.low + 0.5, found.high + 0.5) == pytest.approx(expected)


def test_pairing_is_sharper_than_two_intervals():
    id_a, ood_a, id_b, ood_b = scene(300, 300, 1.0, 0.8, noise=0.2)
    paired = paired_auroc(id_a, ood_a, id_b, ood_b)
    apart = [auroc_interval(id_a, ood_a), auroc_interval(id_b, ood_b)]
    assert paired.high - paired.low < 0.6 * np.hypot(*(high - low for low, high in apart))


def test_equal_detectors_are_told_apart_as_rarely_as_promised():
    rng = np.random.default_rng(1)
    p_values = [paired_auroc(*scene(80, 80, 1.0, 1.0, rng=rng)).p_value for _ in range(400)]
    assert np.mean(np.array(p_values) < 0.05) == pytest.approx(0.05, abs=0.03)


def test_intervals_cover_the_true_difference():
    rng = np.random.default_rng(2)
    true = stats.norm.cdf(1.2 / 2) - stats.norm.cdf(0.6 / 2)  # scores with variance 2 on each side
    hits = 0
    for _ in range(300):
        found = paired_auroc(*scene(100, 100, 1.2, 0.6, rng=rng))
        hits += found.low <= true <= found.high
    assert hits / 300 >= 0.91


class TestWithoutVariance:
    def test_two_perfect_detectors_do_not_differ(self):
        found = paired_auroc(np.zeros(20), np.ones(30), np.zeros(20), 1 + np.arange(30))
        assert (found.difference, found.p_value) == (0.0, 1.0)
        assert found.low < 0 < found.high

    def test_a_perfect_detector_differs_from_a_constant_one(self):
        found = paired_auroc(np.zeros(200), np.ones(200), np.zeros(200), np.zeros(200))
        assert found.difference == 0.5
        assert 0 < found.low < 0.5
        assert found.p_value < 1e-3

    def test_of_three_images_nothing_can_be_said(self):
        found = paired_auroc(np.zeros(3), np.ones(3), np.zeros(3), np.zeros(3))
        assert found.low < 0 < found.high
        assert found.p_value > 0.05


def test_other_images_are_one_sentence():
    with pytest.raises(GauntletError, match="one scored 3 ID and 2 OOD images, the other 4 and 2"):
        paired_auroc(np.zeros(3), np.ones(2), np.zeros(4), np.ones(2))


def test_tied_with_best_names_the_best_first_and_leaves_out_the_worse():
    id_a, ood_a, id_b, ood_b = scene(300, 300, 1.5, 1.49, noise=0.3)
    scores = {"worse": (id_a, ood_a - 1), "b": (id_b, ood_b), "a": (id_a, ood_a + 0.05)}
    assert tied_with_best(scores) == ["a", "b"]
    assert tied_with_best({}) == []


def test_the_mean_over_sets_of_one_set_is_that_set():
    id_a, ood_a, _, _ = scene(50, 60, 1.0, 0.5)
    assert mean_auroc_interval(id_a, [ood_a]) == pytest.approx(auroc_interval(id_a, ood_a))


def test_the_mean_over_sets_knows_that_they_share_the_id_images():
    rng = np.random.default_rng(3)
    id_scores, sides = rng.normal(size=60), [rng.normal(1, 1, 400), rng.normal(1.2, 1, 500)]
    low, high = mean_auroc_interval(id_scores, sides)
    draws = []
    for _ in range(1500):
        again = rng.choice(id_scores, 60)
        draws.append(np.mean([placements(again, rng.choice(side, len(side))).of_id.mean() for side in sides]))
    assert high - low == pytest.approx(2 * 1.96 * np.std(draws), rel=0.12)


def test_oscr_interval_is_aurocs_where_everything_is_right():
    id_a, ood_a, _, _ = scene(50, 60, 1.0, 0.5)
    assert oscr_interval(id_a, ood_a, np.ones(50)) == pytest.approx(auroc_interval(id_a, ood_a))


def test_an_oscr_without_a_right_image_is_0_and_nothing_is_known_of_it():
    assert oscr_interval([0.0, 1.0], [2.0], [False, False]) == (0.0, 1.0)


@pytest.mark.parametrize("which", ["oscr", "autc"])
def test_intervals_are_as_wide_as_resampling_makes_them(which):
    rng = np.random.default_rng(4)
    id_scores, ood_scores, right = rng.normal(size=200), rng.normal(1, 1, 150), rng.random(200) < 0.8

    def point(a, b, ok):
        if which == "oscr":
            return (placements(a, b).of_id * ok).mean()
        low, high = min(id_scores.min(), ood_scores.min()), max(id_scores.max(), ood_scores.max())
        return 0.5 + (a.mean() - b.mean()) / (2 * (high - low))

    draws = []
    for _ in range(1500):
        chosen = rng.integers(200, size=200)
        draws.append(point(id_scores[chosen], rng.choice(ood_scores, 150), right[chosen]))
    interval = oscr_interval(id_scores, ood_scores, right) if which == "oscr" else autc_interval(id_scores, ood_scores)
    assert interval[0] <= point(id_scores, ood_scores, right) <= interval[1]
    assert np.diff(interval)[0] == pytest.approx(2 * 1.96 * np.std(draws), rel=0.12)


def test_two_detectors_without_variance_differ_by_what_their_own_intervals_allow():
    inside, outside = np.zeros(20), np.ones(30)
    found = paired_auroc(inside, outside, outside[:20], np.zeros(30))
    (low_a, high_a), (low_b, high_b) = auroc_interval(inside, outside), auroc_interval(outside[:20], np.zeros(30))
    assert found.difference == 1
    assert (found.low, found.high) == pytest.approx((low_a - high_b, min(high_a - low_b, 1)))
