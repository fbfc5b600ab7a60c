"""One covariance for all rows on the same images: against direct computation, scipy, statsmodels and by hand."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from gauntlet.registry import GauntletError
from gauntlet.results.joint import (
    Joint,
    apart,
    joint_auroc,
    joint_bootstrap,
    joint_means,
    mcnemar,
    mcnemar_interval,
)
from gauntlet.results.paired_tests import paired_auroc
from gauntlet.results.roc_intervals import auroc_interval
from gauntlet.results.samples import Confidences, Scores


def detectors(k: int, n: int, m: int, seed: int = 0, digits: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Scores (k, n) and (k, m) that share half of what they see, with ties."""
    rng = np.random.default_rng(seed)
    inside = rng.normal(size=n) + rng.normal(size=(k, n))
    outside = rng.normal(size=m) + rng.normal(size=(k, m)) + np.linspace(1, 1.5, k)[:, None]
    return inside.round(digits), outside.round(digits)


def test_the_covariance_of_aurocs_is_delongs_over_all_pairs() -> None:
    inside, outside = detectors(4, 40, 30)
    wins = (np.sign(outside[:, :, None] - inside[:, None]) + 1) / 2  # (k, M, N)
    direct = np.cov(wins.mean(2)) / 30 + np.cov(wins.mean(1)) / 40
    found = joint_auroc(inside, outside)
    np.testing.assert_allclose(found.values, wins.mean((1, 2)), atol=1e-12)
    np.testing.assert_allclose(found.images, direct, atol=1e-12)


def test_the_covariance_of_three_small_arrays_is_what_pencil_and_paper_give() -> None:
    """DeLong et al. 1988, equations 4 to 6, as R's pROC (Robin et al. 2011) implements them in ``cov``, in fractions.

    ID images 1 to 3, OOD images 1 to 2. Detector a: 1 2 5 against 4 6, b: 1 4 2 against 3 5, c: 3 3 3 against 3 4.
    """
    a_ood, a_id = [Fraction(2, 3), Fraction(1)], [Fraction(1), Fraction(1), Fraction(1, 2)]
    b_ood, b_id = [Fraction(2, 3), Fraction(1)], [Fraction(1), Fraction(1, 2), Fraction(1)]
    c_ood, c_id = [Fraction(1, 2), Fraction(1)], [Fraction(3, 4)] * 3

    def cov(x: list[Fraction], y: list[Fraction]) -> Fraction:
        n, mean_x, mean_y = len(x), sum(x) / Fraction(len(x)), sum(y) / Fraction(len(y))
        return sum(((p - mean_x) * (q - mean_y) for p, q in zip(x, y, strict=True)), Fraction(0)) / (n - 1) / n

    by_hand = [[float(cov(x, y) + cov(p, q)) for y, q in ((a_ood, a_id), (b_ood, b_id), (c_ood, c_id))]
               for x, p in ((a_ood, a_id), (b_ood, b_id), (c_ood, c_id))]  # fmt: skip
    assert by_hand[0] == [float(Fraction(1, 36) + Fraction(1, 36)), float(Fraction(1, 36) - Fraction(1, 72)), 1 / 24]
    found = joint_auroc([[1, 2, 5], [1, 4, 2], [3, 3, 3]], [[4, 6], [3, 5], [3, 4]])
    np.testing.assert_allclose(found.values, [5 / 6, 5 / 6, 3 / 4])
    np.testing.assert_allclose(found.images, by_hand, atol=1e-15)


def test_two_of_many_are_compared_as_two_alone_but_for_the_border_image() -> None:
    inside, outside = detectors(3, 200, 150, digits=8)
    alone = paired_auroc(inside[0], outside[0], inside[2], outside[2])
    together = joint_auroc(inside, outside)
    plain = Joint(together.values, together.images)
    assert plain.p_values()[0, 2] == pytest.approx(alone.p_value, rel=1e-9)
    assert together.p_values()[0, 2] >= alone.p_value


def test_versions_of_one_image_count_once() -> None:
    """Both sides of the same images: the variance is that of auroc_interval with the numbers of the images."""
    inside, outside = detectors(1, 80, 80, digits=8)
    images = np.arange(80)
    found = joint_auroc(inside, outside, images, images)
    again = joint_auroc(np.repeat(inside, 2, 1), np.repeat(outside, 2, 1), np.repeat(images, 2), np.repeat(images, 2))
    assert found.images[0, 0] == pytest.approx(again.images[0, 0], rel=1e-9)
    assert found.images[0, 0] != pytest.approx(joint_auroc(inside, outside).images[0, 0], rel=1e-3)
    assert auroc_interval(inside[0], outside[0], id_images=images, ood_images=images)[0] < found.values[0]


