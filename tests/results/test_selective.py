"""Selective classification: kernels against definitions, torch-uncertainty where it is installed, and properties."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from gauntlet.registry import GauntletError
from gauntlet.results.estimates import computed, estimate
from gauntlet.results.metrics.selective import COVERAGES, RISKS, SELECTIVE
from gauntlet.results.paired_tests import paired_half_width
from gauntlet.results.samples import Scores
from gauntlet.results.selective import Selective

#: Images as pairs of a score, with ties, and whether the answer is wrong.
IMAGES = st.lists(st.tuples(st.integers(-4, 4).map(float), st.booleans()), min_size=1, max_size=30)


def drawn(seed: int, n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    score = rng.permutation(n) + 0.0
    return score, rng.random(n) < 0.05 + 0.4 * score / n


def value(name: str, score: Any, wrong: Any) -> float:
    return float(computed(name, Selective(score, wrong).statistics))


def risks(score: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """Share of errors among the k most certain, k = 1 ... N, for distinct scores."""
    order = np.argsort(score)
    return np.cumsum(wrong[order]) / np.arange(1, len(score) + 1)


@pytest.mark.parametrize("seed", range(4))
def test_areas_are_their_definitions(seed: int) -> None:
    score, wrong = drawn(seed)
    n, m = len(score), int(wrong.sum())
    assert value("aurc", score, wrong) == pytest.approx(risks(score, wrong).mean(), abs=1e-12)
    assert value("aurra", score, wrong) == pytest.approx(1 - risks(score, wrong).mean(), abs=1e-12)
    best = risks(np.arange(n), np.arange(n) >= n - m).mean()
    assert value("e_aurc", score, wrong) == pytest.approx(risks(score, wrong).mean() - best, abs=1e-12)
    auroc, accuracy = roc_auc_score(wrong, score), 1 - m / n
    # Traub et al. 2024, equation 5.
    assert value("augrc", score, wrong) == pytest.approx((1 - auroc) * accuracy * m / n + (m / n) ** 2 / 2, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_stated_coverages_and_risks_are_read_off_the_curve(seed: int) -> None:
    score, wrong = drawn(seed)
    curve = risks(score, wrong)
    for percent in COVERAGES:
        assert value(f"accuracy_at_{percent}", score, wrong) == pytest.approx(1 - curve[percent * 4 - 1])
    for percent in RISKS:
        within = np.flatnonzero(curve <= percent / 100)
        assert value(f"coverage_at_risk_{percent}", score, wrong) == (within[-1] + 1) / 400 if len(within) else 0


def peers() -> Any:
    """torch-uncertainty's file of these metrics alone: the package itself wants lightning."""
    found = importlib.util.find_spec("torch_uncertainty")
    if found is None or not found.submodule_search_locations:
        pytest.skip("torch-uncertainty is not installed")
    path = Path(next(iter(found.submodule_search_locations)), "metrics/classification/risk_coverage.py")
    spec = importlib.util.spec_from_file_location("risk_coverage_of_torch_uncertainty", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("seed", range(3))
def test_torch_uncertainty_agrees(seed: int) -> None:
    theirs, (score, wrong) = peers(), drawn(seed)
    confidence = torch.from_numpy(1 - 0.4 * score / len(score)).float()
    probabilities, targets = torch.stack([1 - confidence, confidence], 1), torch.from_numpy(~wrong).long()

    def asked(metric: Any) -> float:
        metric.update(probabilities, targets)
        return float(metric.compute())

    n, curve = len(score), risks(score, wrong)
    # Theirs is the trapezoid from coverage 1/N on, stretched to [0, 1]; ours is the mean of the risks.
    area = value("aurc", score, wrong) * n - (curve[0] + curve[-1]) / 2
    assert asked(theirs.AURC()) == pytest.approx(area / (n - 1), abs=1e-6)
    assert asked(theirs.AUGRC()) == pytest.approx(
        (value("augrc", score, wrong) - curve[0] / (2 * n * n)) * n / (n - 1), abs=1e-6
    )
    assert asked(theirs.CovAt5Risk()) == pytest.approx(value("coverage_at_risk_5", score, wrong), abs=1e-6)
    assert asked(theirs.RiskAt80Cov()) == pytest.approx(1 - value("accuracy_at_80", score, wrong), abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_precision_and_rank_are_those_of_scikit_learn(seed: int) -> None:
    score, wrong = drawn(seed)
    found = estimate(("auroc", "aupr_error", "aupr_success"), Scores(score[~wrong], score[wrong]))
    assert found["auroc"].value == pytest.approx(roc_auc_score(wrong, score))
    assert found["aupr_error"].value == pytest.approx(average_precision_score(wrong, score))
    assert found["aupr_success"].value == pytest.approx(average_precision_score(~wrong, -score))


@settings(max_examples=30, deadline=None)
@given(wrong=st.lists(st.booleans(), min_size=1, max_size=40))
def test_a_perfect_order_has_no_excess(wrong: list[bool]) -> None:
    assert value("e_aurc", np.array(wrong, dtype=float), wrong) == pytest.approx(0, abs=1e-12)
    assert value("e_aurc", np.sort(wrong) * 10.0 + np.arange(len(wrong)), np.sort(wrong)) == pytest.approx(0, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(images=IMAGES)
def test_monotone_maps_and_the_order_of_images_change_nothing(images: list[tuple[float, bool]]) -> None:
    score, wrong = (np.array(column) for column in zip(*images, strict=True))
    for name in SELECTIVE:
        plain = value(name, score, wrong)
        assert value(name, np.exp(score), wrong) == plain
        assert value(name, score[::-1], wrong[::-1]) == pytest.approx(plain, abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(images=IMAGES, seed=st.integers(0, 9))
def test_ties_count_as_the_mean_over_all_orders(images: list[tuple[float, bool]], seed: int) -> None:
    score, wrong = (np.array(column) for column in zip(*images, strict=True))
    rng = np.random.default_rng(seed)
    orders = [risks(score + rng.random(len(score)) / 2, wrong).mean() for _ in range(200)]
    spread = np.std(orders) / 14
    assert value("aurc", score, wrong) == pytest.approx(np.mean(orders), abs=5 * spread + 1e-9)


@settings(max_examples=20, deadline=None)
@given(images=IMAGES, data=st.data())
def test_whole_weights_are_repeated_images(images: list[tuple[float, bool]], data: st.DataObject) -> None:
    score, wrong = (np.array(column) for column in zip(*images, strict=True))
    weights = np.array(data.draw(st.lists(st.integers(1, 3), min_size=len(score), max_size=len(score))))
    for name in SELECTIVE:
        repeated = value(name, score.repeat(weights), wrong.repeat(weights))
        rows = Selective(score, wrong).weighted(np.stack([weights, weights]))
        assert computed(name, rows) == pytest.approx([repeated, repeated], abs=1e-12)


@pytest.mark.parametrize("name", ["aurc", "e_aurc", "accuracy_at_90", "coverage_at_risk_5"])
def test_replicates_scatter_about_the_value_as_images_do(name: str) -> None:
    """Compressed to 512 groups, they have the spread of a bootstrap that resamples images one by one."""
    score, wrong = drawn(0, 2000)
    sample, rng = Selective(score, wrong), np.random.default_rng(0)
    draws = computed(name, sample.replicates(rng, 300))
    picks = [rng.integers(0, 2000, 2000) for _ in range(300)]
    resampled = [value(name, score[pick], wrong[pick]) for pick in picks]
    if not name.startswith("coverage"):  # a step function of few errors
        assert draws.mean() == pytest.approx(value(name, score, wrong), abs=0.005)
        assert draws.std() == pytest.approx(np.std(resampled), rel=0.25)
    found = estimate([name], sample)[name]
    assert found.low is not None
    assert found.high is not None
    assert found.low <= found.value <= found.high


def test_intervals_cover() -> None:
    """About 95 % of the intervals of AURC hold the value of the whole population."""
    score, wrong = drawn(0, 20_000)
    truth, rng, held = value("aurc", score, wrong), np.random.default_rng(1), 0
    for _ in range(40):
        pick = rng.choice(20_000, 400, replace=False)
        _, low, high = estimate(["aurc"], Selective(score[pick], wrong[pick]))["aurc"]
        assert low is not None
        assert high is not None
        held += low <= truth <= high
    assert held >= 34  # 95 % of 40 is 38; fewer than 34 has a probability of 1 in 1000


def test_the_same_images_measured_twice_do_not_differ() -> None:
    score, wrong = drawn(0)
    cell = {"score": score, "loss": wrong.astype("float32")}
    assert paired_half_width("aurc", cell, cell) == 0
    other = {**cell, "score": score[::-1].copy()}
    assert paired_half_width("aurc", cell, other) > 0  # type: ignore[operator]


def test_each_score_needs_a_loss() -> None:
    with pytest.raises(GauntletError, match=r"Each score needs a loss, got 2 scores and 1 losses\."):
        Selective([0.1, 0.2], [1.0])
