"""Mahalanobis distance to the nearest class mean."""

from __future__ import annotations

from torch import Tensor

from ..registry import detector
from .base import Detector
from .gaussians import Gaussians, class_gaussians, nearest_distance
from .moments import Moments, class_moments, of_unit_features, unit_features
from .outputs import Head, Outputs


@detector(
    "mahalanobis",
    needs=("features", "labels"),
    reference="Lee, Lee, Lee, Shin 2018, arXiv 1807.03888; normalised: Mueller, Hein 2025, arXiv 2505.18032",
    tags=("post-hoc", "features"),
)
class Mahalanobis(Detector):
    """Squared Mahalanobis distance to the nearest class mean, with one covariance for all classes.

    ``min_c (z - mu_c)' S+ (z - mu_c)`` on penultimate features, without input noise; S is the covariance within the
    classes divided by N, S+ its symmetric pseudo-inverse. Classes without training images are left out.

    Args:
        normalize: Whether features are first divided by their length (Mahalanobis++).
    """

    normalize = False
    _gaussians: Gaussians | None = None

    def __init__(self, normalize: bool = False) -> None:
        self.normalize = normalize

    def fit(self, train: Outputs, val: Outputs | None, head: Head | None) -> None:
        """Estimate class means and the common covariance from features (N, D) and labels (N,).

        Raises:
            GauntletError: No image has a class, or the features are not finite.
        """
        self._gaussians = class_gaussians(self._moments(train))

    def score(self, outputs: Outputs) -> Tensor:
        """Squared distances, shape (N,), float64."""
        gaussians = self.fitted(self._gaussians)
        return nearest_distance(self._features(outputs, gaussians), gaussians)

    def _moments(self, train: Outputs) -> Moments:
        self.projected_features(train)
        known = self.with_class(train)
        return class_moments(of_unit_features(known) if self.normalize else known)

    def _features(self, outputs: Outputs, gaussians: Gaussians) -> Tensor:
        features = self.projected_features(outputs, len(gaussians.origin))
        return unit_features(features) if self.normalize else features
