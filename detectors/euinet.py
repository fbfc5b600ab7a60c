"""EuiNet's own decision: the discriminator's output as one more score beside those of the classes (report R3)."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..registry import GauntletError, detector
from .base import Detector
from .numerics import double
from .odin import confidence_gradient
from .outputs import Head, Outputs


@detector("discriminator", needs="output:h", tags=("post-hoc", "named-output", "r3"))
def discriminator(h: Tensor) -> Tensor:
    """The model's own ``h`` in (0, 1), shape (N,): near 1 where its discriminator takes an image for a fake."""
    return h


@detector("euinet", needs=("images", "model", "tap", "output:h"), tags=("gradient", "r3"), differentiable=False)
class EuiNetDecision(Detector):
    """How far alpha h + gamma is above the largest class score, after a step that raises the top probability.

    An image moves by one sign step towards its top tempered probability. With the scores s of its classes and h of
    the model's discriminator, the softmax over [s, alpha h + gamma] has K + 1 entries: the image is OOD where the last
    one is the largest. The score is alpha h + gamma - max s, so it is OOD exactly where that is positive.

    Report R3 has alpha 0.004 and gamma 0.008, which fit no other scale of scores. Left out, gamma is the quantile of
    max s over ID validation images at ``false_alarms`` (the false alarm rate at h = 0), and gamma + alpha that at
    ``most_false_alarms`` (at h = 1); alpha is at least 0.

    Args:
        temperature: T > 0 of the recipe.
        temperature_convention: That of the recipe: scores are T z, or under ``divide`` z less its mean over classes.
        epsilon: Size of the step, in units in which pixels span [0, 1]; R3's 0.3 in [-1, 1] is 0.15. Not clipped.
        discriminator_input: Whether h is that of the clean or of the moved image.
        alpha: Weight of h, >= 0; None: from validation images.
        gamma: The smallest score that a class needs; None: from validation images.
        false_alarms: Share of ID validation images below gamma.
        most_false_alarms: Share of ID validation images below gamma + alpha.
    """

    needs_val: ClassVar[bool] = True

    def __init__(
        self,
        *,
        temperature: float = 1e-3,
        temperature_convention: Literal["test-multiply", "multiply", "divide"] = "test-multiply",
        epsilon: float = 0.15,
        discriminator_input: Literal["clean", "perturbed"] = "clean",
        alpha: float | None = None,
        gamma: float | None = None,
        false_alarms: float = 0.004,
        most_false_alarms: float = 0.05,
    ) -> None:
        _require(0 < temperature < math.inf, "a temperature above 0", temperature)
        _require(0 <= epsilon < math.inf, "an epsilon >= 0", epsilon)
        _require(alpha is None or 0 <= alpha < math.inf, "an alpha >= 0", alpha)
        rates = (false_alarms, most_false_alarms)
        _require(0 <= false_alarms <= most_false_alarms <= 1, "0 <= false_alarms <= most_false_alarms <= 1", rates)
        self.factor = 1.0 if temperature_convention == "divide" else temperature
        self.centred = temperature_convention == "divide"
        self.epsilon, self.perturbed = epsilon, discriminator_input == "perturbed"
        self.alpha, self.gamma, self.rates = alpha, gamma, rates
        self._fitted: tuple[float, float] | None = None
        self._last: tuple[Outputs, Tensor] | None = None

    def fit(self, train: Outputs, val: Outputs | None, head: Head | None) -> None:
        """Take alpha and gamma from the largest class scores of validation images, where they are not given."""
        alpha, gamma = self.alpha, self.gamma
        if alpha is None or gamma is None:
            largest = self._class_scores(self.validation(val))[0].amax(1)
            low, high = (float(largest.quantile(rate)) for rate in self.rates)
            gamma = low if gamma is None else gamma
            alpha = max(0.0, high - gamma) if alpha is None else alpha
        self._fitted, self._last = (alpha, gamma), None

    def score(self, outputs: Outputs) -> Tensor:
        """alpha h + gamma - max s, shape (N,), float64."""
        found = self._all_scores(outputs)
        return found[:, -1] - found[:, :-1].amax(1)

    def predict(self, outputs: Outputs) -> Tensor:
        """The class of the largest score (N,), -1 where alpha h + gamma is larger."""
        found = self._all_scores(outputs)
        top, predicted = found[:, :-1].max(1)
        return torch.where(top < found[:, -1], -1, predicted)

    def probabilities(self, outputs: Outputs) -> Tensor:
        """Softmax over the class scores and, last, alpha h + gamma: shape (N, K + 1)."""
        return self._all_scores(outputs).softmax(1)

    def _all_scores(self, outputs: Outputs) -> Tensor:
        """Class scores and alpha h + gamma (N, K + 1), kept for the next question about the same outputs."""
        alpha, gamma = self.fitted(self._fitted)
        if self._last is None or self._last[0] is not outputs:
            scores, h = self._class_scores(outputs)
            self._last = outputs, torch.cat([scores, (alpha * h + gamma)[:, None]], dim=1)
        return self._last[1]

    def _class_scores(self, outputs: Outputs) -> tuple[Tensor, Tensor]:
        """Scores of the classes (N, K) on moved images, and h (N,) of the clean or moved ones; float64."""
        batches, model, tap, clean = self.pull(outputs)
        logits, seen = [], []
        for images in batches():
            gradient = confidence_gradient(images, model, 1 / self.factor)
            with torch.no_grad():
                moved = images.detach() + self.epsilon * gradient.sign()
                found = tap(moved) if self.perturbed else {"logits": model(moved)}
            logits.append(double(found["logits"]))
            seen += [double(found["h"])] if self.perturbed else []
        scores = self.factor * torch.cat(logits)
        if self.centred:
            scores = scores - scores.mean(1, keepdim=True)
        return scores, torch.cat(seen) if self.perturbed else double(clean)


def _require(holds: bool, wanted: str, got: object) -> None:
    if not holds:
        raise GauntletError(f"Detector 'euinet' needs {wanted}, got {got}.")
