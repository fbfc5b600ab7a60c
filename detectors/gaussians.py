"""Gaussians of classes: means, a common covariance, and distances to them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .numerics import double, mean_row, rows_per_chunk


class Gaussians(NamedTuple):
    """One Gaussian per class with a common covariance, in the basis where that covariance is the identity."""

    centre: Tensor  # (D,)
    whitening: Tensor  # (D, rank)
    means: Tensor  # (classes, rank), whitened


def fit_gaussians(features: Tensor, labels: Tensor) -> Gaussians:
    """Gaussians with a tied covariance for features (N, D) and labels (N,), in float64."""
    centre = mean_row(features)
    means, scatter = [], torch.zeros(len(centre), len(centre), dtype=centre.dtype, device=centre.device)
    for label in labels.unique():
        centred = double(features[labels == label]) - centre
        means.append(centred.mean(dim=0))
        deviation = centred - means[-1]
        scatter += deviation.T @ deviation
    white = whitening(scatter / len(features), rounding_of(features))
    return Gaussians(centre, white, torch.stack(means) @ white)


def rounding_of(features: Tensor) -> float:
    """The deviation that rounding alone may give a feature."""
    kind = features.dtype if features.is_floating_point() else torch.float32
    return float(features.abs().max()) * torch.finfo(kind).eps


def whitening(covariance: Tensor, rounding: float) -> Tensor:
    """A matrix A (D, rank) with ``A A' = covariance+``; directions without deviation are cut."""
    values, vectors = torch.linalg.eigh(covariance)
    smallest = max(float(values[-1]) * len(values) * torch.finfo(values.dtype).eps, rounding**2)
    kept = values > smallest
    return vectors[:, kept] / values[kept].sqrt()


def nearest_distance(features: Tensor, gaussians: Gaussians) -> Tensor:
    """Squared Mahalanobis distance of features (N, D) to the nearest mean, shape (N,), float64; in chunks."""
    rows = rows_per_chunk(max(features.shape[1], len(gaussians.means)))
    return torch.cat([_nearest(chunk, gaussians) for chunk in features.split(rows)])


def _nearest(features: Tensor, gaussians: Gaussians) -> Tensor:
    white = (double(features) - gaussians.centre) @ gaussians.whitening
    means = gaussians.means
    squared = white.square().sum(dim=1, keepdim=True) - 2 * white @ means.T + means.square().sum(dim=1)
    return squared.amin(dim=1).clamp(min=0)
