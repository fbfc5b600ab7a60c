"""Length of a feature outside the principal subspace."""

from __future__ import annotations

from torch import Tensor

from ..registry import detector
from .base import Detector
from .outputs import Head, Outputs
from .subspace import ResidualSpace, fit_residual_space, principal_dimension, residual_norm


@detector(
    "residual",
    needs=("features", "head"),
    reference="Wang, Li, Feng, Zhang 2022, arXiv 2203.10807",
    tags=("post-hoc", "features"),
)
class Residual(Detector):
    """``|R'(z - u)|``: R spans what the leading eigenvectors of the training features leave out, ``u = -W+ b``.

    Args:
        dim: Number of leading eigenvectors; None for half the features, at most 512 (from 1024 features on) or 1000
            (from 2048 on).
    """

    def __init__(self, dim: int | None = None) -> None:
        self.dim = dim
        self._space: ResidualSpace | None = None

    def fit(self, train: Outputs, val: Outputs | None, head: Head | None) -> None:
        """Find the subspace of training features, shape (N, D).

        Raises:
            GauntletError: There are none, they are not finite, or ``dim`` is not below D.
        """
        dim = principal_dimension(self.projected_features(train).shape[1], self.dim, self.name)
        self._space = fit_residual_space(train, self.required(head), dim)

    def score(self, outputs: Outputs) -> Tensor:
        """Lengths, shape (N,), float64."""
        space = self.fitted(self._space)
        return residual_norm(self.projected_features(outputs, len(space.origin)), space)
