"""The temperature that brings a classifier's confidence and its accuracy together."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor

from ..registry import GauntletError

#: Where the temperature is searched; nets that end in a batch-norm need one far below 1.
TEMPERATURE_RANGE = (0.001, 1000.0)

_MASKED = -1e30  # in the place of minus infinity: as improbable, and its square is a number

#: Half the width of a 95 % interval, in standard errors.
_Z95 = 1.959963984540054


def fit_temperature(logits: Any, labels: Any) -> tuple[float, float, float]:
    """The temperature T that minimises the NLL of softmax(logits / T) (Guo et al. 2017, 1706.04599).

    The NLL is convex in 1/T, so its slope has one root, which is searched on a logarithmic scale. The interval is the
    95 % sandwich interval of log T (White 1982), which does not assume that the model is right.

    Args:
        logits: Shape (N, C), of held-out images.
        labels: True classes, shape (N,).

    Returns:
        T and the ends of its interval; an end outside of :data:`TEMPERATURE_RANGE` is that of the range.

    Raises:
        GauntletError: The NLL has no minimum inside the range (as when all images are right), or the inputs do not fit.
    """
    values, truth = checked(logits, labels)
    centred = values - values.gather(1, truth[:, None])  # the true class at 0: the slope is then the mean of E_p[z]
    low, high = (math.log(bound) for bound in TEMPERATURE_RANGE)

    def slope(log_t: float) -> float:
        return float(_moments(centred, math.exp(-log_t))[0].mean())

    # As T falls, 1/T rises and so does the slope: the root lies between them if the signs differ.
    if not slope(low) > 0 > slope(high):
        bound, cure = (low, "of which some are classified wrongly") if slope(high) < 0 else (high, "that it gets right")
        raise GauntletError(
            f"The temperature has no optimum between {TEMPERATURE_RANGE[0]:g} and {TEMPERATURE_RANGE[1]:g} on these "
            f"{len(values)} images (the NLL falls up to {math.exp(bound):g}): use held-out images {cure}."
        )
    log_t = float(brentq(slope, low, high, xtol=1e-12))
    first, second = _moments(centred, math.exp(-log_t))
    error = math.sqrt(float(first.square().mean()) / len(values)) / float(second.mean())
    half = _Z95 * error * math.exp(log_t)  # log T = -log(1/T): its error is the relative error of 1/T
    ends = (math.exp(min(max(end, low), high)) for end in (log_t - half, log_t + half))
    return (math.exp(log_t), *ends)  # type: ignore[return-value]


def _moments(centred: Tensor, inverse_temperature: float) -> tuple[Tensor, Tensor]:
    """First and second derivative of each image's NLL in 1/T: mean and variance of its logits under softmax."""
    p = (centred * inverse_temperature).softmax(dim=1)
    mean = (p * centred).sum(dim=1)
    return mean, (p * (centred - mean[:, None]).square()).sum(dim=1)


def _tensor(values: Any) -> Tensor:
    # Lists pass through numpy, which reads them in float64; torch would round them to float32.
    return torch.as_tensor(values if isinstance(values, Tensor) else np.asarray(values)).detach()


def checked(outputs: Any, labels: Any) -> tuple[Tensor, Tensor]:
    """Outputs (N, C) in float64 and labels (N,) int64 on one device.

    Raises:
        GauntletError: Shapes do not fit, a value is not finite, or a label is out of range.
    """
    values, truth = _tensor(outputs), _tensor(labels).long()
    values = (values.cpu() if values.device.type == "mps" else values).double()
    if values.ndim != 2 or truth.shape != values.shape[:1] or not len(truth):
        raise GauntletError(
            f"Calibration needs outputs of shape (N, C) and labels of shape (N,) with N of at least 1, got "
            f"{tuple(values.shape)} and {tuple(truth.shape)}."
        )
    bad = int((~values.isfinite() & (values != -math.inf)).any(dim=1).sum())
    if bad:
        raise GauntletError(f"Calibration needs finite outputs, but those of {bad} of {len(values)} images are not.")
    if int(truth.min()) < 0 or int(truth.max()) >= values.shape[1]:
        raise GauntletError(
            f"Calibration needs labels from 0 to {values.shape[1] - 1}, got {int(truth.min())} to {int(truth.max())}."
        )
    truth = truth.to(values.device)
    if masked := int((values.gather(1, truth[:, None]) == -math.inf).sum()):
        raise GauntletError(f"The NLL is infinite: the class of {masked} images is masked (a logit of minus infinity).")
    return values.clamp(min=_MASKED), truth
