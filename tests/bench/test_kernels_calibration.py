"""Calibration against torchmetrics, torch and scikit-learn, numbers worked by hand, and temperatures that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from sklearn.metrics import accuracy_score, log_loss
from torch.nn import functional as F
from torchmetrics.functional.classification import multiclass_calibration_error

from gauntlet import GauntletError
from gauntlet.bench.kernels import calibration_arrays, calibration_metrics
from gauntlet.models.temperature import fit_temperature
from gauntlet.results import Confidences


def sample(n: int = 400, classes: int = 5, scale: float = 1.5, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and labels drawn from their softmax: a perfectly calibrated classifier."""
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(n, classes, generator=generator, dtype=torch.float64)
    return logits, torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]


@pytest.mark.parametrize(("name", "norm"), [("ece", "l1"), ("rms", "l2"), ("mce", "max")])
@pytest.mark.parametrize("bins", [1, 10, 15])
@pytest.mark.parametrize("factor", [0.3, 1.0, 3.0])
def test_calibration_errors_are_torchmetrics(name, norm, bins, factor):
    logits, labels = sample()
    p = (logits * factor).softmax(1)
    assert p.max() < 1  # torchmetrics puts a confidence of 1 in a bin of its own
    expected = multiclass_calibration_error(p, labels, num_classes=5, n_bins=bins, norm=norm)
    assert calibration_metrics(logits * factor, labels, bins)[name] == pytest.approx(float(expected), abs=1e-6)


def test_accuracy_nll_and_brier_are_scikit_learns():
    logits, labels = sample()
    p = logits.softmax(1).numpy()
    found = calibration_metrics(logits, labels)
    assert found["accuracy"] == accuracy_score(labels, p.argmax(1))
    assert found["nll"] == pytest.approx(log_loss(labels, p), abs=1e-12)
    assert found["brier"] == pytest.approx(((p - np.eye(5)[labels]) ** 2).sum(1).mean(), abs=1e-12)
    assert found["mean_confidence"] == pytest.approx(p.max(1).mean(), abs=1e-12)
    assert found["signed_gap"] == pytest.approx(found["mean_confidence"] - found["accuracy"], abs=1e-15)


def test_the_values_per_image_are_torchs():
    logits, labels = sample(50)
    arrays = calibration_arrays(logits, labels)
    assert set(arrays) == {"confidence", "correct", "nll", "brier"}
    np.testing.assert_allclose(arrays["nll"], F.cross_entropy(logits, labels, reduction="none"), rtol=1e-12)
    np.testing.assert_array_equal(arrays["correct"], (logits.argmax(1) == labels).numpy())
    np.testing.assert_allclose(arrays["confidence"], logits.softmax(1).amax(1), rtol=1e-12)
    assert all(array.shape == (50,) for array in arrays.values())


def test_probabilities_give_what_their_logits_give():
    logits, labels = sample()
    found = calibration_metrics(logits.softmax(1), labels, probabilities=True)
    assert found == pytest.approx(calibration_metrics(logits, labels), abs=1e-12)


def test_a_true_class_of_probability_zero_has_a_finite_nll():
    found = calibration_metrics(torch.tensor([[1.0, 0.0]]), torch.tensor([1]), probabilities=True)
    assert found["nll"] == pytest.approx(-math.log(1e-12))
    assert found["brier"] == 2.0


def test_saturated_logits_keep_their_nll():
    found = calibration_metrics(torch.tensor([[1e4, -1e4], [1e4, -1e4]]), torch.tensor([0, 1]))
    assert found["nll"] == 1e4
    assert (found["brier"], found["accuracy"], found["mean_confidence"], found["ece"]) == (1.0, 0.5, 1.0, 0.5)


class TestNumbersWorkedByHand:
    def test_confidence_0_9_with_accuracy_0_6_has_every_error_0_3(self):
        p = torch.tensor([[0.9, 0.1]], dtype=torch.float64).repeat(10, 1)
        labels = torch.tensor([0] * 6 + [1] * 4)
        found = calibration_metrics(p, labels, probabilities=True)
        for name in ("ece", "rms", "mce", "signed_gap"):
            assert found[name] == pytest.approx(0.3, abs=1e-12)

    def test_batch_normed_perfect_logits_have_confidence_0_757(self):
        logits = torch.full((10, 10), -1 / 3, dtype=torch.float64).fill_diagonal_(3.0)
        found = calibration_metrics(logits, torch.arange(10))
        assert found["accuracy"] == 1.0
        assert found["mean_confidence"] == pytest.approx(0.75696, abs=5e-6)
        assert found["signed_gap"] == pytest.approx(-0.24304, abs=5e-6)

    @given(st.integers(0, 2**31), st.floats(0.05, 5), st.integers(1, 20))
    @settings(deadline=None, max_examples=50)
    def test_ece_is_at_most_rms_is_at_most_mce(self, seed, factor, bins):
        logits, labels = sample(60, seed=seed)
        found = calibration_metrics(logits * factor, labels, bins)
        assert abs(found["signed_gap"]) <= found["ece"] + 1e-12
        assert found["ece"] <= found["rms"] + 1e-12
        assert found["rms"] <= found["mce"] + 1e-12


