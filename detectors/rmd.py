"""Relative Mahalanobis distance."""

from __future__ import annotations

from torch import Tensor

from ..registry import detector
from .base import Detector
from .gaussians import Gaussians, class_gaussians, nearest_distance, one_gaussian
from .moments import class_moments
from .outputs import Head, Outputs


@detector(
    "rmd",
    needs=("features", "labels"),
    reference="Ren, Fort, Liu, Roy, Padhy, Lakshminarayanan 2021, arXiv 2106.09022",
    tags=("post-hoc", "features"),
)
class RMD(Detector):
    """Squared Mahalanobis distance to the nearest class minus that to all training images as one Gaussian.

    Each distance has its own covariance, divided by N.
    """

    def __init__(self) -> None:
        self._classes: Gaussians | None = None
        self._everything: Gaussians | None = None

    def fit(self, train: Outputs, val: Outputs | None, head: Head | None) -> None:
        """Estimate both from features (N, D) and labels (N,).

        Raises:
            GauntletError: No image has a class, or the features are not finite.
        """
        self.projected_features(train)
        moments = class_moments(self.with_class(train))
        self._classes, self._everything = class_gaussians(moments), one_gaussian(moments)

    def score(self, outputs: Outputs) -> Tensor:
        """Differences of squared distances, shape (N,), float64."""
        classes, everything = self.fitted(self._classes), self.fitted(self._everything)
        features = self.projected_features(outputs, len(classes.origin))
        return nearest_distance(features, classes) - nearest_distance(features, everything)
