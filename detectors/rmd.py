"""Relative Mahalanobis distance."""

from __future__ import annotations

from torch import Tensor

from ..registry import detector
from .gaussians import Gaussians, nearest_distance, one_gaussian
from .mahalanobis import Mahalanobis
from .outputs import Head, Outputs


@detector(
    "rmd",
    needs=("features", "labels"),
    reference="Ren, Fort, Liu, Roy, Padhy, Lakshminarayanan 2021, arXiv 2106.09022; normalised: Mueller, Hein 2025, "
    "arXiv 2505.18032",
    tags=("post-hoc", "features"),
)
class RMD(Mahalanobis):
    """Squared Mahalanobis distance to the nearest class minus that to all training images as one Gaussian.

    Each distance has its own covariance, divided by N.

    Args:
        normalize: Whether features are first divided by their length (RMDS++).
    """

    _everything: Gaussians | None = None

    def fit(self, train: Outputs, val: Outputs | None, head: Head | None) -> None:
        """Estimate both from features (N, D) and labels (N,).

        Raises:
            GauntletError: No image has a class, or the features are not finite.
        """
        super().fit(train, val, head)
        self._everything = one_gaussian(self._moments(train))

    def score(self, outputs: Outputs) -> Tensor:
        """Differences of squared distances, shape (N,), float64."""
        classes, everything = self.fitted(self._gaussians), self.fitted(self._everything)
        features = self._features(outputs, classes)
        return nearest_distance(features, classes) - nearest_distance(features, everything)
