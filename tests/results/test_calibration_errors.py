"""Calibration errors beside those of equal-width bins: against torchmetrics, peers and direct sums."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import binary_calibration_error

from gauntlet.results.calibration_errors import (
    brier_parts,
    classwise_ece,
    debiased_ece,
    equal_mass_ece,
    largest_gap,
    smooth_ece,
)


def drawn(seed: int, n: int = 2000, classes: int = 4, sharpness: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, and labels drawn from them; the probabilities are then sharpened."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(classes, 0.7), n)
    labels = (rng.random(n)[:, None] > p.cumsum(1)).sum(1).clip(0, classes - 1)
    sharp = p**sharpness
    return sharp / sharp.sum(1, keepdims=True), labels


def top(p: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return p.max(1), (p.argmax(1) == labels).astype(float)


@pytest.mark.parametrize("sharpness", [1.0, 2.5])
def test_equal_mass_is_a_loop_over_sorted_images(sharpness: float) -> None:
    confidence, correct = top(*drawn(0, 1500, sharpness=sharpness))
    order, expected = np.argsort(confidence), 0.0
    for start in range(0, 1500, 100):
        part = order[start : start + 100]
        expected += abs(confidence[part].mean() - correct[part].mean()) / 15
    assert equal_mass_ece(confidence, correct) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("sharpness", [1.0, 2.5])
def test_classwise_is_the_mean_of_binary_errors_of_torchmetrics(sharpness: float) -> None:
    p, labels = drawn(1, sharpness=sharpness)
    each = [
        float(
            binary_calibration_error(torch.from_numpy(p[:, k]), torch.from_numpy((labels == k).astype(int)), n_bins=15)
        )
        for k in range(4)
    ]
    # torchmetrics takes confidences below one half as they are: the probability of class 1 in equal-width bins.
    assert classwise_ece(p, labels) == pytest.approx(np.mean(each), abs=1e-6)


def test_debiasing_takes_out_what_chance_adds() -> None:
    """Of a calibrated classifier the plain error is the chance of its bins; the debiased one is near 0 on average."""
    plain, debiased = [], []
    for seed in range(30):
        confidence, correct = top(*drawn(seed, 300))
        plain.append(equal_mass_ece(confidence, correct))
        debiased.append(debiased_ece(confidence, correct) ** 2)
    assert np.mean(plain) > 0.05
    assert np.mean(debiased) < 0.003
    confidence, correct = np.full(1000, 0.9), np.repeat([1.0, 0.0], [600, 400])
    assert debiased_ece(confidence, correct) == pytest.approx(np.sqrt(0.09 - 0.24 / 999))


def smooth_peer() -> Any:
    found = importlib.util.find_spec("torch_uncertainty")
    if found is None or not found.submodule_search_locations:
        pytest.skip("torch-uncertainty is not installed")
    folder = Path(next(iter(found.submodule_search_locations)), "metrics/classification/calibration")
    for name in ("smooth_calibration_kernels", "smooth_calibration_error"):
        spec = importlib.util.spec_from_file_location(f"peer_of_smooth_ece.{name}", folder / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    return module.SmoothCalibrationError


@pytest.mark.parametrize("sharpness", [0.6, 1.0, 3.0])
def test_smooth_error_is_that_of_torch_uncertainty(sharpness: float) -> None:
    peer = smooth_peer()(kernel_type="reflected")
    p, labels = drawn(2, sharpness=sharpness)
    peer.update(torch.from_numpy(p).float(), torch.from_numpy(labels))
    assert smooth_ece(*top(p, labels)) == pytest.approx(float(peer.compute()), abs=4e-3)


@pytest.mark.parametrize("sharpness", [0.6, 3.0])
def test_smooth_error_is_a_direct_sum_over_images(sharpness: float) -> None:
    """At its own width: mean over a fine grid of the residuals under a Gaussian with its reflections at 0 and 1."""
    confidence, correct = top(*drawn(3, 500, sharpness=sharpness))
    width, grid = smooth_ece(confidence, correct), np.linspace(0, 1, 4001)
    images = np.concatenate([2 * k + sign * confidence for k in range(-2, 3) for sign in (1, -1)])
    kernel = np.exp(-(((grid[:, None] - images) / width) ** 2) / 2) / (width * np.sqrt(2 * np.pi))
    smoothed = np.abs(kernel @ np.tile((confidence - correct) / 500, 10))
    assert np.trapezoid(smoothed, grid) == pytest.approx(width, abs=1e-3)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), sharpness=st.sampled_from([0.5, 1.0, 4.0]))
def test_the_parts_add_up_to_the_brier_score(seed: int, sharpness: float) -> None:
    p, labels = drawn(seed, 60, 3, sharpness)
    parts = brier_parts(p, labels)
    brier = np.mean(((p - np.eye(3)[labels]) ** 2).sum(1))
    total = parts["brier_reliability"] - parts["brier_resolution"] + parts["brier_uncertainty"]
    assert total == pytest.approx(brier, abs=1e-12)
    assert parts["brier_reliability"] >= 0
    constant = np.tile(np.bincount(labels, minlength=3) / 60, (60, 1))
    assert brier_parts(constant, labels)["brier_resolution"] == pytest.approx(0, abs=1e-12)


def test_a_bin_of_one_image_decides_mce_and_not_mce_of_full_bins() -> None:
    confidence = np.r_[np.full(50, 0.9), 0.3]
    correct = np.r_[np.ones(40), np.zeros(10), 1.0]
    assert largest_gap(confidence, correct, 1) == (pytest.approx(0.7), 1, 1)
    assert largest_gap(confidence, correct, 10) == (pytest.approx(0.1), 50, 1)
    assert largest_gap(confidence, correct, 100) == (0.0, 0, 1)
