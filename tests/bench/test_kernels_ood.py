"""OOD metrics against scikit-learn, pytorch-ood and their definitions, ties and all."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_ood.metrics import OODMetrics
from pytorch_ood.metrics import functional as peer
from sklearn.metrics import average_precision_score, roc_auc_score

from gauntlet import GauntletError
from gauntlet.bench.kernels import ood_metrics, ranking_on_device
from gauntlet.results import Scores, estimate

#: Few distinct values, so that nearly every threshold has ties within and across the sides; both zeros occur.
TIED = st.lists(st.sampled_from([-2.0, -0.1, -0.0, 0.0, 0.1, 0.5, 3.0]), min_size=1, max_size=60)
ANY = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=60)
exact = settings(deadline=None, max_examples=200)
SIDES = st.one_of(st.tuples(TIED, TIED), st.tuples(ANY, ANY))


def together(inside: list[float], outside: list[float]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([*inside, *outside]), np.array([0] * len(inside) + [1] * len(outside))


@given(SIDES)
@exact
def test_auroc_and_both_auprs_are_scikit_learns(sides):
    found = ood_metrics(*map(np.array, sides))
    scores, is_ood = together(*sides)
    assert found["auroc"] == pytest.approx(roc_auc_score(is_ood, scores), abs=1e-12)
    assert found["aupr_out"] == pytest.approx(average_precision_score(is_ood, scores), abs=1e-12)
    assert found["aupr_in"] == pytest.approx(average_precision_score(1 - is_ood, -scores), abs=1e-12)


@given(SIDES)
@exact
def test_auroc_and_fpr95_are_pytorch_oods(sides):
    found = ood_metrics(*map(torch.tensor, sides))
    scores, is_ood = map(torch.from_numpy, together(*sides))
    assert found["auroc"] == pytest.approx(float(peer.auroc(scores, -is_ood)), abs=1e-12)
    assert found["fpr95"] == float(peer.fpr_at_tpr(scores, -is_ood, 0.95))
    # The other convention: ID positive, on the negated score.
    assert found["fpr95_id"] == float(peer.fpr_at_tpr(-scores, is_ood - 1, 0.95))


@given(SIDES)
@exact
def test_auroc_is_the_chance_that_an_ood_image_scores_higher(sides):
    inside, outside = map(np.array, sides)
    pairs = np.sign(outside[:, None] - inside[None, :])
    assert ood_metrics(inside, outside)["auroc"] == pytest.approx((pairs.mean() + 1) / 2, abs=1e-12)


@given(SIDES)
@exact
def test_the_thresholded_metrics_follow_their_definitions(sides):
    inside, outside = map(np.array, sides)
    thresholds = sorted({*inside, *outside}, reverse=True)
    found = ood_metrics(inside, outside)
    caught = next(t for t in thresholds if (outside >= t).mean() >= 0.95)
    assert found["fpr95"] == (inside >= caught).mean()
    kept = next(t for t in reversed(thresholds) if (inside <= t).mean() >= 0.95)
    assert found["fpr95_id"] == (outside <= kept).mean()
    errors = [0.5 * (outside < t).mean() + 0.5 * (inside >= t).mean() for t in [np.inf, *thresholds]]
    assert found["detection_error"] == pytest.approx(min(errors), abs=1e-12)


@given(SIDES)
@exact
def test_only_the_order_of_the_scores_counts(sides):
    distinct = np.unique([*sides[0], *sides[1]])
    ranks = [np.searchsorted(distinct, side) for side in sides]
    found, expected = ood_metrics(*ranks), ood_metrics(*map(np.array, sides))
    assert {**found, "autc": 0} == {**expected, "autc": 0}  # which alone looks at distances


@given(SIDES)
@exact
def test_negated_scores_turn_auroc_around_and_swapped_sides_exchange_the_conventions(sides):
    inside, outside = map(np.array, sides)
    found, swapped = ood_metrics(inside, outside), ood_metrics(-outside, -inside)
    assert ood_metrics(-inside, -outside)["auroc"] == pytest.approx(1 - found["auroc"], abs=1e-15)
    assert swapped["auroc"] == found["auroc"]
    assert swapped["fpr95"] == found["fpr95_id"]
    assert swapped["aupr_in"] == pytest.approx(found["aupr_out"], abs=1e-12)
    assert swapped["detection_error"] == found["detection_error"]


def test_pytorch_oods_collection_agrees_on_continuous_scores():
    inside, outside = np.random.default_rng(0).normal(loc=[[0.0], [1.0]], size=(2, 5000))
    found, expected = ood_metrics(inside, outside), OODMetrics()
    for side, label in ((inside, 0), (outside, -1)):
        expected.update(torch.from_numpy(side), torch.full((5000,), label))
    values = expected.compute()
    assert found["auroc"] == pytest.approx(float(values["AUROC"]), abs=1e-12)
    assert found["fpr95"] == float(values["FPR95TPR"])
    # Its areas are trapezoids; with 5,000 thresholds on each side the two differ little.
    assert found["aupr_in"] == pytest.approx(float(values["AUPR-IN"]), abs=1e-4)
    assert found["aupr_out"] == pytest.approx(float(values["AUPR-OUT"]), abs=1e-4)


def test_constant_scores_are_a_guess():
    found = ood_metrics(np.zeros(30), np.zeros(10))
    assert found == {
        "auroc": 0.5,
        "aupr_in": 0.75,
        "aupr_out": 0.25,
        "fpr95": 1.0,
        "fpr95_id": 1.0,
        "detection_error": 0.5,
        "aupr_in_trapezoid": 0.875,
        "aupr_out_trapezoid": 0.625,
        "autc": 0.5,
    }


def test_perfect_and_reversed_separation():
    perfect = ood_metrics([0.0, 1.0], [2.0, 3.0])
    assert perfect == {
        "auroc": 1.0,
        "aupr_in": 1.0,
        "aupr_out": 1.0,
        "fpr95": 0.0,
        "fpr95_id": 0.0,
        "detection_error": 0.0,
        "aupr_in_trapezoid": 1.0,
        "aupr_out_trapezoid": 1.0,
        "autc": pytest.approx(1 / 6),
    }
    worst = ood_metrics([2.0, 3.0], [0.0, 1.0])
    assert (worst["auroc"], worst["fpr95"], worst["fpr95_id"], worst["detection_error"]) == (0.0, 1.0, 1.0, 0.5)


def test_random_scores_have_the_base_rate_as_aupr():
    """Report R1's test: 10,000 ID images against 1,000 noise images."""
    random = np.random.default_rng(0)
    found = ood_metrics(random.normal(size=10_000), random.normal(size=1_000))
    assert found["aupr_in"] == pytest.approx(10 / 11, abs=0.01)
    assert found["aupr_out"] == pytest.approx(1 / 11, abs=0.01)


