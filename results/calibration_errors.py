"""Calibration errors that are no weighted function of equal-width bins: equal mass, debiased, smooth, by class."""

from __future__ import annotations

import numpy as np

from .metrics.calibration import ece
from .samples import BINS, Confidences

_GRID = 1001  # points of [0, 1] at which residuals are smoothed
_HALVINGS = 14  # of the bandwidth's interval


def equal_mass_ece(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> float:
    """ECE over bins of equally many images, in the order of their confidences (N,) (Nguyen, O'Connor 2015)."""
    order = np.argsort(confidence, kind="stable")
    gaps = (confidence - correct)[order]
    return float(sum(abs(part.sum()) for part in np.array_split(gaps, bins)) / len(gaps))


def debiased_ece(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> float:
    """Root of the mean squared gap over equal-width bins less what chance adds to it (Kumar et al. 2019, 1909.10155).

    Bins of a single image say nothing of chance and are left out; 0 where chance explains all.
    """
    found = Confidences(confidence, correct, bins).reliability
    several = found.size > 1
    size, accuracy = found.size[several], found.accuracy[several]
    squared = found.gap[several] ** 2 - accuracy * (1 - accuracy) / (size - 1)
    return float(np.sqrt(max((size * squared).sum() / found.size.sum(), 0.0)))


def smooth_ece(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Mean absolute gap smoothed by a reflected Gaussian of that width (Blasiok, Nakkiran 2023, 2309.12236)."""
    place = np.clip(confidence, 0, 1) * (_GRID - 1)
    below = np.minimum(place.astype(int), _GRID - 2)
    share, gaps = place - below, (confidence - correct) / len(confidence)
    residual = np.bincount(below, gaps * (1 - share), _GRID) + np.bincount(below + 1, gaps * share, _GRID)
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):  # the smoothed gap falls with the width: they meet once
        middle = (low + high) / 2
        low, high = (middle, high) if _smoothed(residual, middle) > middle else (low, middle)
    return _smoothed(residual, high)


def _smoothed(residual: np.ndarray, width: float) -> float:
    from scipy.ndimage import gaussian_filter1d

    return float(np.abs(gaussian_filter1d(residual, width * (_GRID - 1), mode="reflect")).sum())


def classwise_ece(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> float:
    """Mean over classes of the ECE of that class's probability (N, C) (Kull et al. 2019, arXiv 1910.12656)."""
    return float(np.mean([_of_class(probabilities, labels, index, bins) for index in range(probabilities.shape[1])]))


def _of_class(probabilities: np.ndarray, labels: np.ndarray, index: int, bins: int) -> float:
    return float(ece(Confidences(probabilities[:, index], labels == index, bins).reliability))


def brier_parts(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> dict[str, float]:
    """Reliability, resolution and uncertainty (Murphy 1973), so that Brier = reliability - resolution + uncertainty.

    Summed over classes; reliability over equal-width bins of the class's probability, uncertainty of the class shares,
    and resolution is what is left, which counts differences within a bin, too.
    """
    n, classes = probabilities.shape
    truth = np.eye(classes)[labels]
    bin_errors = 0.0
    for index in range(classes):
        found = Confidences(probabilities[:, index], truth[:, index], bins).reliability
        bin_errors += float((found.size * found.gap**2).sum()) / n
    shares = truth.mean(0)
    uncertainty = float((shares * (1 - shares)).sum())
    brier = float(((probabilities - truth) ** 2).sum(1).mean())
    return {
        "brier_reliability": bin_errors,
        "brier_resolution": bin_errors + uncertainty - brier,
        "brier_uncertainty": uncertainty,
    }


def largest_gap(confidence: np.ndarray, correct: np.ndarray, least: int, bins: int = BINS) -> tuple[float, int, int]:
    """MCE over bins with at least so many images (0 without any), and the images in its bin and in MCE's own."""
    found = Confidences(confidence, correct, bins).reliability
    gaps = np.abs(found.gap)
    enough = np.where(found.size >= least, gaps, -1.0)
    place, plain = int(enough.argmax()), int(np.where(found.size > 0, gaps, -1.0).argmax())
    counted = enough[place] >= 0
    return max(float(enough[place]), 0.0), int(found.size[place]) if counted else 0, int(found.size[plain])
