"""Likelihood under one Gaussian per class, each with its own covariance."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..registry import GauntletError, detector
from .base import Detector
from .moments import scatter
from .numerics import double, mean_row, rows_per_chunk
from .outputs import Head, Outputs

_KEPT = 2**26  # elements of all Cholesky factors together (512 MiB); beyond it each is made when it is needed


@detector("gmm", needs=("features", "labels"), tags=("post-hoc", "features"))
class GMM(Detector):
    """Negative log-likelihood of a mixture with one Gaussian of full covariance per class.

    ``-log sum_c pi_c N(z; mu_c, S_c + reg I)``, with covariances divided by the size of their class. Classes without
    training images are left out. Classes are handled one after the other, so that one D x D matrix at a time is
    enough however many there are.

    Args:
        reg: Added to the diagonal of each covariance, above 0.

    Raises:
        GauntletError: A parameter is out of its range.
    """

    def __init__(self, reg: float = 1e-6) -> None:
        if reg <= 0:
            raise GauntletError(f"Detector 'gmm' needs reg above 0, got {reg}.")
        self.reg = reg
        self._features: Tensor | None = None  # (N, D), of the training images, not copied
        self._members: list[Tensor] = []  # their positions, a class
        self._factors: list[Tensor] | None = None  # of the covariances, lower (D, D), where they fit

    def fit(self, train: Outputs, val: Outputs | None, head: Head | None) -> None:
        """Split features (N, D) by their labels (N,).

        Raises:
            GauntletError: No image has a class, or a covariance is singular in spite of ``reg``.
        """
        self._features, labels = self.labelled(train, "features")
        self._members = [(labels == label).nonzero()[:, 0] for label in labels.unique()]
        few = len(self._members) * self._features.shape[1] ** 2 <= _KEPT
        self._factors = [self._factor(self._features[own]) for own in self._members] if few else None

    def score(self, outputs: Outputs) -> Tensor:
        """Negative log-densities, shape (N,), in nats, float64."""
        training = self.fitted(self._features)
        total, width = training.shape
        features = self.projected_features(outputs, width)
        constant = -0.5 * width * math.log(2 * math.pi)
        score = double(features[:0]).new_full((len(features),), -torch.inf)
        for position, members in enumerate(self._members):
            own = training[members]
            factor = self._factor(own) if self._factors is None else self._factors[position]
            offset = constant + math.log(len(own) / total) - float(factor.diagonal().log().sum())
            score = torch.logaddexp(score, offset - 0.5 * _squared(features, mean_row(own), factor))
        return -score

    def _factor(self, own: Tensor) -> Tensor:
        """Lower Cholesky factor of the regularised covariance of one class."""
        mean = mean_row(own)
        covariance = scatter(own, lambda part, _: double(part) - mean) / len(own)
        covariance.diagonal().add_(self.reg)
        factor, failed = torch.linalg.cholesky_ex(covariance)
        if int(failed):
            raise GauntletError(
                f"Detector {self.name!r}: the covariance of a class is singular in spite of reg {self.reg:g}; "
                "choose a larger one."
            )
        return factor


def _squared(features: Tensor, mean: Tensor, factor: Tensor) -> Tensor:
    """Squared distances (N,) of features (N, D) to a mean, in the metric of a Cholesky factor; in chunks."""
    parts = [
        torch.linalg.solve_triangular(factor, (double(chunk) - mean).T, upper=False).square().sum(dim=0)
        for chunk in features.split(rows_per_chunk(features.shape[1]))
    ]
    return torch.cat(parts)