class TestBins:
    def test_a_bin_holds_its_upper_edge_and_the_first_one_holds_zero(self):
        confidence = np.array([0.0, 1 / 15, np.nextafter(1 / 15, 1), 2 / 15, 14 / 15, np.nextafter(14 / 15, 1), 1.0])
        diagram = Confidences(confidence, np.ones(7, dtype=bool), 15).reliability
        assert diagram.size.tolist() == [2, 2, *[0] * 11, 1, 2]

    def test_means_are_per_bin_and_empty_bins_have_no_gap(self):
        diagram = Confidences(np.array([0.6, 0.8, 0.1]), np.array([True, False, False]), 2).reliability
        assert diagram.confidence == pytest.approx([0.1, 0.7])
        assert diagram.accuracy == pytest.approx([0.0, 0.5])
        assert Confidences(np.array([0.1]), np.array([True]), 2).reliability.gap[1] == 0


class TestTemperature:
    @pytest.mark.parametrize("k", [0.1, 0.335, 1.0, 4.0])
    def test_logits_scaled_by_k_need_temperature_k(self, k):
        logits, labels = sample(20_000, 10, scale=2.0)
        temperature, low, high = fit_temperature(logits * k, labels)
        assert temperature == pytest.approx(k, rel=0.03)
        assert low < k < high
        assert high / low < 1.06

    def test_it_is_where_a_scalar_search_finds_the_least_nll(self):
        logits, labels = sample()
        found = fit_temperature(3 * logits, labels)[0]
        bounds = (math.log(0.02), math.log(20))
        nll = lambda log_t: float(F.cross_entropy(3 * logits / math.exp(log_t), labels))  # noqa: E731
        best = minimize_scalar(nll, bounds=bounds, method="bounded", options={"xatol": 1e-10})
        assert found == pytest.approx(math.exp(best.x), rel=1e-6)

    def test_scaling_the_logits_scales_the_temperature_and_its_interval(self):
        logits, labels = sample()
        assert fit_temperature(2 * logits, labels) == pytest.approx([2 * t for t in fit_temperature(logits, labels)])

    def test_a_shift_per_image_changes_nothing(self):
        logits, labels = sample()
        shifted = logits + torch.linspace(-50, 50, len(logits), dtype=torch.float64)[:, None]
        assert fit_temperature(shifted, labels) == pytest.approx(fit_temperature(logits, labels), rel=1e-9)

    def test_the_interval_covers_the_truth_about_95_times_in_100(self):
        inside = 0
        for seed in range(200):
            logits, labels = sample(300, seed=seed)
            _, low, high = fit_temperature(logits, labels)
            inside += low <= 1 <= high
        assert 180 <= inside <= 199

    def test_the_interval_is_the_spread_of_repeated_fits(self):
        temperatures, halves = [], []
        for seed in range(200):
            temperature, low, high = fit_temperature(*sample(300, seed=seed))
            temperatures.append(math.log(temperature))
            halves.append(math.log(high / low) / 2)
        assert np.mean(halves) == pytest.approx(1.96 * np.std(temperatures), rel=0.15)

    def test_accuracy_does_not_change(self):
        logits, labels = sample()
        temperature = fit_temperature(5 * logits, labels)[0]
        before, after = calibration_metrics(5 * logits, labels), calibration_metrics(5 * logits / temperature, labels)
        assert before["accuracy"] == after["accuracy"]
        assert after["nll"] < before["nll"]
        assert after["ece"] < before["ece"]

    @pytest.mark.parametrize("labels", [[0, 1, 0, 1], [1, 0, 1, 0]])
    def test_all_right_or_all_wrong_has_no_optimum(self, labels):
        logits = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).repeat(2, 1)
        with pytest.raises(GauntletError, match=r"no optimum between 0\.001 and 1000 on these 4 images"):
            fit_temperature(logits, torch.tensor(labels))

    def test_constant_logits_have_no_optimum(self):
        with pytest.raises(GauntletError, match="no optimum"):
            fit_temperature(torch.zeros(4, 3), torch.arange(4) % 3)


@pytest.mark.parametrize("function", [calibration_metrics, calibration_arrays, fit_temperature])
class TestBadInput:
    def test_shapes_that_do_not_fit(self, function):
        with pytest.raises(GauntletError, match=r"shape \(N, C\) and labels of shape \(N,\).*got \(3, 2\) and \(4,\)"):
            function(torch.zeros(3, 2), torch.zeros(4))

    def test_no_image(self, function):
        with pytest.raises(GauntletError, match="N of at least 1"):
            function(torch.zeros(0, 2), torch.zeros(0))

    def test_values_that_are_not_finite(self, function):
        with pytest.raises(GauntletError, match="those of 1 of 2 images are not"):
            function(torch.tensor([[0.0, torch.nan], [0.0, 1.0]]), torch.zeros(2))

    @pytest.mark.parametrize("label", [-1, 2])
    def test_a_label_outside_the_classes(self, function, label):
        with pytest.raises(GauntletError, match="labels from 0 to 1"):
            function(torch.zeros(2, 2), torch.tensor([0, label]))


def test_logits_that_are_called_probabilities_are_refused():
    with pytest.raises(GauntletError, match="do not sum to 1"):
        calibration_metrics(torch.tensor([[2.0, 1.0]]), torch.tensor([0]), probabilities=True)
