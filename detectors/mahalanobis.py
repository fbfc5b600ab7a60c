"""Mahalanobis distance to the nearest class mean."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..registry import GauntletError, detector
from .base import Detector
from .numerics import double, rows_per_chunk
from .outputs import Head, Outputs


class Gaussians(NamedTuple):
    """One Gaussian per class with a common covariance, in the basis where that covariance is the identity."""

    centre: Tensor  # (D,)
    whitening: Tensor  # (D, rank)
    means: Tensor  # (classes, rank), whitened


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

    def __init__(self) -> None:
        self._gaussians: Gaussians | None = None

    def fit(self, train: Outputs, val: Outputs | None, head: Head | None) -> None:
        """Estimate class means and the common covariance from features (N, D) and labels (N,).

        Raises:
            GauntletError: No image has a class, or the features are not finite.
        """
        features, labels = self.compact_features(train).detach(), train.labels
        known = (labels >= 0).to(features.device)
        if not bool(known.any()):
            raise GauntletError(f"Detector {self.name!r} cannot be fitted: no training image has a class label.")
        self._gaussians = fit_gaussians(features[known], labels.to(features.device)[known])

    def score(self, outputs: Outputs) -> Tensor:
        """Squared distances, shape (N,), float64."""
        gaussians = self.fitted(self._gaussians)
        features = self.compact_features(outputs, len(gaussians.centre))
        rows = rows_per_chunk(max(features.shape[1], len(gaussians.means)))
        return torch.cat([_nearest(chunk, gaussians) for chunk in features.split(rows)])


def fit_gaussians(features: Tensor, labels: Tensor) -> Gaussians:
    """Gaussians with a tied covariance for features (N, D) and labels (N,), in float64."""
    centre = double(features).mean(dim=0)
    means, scatter = [], torch.zeros(len(centre), len(centre), dtype=centre.dtype, device=centre.device)
    for label in labels.unique():
        centred = double(features[labels == label]) - centre
        means.append(centred.mean(dim=0))
        deviation = centred - means[-1]
        scatter += deviation.T @ deviation
    whitening = _whitening(scatter / len(features), _rounding(features))
    return Gaussians(centre, whitening, torch.stack(means) @ whitening)


def _rounding(features: Tensor) -> float:
    """The deviation that rounding alone may give a feature."""
    kind = features.dtype if features.is_floating_point() else torch.float32
    return float(features.abs().max()) * torch.finfo(kind).eps


def _whitening(covariance: Tensor, rounding: float) -> Tensor:
    """A matrix A (D, rank) with ``A A' = covariance+``; directions without deviation are cut."""
    values, vectors = torch.linalg.eigh(covariance)
    smallest = max(float(values[-1]) * len(values) * torch.finfo(values.dtype).eps, rounding**2)
    kept = values > smallest
    return vectors[:, kept] / values[kept].sqrt()


def _nearest(features: Tensor, gaussians: Gaussians) -> Tensor:
    white = (double(features) - gaussians.centre) @ gaussians.whitening
    means = gaussians.means
    squared = white.square().sum(dim=1, keepdim=True) - 2 * white @ means.T + means.square().sum(dim=1)
    return squared.amin(dim=1).clamp(min=0)