def test_detectors_on_other_numbers_of_images_are_refused() -> None:
    with pytest.raises(GauntletError, match="2 ID with 1 OOD images and 3 ID with 1 OOD images"):
        joint_auroc([[1, 2], [1, 2, 3]], [[3], [4]])
    with pytest.raises(GauntletError, match="finite"):
        joint_auroc([[1, np.nan]], [[3]])


@pytest.mark.parametrize("seed", range(3))
def test_shares_are_compared_by_mcnemars_exact_test(seed: int) -> None:
    mcnemars = pytest.importorskip("statsmodels.stats.contingency_tables").mcnemar
    rng = np.random.default_rng(seed)
    right = rng.random((3, 60)) < np.array([[0.9], [0.8], [0.6]])
    found = joint_means(right, shares=True).p_values()
    for i in range(3):
        for j in range(i):
            counts = [[np.sum(right[i] & right[j]), np.sum(right[i] & ~right[j])],
                      [np.sum(~right[i] & right[j]), np.sum(~right[i] & ~right[j])]]  # fmt: skip
            assert found[i, j] == found[j, i] == pytest.approx(mcnemars(counts, exact=True).pvalue)


def test_rows_that_agree_on_every_image_do_not_differ() -> None:
    assert (mcnemar(np.ones((2, 10))) == 1).all()
    assert (joint_means(np.ones((2, 10))).p_values() == 1).all()


@pytest.mark.parametrize(("only", "other"), [(6, 0), (5, 0), (9, 2), (12, 2), (3, 3)])
def test_mcnemars_interval_agrees_with_its_test(only: int, other: int) -> None:
    a = np.array([1] * only + [0] * other + [1] * 50)
    b = np.array([0] * only + [1] * other + [1] * 50)
    low, high = mcnemar_interval(a, b)
    p = stats.binomtest(only, only + other).pvalue
    assert (low > 0) == (p < 0.05)
    assert low <= (only - other) / len(a) <= high


def test_means_of_the_same_images_have_numpys_covariance_and_scipys_paired_test() -> None:
    values = np.random.default_rng(0).exponential(size=(2, 4000)) + np.array([[0.0], [0.03]])
    found = joint_means(values)
    np.testing.assert_allclose(found.images, np.cov(values) / 4000)
    assert found.p_values()[0, 1] == pytest.approx(stats.ttest_rel(*values).pvalue, abs=1e-3)


def test_several_versions_of_an_image_add_up() -> None:
    """Ten copies of every image tell no more than one."""
    values = np.random.default_rng(0).random((2, 50))
    copies, images = np.tile(values, 10), np.tile(np.arange(50), 10)
    np.testing.assert_allclose(joint_means(copies, images).images, joint_means(values).images)


def test_the_joint_bootstrap_finds_delongs_covariance() -> None:
    inside, outside = detectors(2, 150, 120)
    drawn = joint_bootstrap("auroc", [Scores(a, b) for a, b in zip(inside, outside, strict=True)], replicates=3000)
    np.testing.assert_allclose(drawn.images, joint_auroc(inside, outside).images, rtol=0.1)


def test_the_joint_bootstrap_gives_an_image_the_same_weight_in_every_row() -> None:
    rng = np.random.default_rng(0)
    confidence, right = rng.uniform(0.5, 1, 200), rng.random(200) < 0.8
    drawn = joint_bootstrap("ece", [Confidences(confidence, right)] * 2, replicates=200)
    assert np.sqrt(drawn.images[0, 0] + drawn.images[1, 1] - 2 * drawn.images[0, 1]) < 1e-9


def test_rows_that_share_nothing_are_compared_as_independent() -> None:
    found = apart([0.9, 0.8], [0.01**2, 0.02**2]).p_values()[0, 1]
    assert found == pytest.approx(2 * stats.norm.sf(0.1 / np.hypot(0.01, 0.02)))


def test_over_seeds_alone_the_test_is_students_paired() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0.9, 0.01, (2, 5)) + np.array([[0.0], [0.01]])
    joint = Joint(values.mean(1), np.zeros((2, 2)), np.cov(values) / 5, degrees=4)
    assert joint.p_values()[0, 1] == pytest.approx(stats.ttest_rel(*values).pvalue)


def test_over_unpaired_seeds_the_test_is_welchs() -> None:
    """With equal spreads Welch's degrees of freedom are those of both rows, and ours those of one: no sharper."""
    rng = np.random.default_rng(1)
    values = rng.normal(0.9, 0.01, (2, 5)) + np.array([[0.0], [0.01]])
    joint = Joint(values.mean(1), np.zeros((2, 2)), np.diag(values.var(1, ddof=1)) / 5, degrees=4)
    assert joint.p_values()[0, 1] >= stats.ttest_ind(*values, equal_var=False).pvalue
