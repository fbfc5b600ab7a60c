"""Many comparisons at once: Holm, rank sets and letters, against statsmodels, brute force and simulation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gauntlet.results.joint import Joint, apart, joint_auroc, joint_means
from gauntlet.results.multiple import holm, letters, rank_sets, shown_above, worse_than_best


@given(p_values=st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_that_of_statsmodels(p_values: list[float]) -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    np.testing.assert_allclose(holm(np.array(p_values)), multitest.multipletests(p_values, method="holm")[1])


def brute_force_ranks(shown: np.ndarray) -> list[tuple[int, int]]:
    """Least and largest rank of each row over all orders that contradict nothing that is shown."""
    k = len(shown)
    orders = [order for order in itertools.permutations(range(k))
              if not any(shown[order[j], order[i]] for i in range(k) for j in range(i + 1, k))]  # fmt: skip
    return [(min(o.index(row) for o in orders) + 1, max(o.index(row) for o in orders) + 1) for row in range(k)]


@settings(deadline=None, max_examples=60)
@given(values=st.lists(st.integers(0, 6), min_size=2, max_size=5), reach=st.integers(1, 4))
def test_rank_sets_are_those_of_all_orders_that_contradict_nothing(values: list[int], reach: int) -> None:
    """The definition: ranks that are possible given the comparisons that are shown."""
    numbers = np.array(values)
    shown = numbers[:, None] - numbers >= reach
    low, high = rank_sets(shown)
    assert list(zip(low.tolist(), high.tolist(), strict=True)) == brute_force_ranks(shown)


@settings(deadline=None, max_examples=60)
@given(values=st.lists(st.floats(0, 1), min_size=2, max_size=7), errors=st.data())
def test_rows_share_a_letter_if_and_only_if_they_cannot_be_told_apart(
    values: list[float], errors: st.DataObject
) -> None:
    wide = np.array(errors.draw(st.lists(st.floats(0.01, 0.5), min_size=len(values), max_size=len(values))))
    numbers = np.array(values)
    shown = numbers[:, None] - numbers > np.hypot(wide[:, None], wide)
    found = letters(shown, np.argsort(-numbers))
    for i, j in itertools.combinations(range(len(values)), 2):
        assert bool(set(found[i]) & set(found[j])) == (not shown[i, j] and not shown[j, i])


def test_letters_start_with_the_highest() -> None:
    shown = np.array([[0, 0, 0], [1, 0, 0], [1, 0, 0]], dtype=bool)  # row 0 is the lowest
    assert letters(shown, np.array([1, 2, 0])) == ["B", "A", "A"]


def test_values_far_apart_have_one_rank_each_and_equal_rows_all_of_them() -> None:
    far = apart([0.5, 0.9, 0.7], [1e-6] * 3)
    assert rank_sets(shown_above(far)).low.tolist() == rank_sets(shown_above(far)).high.tolist() == [3, 1, 2]
    same = joint_means(np.ones((3, 40)))
    assert rank_sets(shown_above(same)).high.tolist() == [3, 3, 3]
    assert not worse_than_best(same).any()


def test_the_step_down_tells_more_apart_than_one_step() -> None:
    """Pairs that are far apart leave room for the others (Romano, Wolf 2005)."""
    values = np.concatenate([np.arange(10) * 10.0, [95.0, 95.0 + 3.1 * np.sqrt(2)]])
    joint = apart(values, np.ones(12))
    pair = apart(values[-2:], np.ones(2))
    assert shown_above(joint)[-1, -2] == shown_above(pair)[-1, -2]


def test_one_row_and_one_image_tell_nothing() -> None:
    assert not shown_above(apart([0.9], [0.01])).any()
    assert not worse_than_best(apart([0.9], [0.01])).any()
    assert not shown_above(joint_means([[1.0], [0.0]], shares=True)).any()
    assert not shown_above(joint_auroc([[0.0], [1.0]], [[1.0], [0.0]])).any()
    assert not worse_than_best(joint_auroc([[0.0], [1.0]], [[1.0], [0.0]])).any()


def test_over_few_seeds_pairs_are_told_apart_by_holm() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0, 0.001, (4, 3)) + np.array([[0.9], [0.9], [0.8], [0.5]])
    joint = Joint(values.mean(1), np.zeros((4, 4)), np.cov(values) / 3, degrees=2)
    assert rank_sets(shown_above(joint)).low.tolist() == [1, 1, 3, 4]


@pytest.mark.slow
@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.97])
@pytest.mark.parametrize("k", [2, 5, 20])
def test_rank_sets_of_equal_rows_cover_together(k: int, correlation: float) -> None:
    """Rows of equal true value on the same 200 images: any pair that is told apart is a mistake."""
    rng, draws = np.random.default_rng(k), 2000
    mistakes = 0
    for _ in range(draws):
        common, own = rng.normal(size=200), rng.normal(size=(k, 200))
        mistakes += shown_above(joint_means(np.sqrt(correlation) * common + np.sqrt(1 - correlation) * own)).any()
    assert mistakes / draws <= 0.06


@pytest.mark.slow
@pytest.mark.parametrize("k", [2, 5])
def test_rank_sets_of_aurocs_cover_together_where_some_are_equal(k: int) -> None:
    rng, draws, wrong = np.random.default_rng(k), 2000, 0
    shift = np.repeat([1.0, 1.4], [k - k // 2, k // 2])[:, None]
    truth = 1 + (shift > shift.T).sum(axis=0)
    for _ in range(draws):
        inside = np.sqrt(0.9) * rng.normal(size=100) + np.sqrt(0.1) * rng.normal(size=(k, 100))
        outside = np.sqrt(0.9) * rng.normal(size=80) + np.sqrt(0.1) * rng.normal(size=(k, 80)) + shift
        low, high = rank_sets(shown_above(joint_auroc(inside, outside)))
        wrong += bool(((low > truth) | (high < truth)).any())
    assert wrong / draws <= 0.06
