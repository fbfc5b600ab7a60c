"""CARef: how far a feature is from the mean of its predicted class, by its own size."""

from __future__ import annotations

import torch
from torch import Tensor

from ..registry import detector
from .base import Detector
from .moments import feature_mean, means_by
from .numerics import by_rows, compute_dtype, double, like
from .outputs import Head, Outputs

#: The least length that a feature is divided by.
_LEAST = 1e-12


@detector(
    "caref",
    needs=("features", "logits"),
    reference="Ling et al. 2025, CADRef, arXiv 2503.00325",
    tags=("post-hoc", "features"),
)
class CARef(Detector):
    """``|z - mu_y|_1 / |z|_1``: mu_y is the mean training feature of those *predicted* as the predicted class y.

    A class that no training image is predicted as has the mean of all of them.
    """

    _means: Tensor | None = None  # (C, D)

    def fit(self, train: Outputs, val: Outputs | None, head: Head | None) -> None:
        """Average training features (N, D) by the largest of their logits (N, C).

        Raises:
            GauntletError: There are none, or they are not finite.
        """
        features = self.projected_features(train)
        logits = self.pull(train)[self.needs.index("logits")].detach()
        self._means = means_by(logits.argmax(dim=1), features.detach(), logits.shape[1], feature_mean(train, features))

    def score(self, outputs: Outputs) -> Tensor:
        """Scores of at least 0, shape (N,), float64."""
        means = self.fitted(self._means)
        features, logits = self.projected_features(outputs, means.shape[1]), self.pull(outputs)[1]
        near = like(means, features)

        def error(part: Tensor, predicted: Tensor) -> Tensor:
            own = compute_dtype(part)
            return size(own - near[predicted]) / size(own).clamp(min=_LEAST)

        return by_rows(error, features, logits.argmax(dim=1))


def size(values: Tensor) -> Tensor:
    """Sums (N,) of the absolute values of each row, float64."""
    return double(torch.linalg.vector_norm(values, ord=1, dim=1))
