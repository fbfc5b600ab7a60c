"""Calibration: how far confidence is from accuracy, and the temperature that brings them together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..models.temperature import TEMPERATURE_RANGE, checked, fit_temperature
from ..registry import GauntletError

__all__ = [
    "TEMPERATURE_RANGE",
    "Bins",
    "calibration_arrays",
    "calibration_metrics",
    "fit_temperature",
    "reliability",
    "summarize",
]

Floats = NDArray[np.float64]

#: Probabilities below this count as this in the NLL of given probabilities (logits need no such floor).
_SMALLEST = 1e-12

#: How far the sum of given probabilities may be from 1 (half precision gives 1e-3 per term).
_SUM_TOLERANCE = 1e-2


class Bins(NamedTuple):
    """A reliability diagram: equal-width confidence bins; shape (bins,) each, 0 where a bin is empty."""

    size: NDArray[np.int64]  # images
    confidence: Floats  # mean confidence
    accuracy: Floats

    @property
    def gap(self) -> Floats:
        """Mean confidence minus accuracy, per bin."""
        return self.confidence - self.accuracy


def calibration_metrics(outputs: Any, labels: Any, bins: int = 15, *, probabilities: bool = False) -> dict[str, float]:
    """Calibration of a classifier's outputs.

    Args:
        outputs: Logits, shape (N, C); or probabilities, if ``probabilities`` says so.
        labels: True classes, shape (N,).
        bins: Number of bins of equal width; bin m holds confidences in ((m - 1) / bins, m / bins].
        probabilities: Whether ``outputs`` are probabilities rather than logits.

    Returns:
        ``accuracy``, ``mean_confidence``, ``ece`` (Naeini et al. 2015; Guo et al. 2017, 1706.04599), ``rms`` (root
        mean square over images of their bin's gap), ``mce`` (largest gap of a bin), ``signed_gap`` (mean confidence
        minus accuracy; negative is under-confident), ``nll`` (nats) and ``brier`` (in [0, 2]).

    Raises:
        GauntletError: There are no images, or shapes, values or labels do not fit.
    """
    return summarize(calibration_arrays(outputs, labels, probabilities=probabilities), bins)


def calibration_arrays(outputs: Any, labels: Any, *, probabilities: bool = False) -> dict[str, NDArray[Any]]:
    """What the metrics are computed from, one value per image; arguments and errors as in :func:`calibration_metrics`.

    Returns:
        Arrays of shape (N,): ``confidence`` (largest probability), ``correct`` (bool), ``nll`` (-log of the probability
        of the true class) and ``brier`` (squared distance of the probabilities from the one-hot truth).
    """
    values, truth = checked(outputs, labels)
    log_p = _log_probabilities(values) if probabilities else values.log_softmax(dim=1)
    p = values if probabilities else log_p.exp()
    confidence, predicted = p.max(dim=1)
    at_truth = p.gather(1, truth[:, None])[:, 0]
    arrays = {
        "confidence": confidence,
        "correct": predicted == truth,
        "nll": -log_p.gather(1, truth[:, None])[:, 0],
        "brier": p.square().sum(dim=1) - 2 * at_truth + 1,
    }
    return {name: values.cpu().numpy() for name, values in arrays.items()}


def summarize(arrays: Mapping[str, NDArray[Any]], bins: int = 15) -> dict[str, float]:
    """The metrics of :func:`calibration_metrics` from the arrays of :func:`calibration_arrays`."""
    confidence, correct = arrays["confidence"], arrays["correct"]
    diagram = reliability(confidence, correct, bins)
    share, gap = diagram.size / len(correct), np.abs(diagram.gap)
    accuracy, mean_confidence = float(correct.mean()), float(confidence.mean())
    return {
        "accuracy": accuracy,
        "mean_confidence": mean_confidence,
        "ece": float((share * gap).sum()),
        "rms": math.sqrt((share * gap**2).sum()),
        "mce": float(gap.max()),
        "signed_gap": mean_confidence - accuracy,
        "nll": float(arrays["nll"].mean()),
        "brier": float(arrays["brier"].mean()),
    }


def reliability(confidence: Floats, correct: NDArray[np.bool_], bins: int = 15) -> Bins:
    """Mean confidence and accuracy per bin of confidence; a confidence of 0 belongs to the first bin."""
    upper = np.arange(1, bins) / bins
    index = np.searchsorted(upper, confidence, side="left")
    size = np.bincount(index, minlength=bins)
    some = np.maximum(size, 1)
    return Bins(
        size,
        np.bincount(index, weights=confidence, minlength=bins) / some,
        np.bincount(index, weights=correct, minlength=bins) / some,
    )


def _log_probabilities(values: Tensor) -> Tensor:
    if float(values.min()) < 0 or float((values.sum(dim=1) - 1).abs().max()) > _SUM_TOLERANCE:
        raise GauntletError(
            "Calibration was told that its outputs are probabilities, but they do not sum to 1 per row."
        )
    return values.clamp(min=_SMALLEST).log()
