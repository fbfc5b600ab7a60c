"""ViM: the residual of a feature as one more logit."""

from __future__ import annotations

from torch import Tensor

from ..registry import detector
from .moments import class_moments
from .numerics import double
from .outputs import Head, Outputs
from .probabilities import log_sum_exp
from .residual import Residual
from .subspace import residual_norm


@detector(
    "vim",
    needs=("features", "head", "logits"),
    reference="Wang, Li, Feng, Zhang 2022, arXiv 2203.10807",
    tags=("post-hoc", "features"),
)
class ViM(Residual):
    """``a |R'(z - u)| - logsumexp(l)``: a scales the mean training residual to the mean largest training logit.

    Where the training features have no residual at all (they lie in the principal subspace), a is 0.

    Args:
        dim: Number of leading eigenvectors; None for half the features, at most 512 (from 1024 features on) or 1000
            (from 2048 on).
    """

    _scale = 0.0

    def fit(self, train: Outputs, val: Outputs | None, head: Head | None) -> None:
        """Find subspace and scale from training features (N, D) and logits (N, C).

        Raises:
            GauntletError: There are none, they are not finite, or ``dim`` is not below D.
        """
        super().fit(train, val, head)
        features, (_, _, logits) = self.projected_features(train).detach(), self.pull(train)
        residual = float(residual_norm(features, self.fitted(self._space)).mean())
        noise = class_moments(train).rounding * features.shape[1] ** 0.5
        self._scale = float(double(logits.amax(dim=1)).mean()) / residual if residual > noise else 0.0

    def score(self, outputs: Outputs) -> Tensor:
        """Scores, shape (N,), in the unit of the logits."""
        return self._scale * super().score(outputs) - log_sum_exp(self.pull(outputs)[2])
