"""Gaussians of classes: means, a common covariance, and distances to them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .moments import Moments
from .numerics import by_rows, compute_dtype, double, like
from .triangular import lower, times


class Gaussians(NamedTuple):
    """One Gaussian per class with a common covariance, in the basis where that covariance is the identity."""

    origin: Tensor  # (D,)
    whitening: Tensor  # (D, rank)
    means: Tensor  # (classes, rank), whitened, about the origin


def class_gaussians(moments: Moments) -> Gaussians:
    """One Gaussian per class with the covariance within the classes."""
    white = whitening(moments.within, moments.rounding)
    return Gaussians(moments.origin, white, moments.means @ white)


def one_gaussian(moments: Moments) -> Gaussians:
    """All images as one Gaussian."""
    mean = moments.weights @ moments.means
    white = whitening(moments.total(mean + moments.origin), moments.rounding)
    return Gaussians(moments.origin, white, (mean @ white)[None])


def whitening(covariance: Tensor, rounding: float) -> Tensor:
    """A matrix A (D, rank), zero above the diagonal, with ``A A' = covariance+``; what does not deviate is cut."""
    values, vectors = torch.linalg.eigh(covariance)
    smallest = max(float(values[-1]) * len(values) * torch.finfo(values.dtype).eps, rounding**2)
    kept = values > smallest
    return lower(vectors[:, kept] / values[kept].sqrt())


def nearest_distance(features: Tensor, gaussians: Gaussians) -> Tensor:
    """Squared Mahalanobis distance of features (N, D) to the nearest mean, shape (N,), float64.

    Products are in the precision of the features. The nearest class is found by expanding the square, its distance is
    then summed directly, so that no large numbers cancel in it.
    """
    origin, white, means = (like(part, features) for part in gaussians)
    half = -0.5 * means.square().sum(dim=1)

    def score(chunk: Tensor) -> Tensor:
        own = times(compute_dtype(chunk) - origin, white)
        nearest = torch.addmm(half, own.detach(), means.T).argmax(dim=1)
        return double(torch.linalg.vector_norm(own - means.index_select(0, nearest), dim=1)).square()

    return by_rows(score, features)
