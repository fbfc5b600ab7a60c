"""ViM: the residual of a feature as one more logit."""

from __future__ import annotations

from torch import Tensor

from ..registry import detector
from .base import Detector
from .moments import class_moments
from .numerics import double
from .outputs import Head, Outputs
from .probabilities import log_sum_exp
from .subspace import ResidualSpace, fit_residual_space, principal_dimension, residual_norm


@detector(
    "vim",
    needs=("features", "head", "logits"),
    reference="Wang, Li, Feng, Zhang 2022, arXiv 2203.10807",
    tags=("post-hoc", "features"),
)
class ViM(Detector):
    """``a |R'(z - u)| - logsumexp(l)``: a scales the mean training residual to the mean largest training logit.

    Where the training features have no residual at all (they lie in the principal subspace), a is 0.

    Args:
        dim: Number of leading eigenvectors; None for half the features, at most 512 (from 1024 features on) or 1000
            (from 2048 on).
    """

    def __init__(self, dim: int | None = None) -> None:
        self.dim = dim
        self._space: ResidualSpace | None = None
        self._scale = 0.0

    def fit(self, train: Outputs, val: Outputs | None, head: Head | None) -> None:
        """Find subspace and scale from training features (N, D) and logits (N, C).

        Raises:
            GauntletError: There are none, they are not finite, or ``dim`` is not below D.
        """
        features = self.projected_features(train).detach()
        dim = principal_dimension(features.shape[1], self.dim, self.name)
        self._space = fit_residual_space(train, self.required(head), dim)
        _, _, logits = self.pull(train)
        residual = float(residual_norm(features, self._space).mean())
        noise = class_moments(train).rounding * features.shape[1] ** 0.5
        self._scale = float(double(logits.amax(dim=1)).mean()) / residual if residual > noise else 0.0

    def score(self, outputs: Outputs) -> Tensor:
        """Scores, shape (N,), in the unit of the logits."""
        space = self.fitted(self._space)
        _, _, logits = self.pull(outputs)
        residual = residual_norm(self.projected_features(outputs, len(space.origin)), space)
        return self._scale * residual - log_sum_exp(logits)