def test_exactly_95_percent_is_enough():
    """19 of 20 caught: the last OOD image may lie anywhere."""
    found = ood_metrics([0.5] * 10, [1.0] * 19 + [0.0])
    assert found["fpr95"] == 0.0
    found = ood_metrics([0.0] * 19 + [2.0], [1.0] * 10)
    assert found["fpr95_id"] == 0.0


def test_the_two_zeros_are_one_score():
    assert ood_metrics([-0.0] * 3, [0.0] * 3)["auroc"] == 0.5
    assert ood_metrics([0.0] * 3, [-0.0] * 3)["auroc"] == 0.5


def test_float64_scores_are_not_rounded():
    assert ood_metrics([1.0], [1.0 + 1e-15])["auroc"] == 1.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_one_sentence(bad):
    with pytest.raises(GauntletError, match=r"finite ID scores, but 1 of 3 are not\.$"):
        ood_metrics([0.0, bad, 1.0], [0.0])
    with pytest.raises(GauntletError, match=r"finite OOD scores, but 2 of 2 are not\.$"):
        ood_metrics([0.0], [bad, bad])


@pytest.mark.parametrize(("inside", "outside", "side"), [([], [1.0], "ID"), ([1.0], [], "OOD")])
def test_an_empty_side_is_one_sentence(inside, outside, side):
    with pytest.raises(GauntletError, match=f"need at least one of the {side} scores"):
        ood_metrics(inside, outside)


@given(SIDES)
@exact
def test_the_ranking_in_torch_is_that_in_numpy(sides):
    found, expected = ranking_on_device(*map(torch.tensor, sides)), Scores(*map(torch.tensor, sides)).ranking
    for name in ("score", "inside", "outside"):
        assert getattr(found, name).tolist() == getattr(expected, name).tolist()
        assert getattr(found, name).dtype == getattr(expected, name).dtype


@pytest.mark.parametrize("bad", [[np.nan], []])
def test_what_torch_cannot_rank_is_the_same_sentence(bad):
    with pytest.raises(GauntletError, match="ID scores"):
        ranking_on_device(torch.tensor(bad), torch.zeros(2))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_tensors_on_a_gpu_give_the_same_numbers():
    for scores in (torch.randn(2, 3000), torch.randn(2, 3000).round(), torch.tensor([[-0.0, 1.0], [0.0, 1.0]])):
        assert ood_metrics(*scores.cuda()) == ood_metrics(*scores)


@given(SIDES)
@exact
def test_trapezoid_auprs_are_pytorch_oods(sides):
    found = ood_metrics(*map(torch.tensor, sides))
    scores, is_ood = map(torch.from_numpy, together(*sides))
    assert found["aupr_out_trapezoid"] == pytest.approx(float(peer.aupr(scores, -is_ood, "ood")), abs=1e-12)
    assert found["aupr_in_trapezoid"] == pytest.approx(float(peer.aupr(scores, -is_ood, "id")), abs=1e-12)


@given(SIDES)
@exact
def test_autc_is_pytorch_oods_and_one_half_where_that_is_undefined(sides):
    found = ood_metrics(*map(np.array, sides))["autc"]
    scores, is_ood = map(torch.from_numpy, together(*sides))
    constant = bool(scores.min() == scores.max())
    assert found == pytest.approx(0.5 if constant else float(peer.autc(scores, -is_ood)), abs=1e-12)


@given(SIDES)
@exact
def test_autc_is_the_mean_of_two_areas_in_exact_fractions(sides):
    inside, outside = ([Fraction(float(score)) for score in side] for side in sides)
    low, high = min(inside + outside), max(inside + outside)
    if low < high:
        flagged = sum((score - low) / (high - low) for score in inside) / len(inside)
        missed = sum((high - score) / (high - low) for score in outside) / len(outside)
        found = ood_metrics(*map(np.array, sides))["autc"]
        assert found == pytest.approx(float((flagged + missed) / 2), abs=1e-12)


@given(SIDES, st.randoms(use_true_random=False))
@exact
def test_oscr_is_pytorch_oods(sides, random):
    scores, is_ood = map(torch.from_numpy, together(*sides))
    right = torch.tensor([random.random() < 0.7 for _ in sides[0]])
    labels = torch.where(is_ood == 1, -1, 1)
    predictions = torch.cat([right.long(), torch.ones(len(sides[1])).long()])
    expected = peer.oscr_score(scores, predictions, labels)
    found = estimate(["oscr"], Scores(*sides, right))["oscr"].value
    assert found == pytest.approx(expected, abs=1e-12)
