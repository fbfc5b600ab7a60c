from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from gauntlet.datasets.splitting import fixed_subset, stratified

LABELS = st.lists(st.integers(-1, 6), min_size=1, max_size=120).map(torch.tensor)


@given(LABELS, st.floats(0, 1))
def test_exactly_as_many_as_asked_are_chosen(labels, share):
    count = round(share * len(labels))
    assert int(stratified(labels, count).sum()) == count


@given(LABELS, st.floats(0, 1))
def test_each_class_has_its_share_within_one_image(labels, share):
    count = round(share * len(labels))
    chosen = labels[stratified(labels, count)]
    for label in labels.unique():
        assert abs(int((chosen == label).sum()) - count * int((labels == label).sum()) / len(labels)) < 1


@given(LABELS, st.integers(0, 2**31))
def test_it_depends_on_nothing_but_its_arguments(labels, seed):
    before = stratified(labels, len(labels) // 2)
    torch.manual_seed(seed)
    np.random.seed(seed)
    assert torch.equal(stratified(labels, len(labels) // 2), before)


def test_another_seed_is_another_choice():
    labels = torch.zeros(100, dtype=torch.int64)
    assert not torch.equal(stratified(labels, 50, seed=0), stratified(labels, 50, seed=1))


def test_the_choice_is_the_same_for_all_time():
    """Val splits of published results must not move: these positions were written down once."""
    assert torch.nonzero(stratified(torch.arange(20) % 2, 6)).flatten().tolist() == [3, 4, 7, 8, 11, 16]
    assert fixed_subset(20, 5).tolist() == [1, 8, 10, 18, 19]


@given(st.integers(1, 300), st.data())
def test_a_smaller_limit_chooses_a_part_of_a_larger_one(total, data):
    small, large = sorted(data.draw(st.tuples(st.integers(1, total), st.integers(1, total))))
    chosen = fixed_subset(total, large).tolist()
    assert set(fixed_subset(total, small).tolist()) <= set(chosen)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == large
