"""Mahalanobis distance to the nearest class mean."""

from __future__ import annotations

from torch import Tensor

from ..registry import detector
from .base import Detector
from .gaussians import Gaussians, class_gaussians, nearest_distance
from .moments import class_moments
from .outputs import Head, Outputs


@detector(
    "mahalanobis",
    needs=("features", "labels"),
    reference="Lee, Lee, Lee, Shin 2018, arXiv 1807.03888",
    tags=("post-hoc", "features"),
)
class Mahalanobis(Detector):
    """Squared Mahalanobis distance to the nearest class mean, with one covariance for all classes.

    ``min_c (z - mu_c)' S+ (z - mu_c)`` on penultimate features, without input noise; S is the covariance within the
    classes divided by N, S+ its symmetric pseudo-inverse. Classes without training images are left out.
    """

    _gaussians: Gaussians | None = None

    def fit(self, train: Outputs, val: Outputs | None, head: Head | None) -> None:
        """Estimate class means and the common covariance from features (N, D) and labels (N,).

        Raises:
            GauntletError: No image has a class, or the features are not finite.
        """
        self.projected_features(train)
        self._gaussians = class_gaussians(class_moments(self.with_class(train)))

    def score(self, outputs: Outputs) -> Tensor:
        """Squared distances, shape (N,), float64."""
        gaussians = self.fitted(self._gaussians)
        features = self.projected_features(outputs, len(gaussians.origin))
        return nearest_distance(features, gaussians)
