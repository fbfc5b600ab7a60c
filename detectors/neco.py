"""NECO: the share of a feature that lies where the training features vary."""

from __future__ import annotations

import torch
from torch import Tensor

from ..registry import GauntletError, detector
from .base import Detector
from .moments import class_moments
from .numerics import by_rows, compute_dtype, double, like
from .outputs import Head, Outputs
from .triangular import lower, times

#: Share of the training variance that the principal directions hold by default, as the paper advises.
_EXPLAINED = 0.9


@detector(
    "neco",
    needs=("features", "logits"),
    reference="Ben Ammar, Belkhir, Popescu, Manzanera, Franchi 2023, arXiv 2310.06823",
    tags=("post-hoc", "features"),
    grid={"dim": [4, 8, 16, 32, 64, 128], "max_logit": [False, True]},
)
class NECO(Detector):
    """``-|P' z| / |z|``: P are the principal directions of training features, all centred and divided by deviations.

    As in the authors' code, the features are standardised one by one (one that does not vary is only centred), which
    the formula in the paper leaves out. A feature that is the training mean has no direction and scores 0.

    Args:
        dim: Number of principal directions, at most D; None for as many as hold 90 % of the training variance.
        max_logit: Whether the share is multiplied by the largest logit, as the authors do for transformers.

    Raises:
        GauntletError: dim is below one.
    """

    def __init__(self, dim: int | None = None, max_logit: bool = False) -> None:
        if dim is not None and dim < 1:
            raise GauntletError(f"Detector 'neco' needs dim of at least 1, got {dim}.")
        self.dim, self.max_logit = dim, max_logit
        self._space: tuple[Tensor, Tensor, Tensor] | None = None  # mean (D,), deviation (D,), directions (D, dim)

    def fit(self, train: Outputs, val: Outputs | None, head: Head | None) -> None:
        """Find the principal directions of training features (N, D).

        Raises:
            GauntletError: There are none, or they are not finite.
        """
        self.projected_features(train)
        moments = class_moments(train)
        mean = moments.origin + moments.weights @ moments.means
        covariance = moments.total(mean)
        deviation = covariance.diagonal().clamp(min=0).sqrt()
        deviation = deviation.masked_fill(deviation <= moments.rounding, 1.0)
        variances, vectors = torch.linalg.eigh(covariance / deviation / deviation[:, None])
        kept = _explaining(variances.flip(0)) if self.dim is None else min(self.dim, len(mean))
        self._space = mean, deviation, lower(vectors[:, -kept:])

    def score(self, outputs: Outputs) -> Tensor:
        """Scores, shape (N,), float64; in [-1, 0] without ``max_logit``."""
        space = self.fitted(self._space)
        features = self.projected_features(outputs, len(space[0]))
        mean, deviation, directions = (like(part, features) for part in space)

        def share(part: Tensor) -> Tensor:
            own = (compute_dtype(part) - mean) / deviation
            inside, whole = (double(torch.linalg.vector_norm(of, dim=1)) for of in (times(own, directions), own))
            return inside / whole.masked_fill(whole == 0, 1.0)

        shares = by_rows(share, features)
        return -shares * double(self.pull(outputs)[1].amax(dim=1)) if self.max_logit else -shares


def _explaining(variances: Tensor) -> int:
    """How many of the variances, in falling order, hold :data:`_EXPLAINED` of them all; at least one."""
    shares = variances.clamp(min=0).cumsum(0)
    return min(int((shares < _EXPLAINED * shares[-1]).sum()) + 1, len(variances))
