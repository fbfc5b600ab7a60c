"""Calibration: how far confidence is from accuracy, and the temperature that brings them together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq
from torch import Tensor

from ..registry import GauntletError

Floats = NDArray[np.float64]

#: Where the temperature is searched; nets that end in a batch-norm need one far below 1.
TEMPERATURE_RANGE = (0.02, 20.0)

#: Half the width of a 95 % interval, in standard errors.
_Z95 = 1.959963984540054

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
    values, truth = _checked(outputs, labels)
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


def fit_temperature(logits: Any, labels: Any) -> tuple[float, float, float]:
    """The temperature T that minimises the NLL of softmax(logits / T) (Guo et al. 2017, 1706.04599).

    The NLL is convex in 1/T, so its slope has one root, which is searched on a logarithmic scale. The interval is the
    95 % sandwich interval of log T (White 1982), which does not assume that the model is right.

    Args:
        logits: Shape (N, C), of held-out images.
        labels: True classes, shape (N,).

    Returns:
        T and the ends of its interval.

    Raises:
        GauntletError: The NLL has no minimum inside :data:`TEMPERATURE_RANGE` (as when all images are right), or the
            inputs do not fit.
    """
    values, truth = _checked(logits, labels)
    centred = values - values.gather(1, truth[:, None])  # the true class at 0: the slope is then the mean of E_p[z]
    low, high = (math.log(bound) for bound in TEMPERATURE_RANGE)

    def slope(log_t: float) -> float:
        return float(_moments(centred, math.exp(-log_t))[0].mean())

    # As T falls, 1/T rises and so does the slope: the root lies between them if the signs differ.
    if not slope(low) > 0 > slope(high):
        raise GauntletError(
            f"The temperature has no optimum between {TEMPERATURE_RANGE[0]:g} and {TEMPERATURE_RANGE[1]:g} on these "
            f"{len(values)} images: use held-out images of which some are classified wrongly."
        )
    log_t = float(brentq(slope, low, high, xtol=1e-12))
    first, second = _moments(centred, math.exp(-log_t))
    error = math.sqrt(float(first.square().mean()) / len(values)) / float(second.mean())
    half = _Z95 * error * math.exp(log_t)  # log T = -log(1/T): its error is the relative error of 1/T
    return math.exp(log_t), math.exp(log_t - half), math.exp(log_t + half)


def _moments(centred: Tensor, inverse_temperature: float) -> tuple[Tensor, Tensor]:
    """First and second derivative of each image's NLL in 1/T: mean and variance of its logits under softmax."""
    p = (centred * inverse_temperature).softmax(dim=1)
    mean = (p * centred).sum(dim=1)
    return mean, (p * (centred - mean[:, None]).square()).sum(dim=1)


def _log_probabilities(values: Tensor) -> Tensor:
    if float(values.min()) < 0 or float((values.sum(dim=1) - 1).abs().max()) > _SUM_TOLERANCE:
        raise GauntletError(
            "Calibration was told that its outputs are probabilities, but they do not sum to 1 per row."
        )
    return values.clamp(min=_SMALLEST).log()


def _tensor(values: Any) -> Tensor:
    # Lists pass through numpy, which reads them in float64; torch would round them to float32.
    return torch.as_tensor(values if isinstance(values, Tensor) else np.asarray(values)).detach()


def _checked(outputs: Any, labels: Any) -> tuple[Tensor, Tensor]:
    values, truth = _tensor(outputs), _tensor(labels).long()
    values = (values.cpu() if values.device.type == "mps" else values).double()
    if values.ndim != 2 or truth.shape != values.shape[:1] or not len(truth):
        raise GauntletError(
            f"Calibration needs outputs of shape (N, C) and labels of shape (N,) with N of at least 1, got "
            f"{tuple(values.shape)} and {tuple(truth.shape)}."
        )
    bad = int((~values.isfinite()).any(dim=1).sum())
    if bad:
        raise GauntletError(f"Calibration needs finite outputs, but those of {bad} of {len(values)} images are not.")
    if int(truth.min()) < 0 or int(truth.max()) >= values.shape[1]:
        raise GauntletError(
            f"Calibration needs labels from 0 to {values.shape[1] - 1}, got {int(truth.min())} to {int(truth.max())}."
        )
    return values, truth.to(values.device)
