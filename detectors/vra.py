"""VRA: energy with activations clipped on both sides."""

from __future__ import annotations

from torch import Tensor

from ..registry import GauntletError, detector
from .base import Detector
from .energy import energy
from .numerics import by_rows
from .outputs import Head, Outputs
from .pruning import quantile


@detector(
    "vra",
    needs=("features", "head"),
    reference="Xu, Lian, Liu, Tao 2023, arXiv 2302.11716",
    tags=("post-hoc", "features"),
    grid={"low": [0.01, 0.05, 0.1, 0.15], "high": [0.85, 0.9, 0.95, 0.99]},
)
class VRA(Detector):
    """Energy of ``W clip(z, a, b) + bias``; a and b are quantiles of all validation activations together.

    Args:
        low: Quantile of the lower bound, in [0, 1].
        high: Quantile of the upper bound, in [low, 1].

    Raises:
        GauntletError: The thresholds are out of order or range.
    """

    needs_val = True

    def __init__(self, low: float = 0.1, high: float = 0.9) -> None:
        if not 0 <= low <= high <= 1:
            raise GauntletError(f"Detector 'vra' needs 0 <= low <= high <= 1, got low {low} and high {high}.")
        self.low, self.high = low, high
        self._bounds: tuple[float, float] | None = None

    def fit(self, train: Outputs, val: Outputs | None, head: Head | None) -> None:
        """Find the bounds in validation features, shape (N, D).

        Raises:
            GauntletError: There are none, or they are not finite.
        """
        features = self.full_features(self.validation(val), fitting=True)
        self._bounds = quantile(features, self.low), quantile(features, self.high)

    def score(self, outputs: Outputs) -> Tensor:
        """Scores, shape (N,), in the unit of the logits."""
        features, head = self.pull(outputs)
        return energy(by_rows(lambda part: head.logits(self.modify(part, head)[0]), features))

    def modify(self, features: Tensor, head: Head) -> tuple[Tensor, Head]:
        """Features (N, D) clipped at the bounds, and the head as it is."""
        return features.clamp(*self.fitted(self._bounds)), head
