"""Maximum softmax probability of a calibrated model."""

from __future__ import annotations

import math

from scipy.optimize import brentq
from torch import Tensor

from ..registry import GauntletError, detector
from .base import Detector
from .msp import msp
from .numerics import double
from .outputs import Head, Outputs

_RANGE = (0.02, 1000.0)


@detector(
    "temperature-scaled",
    needs=("logits", "labels"),
    reference="Guo, Pleiss, Sun, Weinberger 2017, arXiv 1706.04599",
    tags=("post-hoc", "logits"),
)
class TemperatureScaled(Detector):
    """``msp`` at the temperature that minimises the NLL of validation images.

    The temperature is searched in [0.02, 1000]; where the NLL falls up to an end (as when every image is right), that
    end is taken.
    """

    needs_val = True

    temperature: float | None = None

    def fit(self, train: Outputs, val: Outputs | None, head: Head | None) -> None:
        """Find the temperature from validation logits (N, C) and labels (N,).

        Raises:
            GauntletError: There are no validation images with a class.
        """
        held_out = self.validation(val)
        logits, labels = self.labelled(held_out, "logits")
        self.temperature = _best_temperature(double(logits).detach(), labels)

    def score(self, outputs: Outputs) -> Tensor:
        """Scores in [0, 1 - 1/C], shape (N,)."""
        temperature = self.fitted(self.temperature)
        return msp(self.pull(outputs)[0], temperature=temperature)


def _best_temperature(logits: Tensor, labels: Tensor) -> float:
    """The NLL is convex in 1/T: its slope, the mean of E_p[l] - l_y, is searched for its root."""
    classes = logits.shape[1]
    if int(labels.max()) >= classes:
        raise GauntletError(f"Labels up to {int(labels.max())} do not fit logits of {classes} classes.")
    centred = (logits - logits.gather(1, labels[:, None])).clamp(min=-1e30)  # finite for a masked class too
    if not bool(centred.isfinite().all()):
        raise GauntletError("The true class of a validation image is masked (its logit is minus infinity).")
    low, high = (math.log(bound) for bound in _RANGE)

    def slope(log_t: float) -> float:
        return float(((centred * math.exp(-log_t)).softmax(dim=1) * centred).sum(dim=1).mean())

    # It falls as T rises; where it does not pass 0 between the ends, one of them is best.
    if slope(low) <= 0:
        return _RANGE[0]
    if slope(high) >= 0:
        return _RANGE[1]
    return math.exp(brentq(slope, low, high, xtol=1e-10))
