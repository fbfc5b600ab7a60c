"""NCI: nearness to the weight of the predicted class, and length."""

from __future__ import annotations

import torch
from torch import Tensor

from ..registry import detector
from .base import Detector
from .moments import feature_mean
from .numerics import by_rows, compute_dtype, double, like
from .outputs import Head, Outputs


@detector(
    "nci",
    needs=("features", "head", "logits"),
    reference="Liu, Qin 2023, arXiv 2311.01479",
    tags=("post-hoc", "features"),
    grid={"alpha": [0.0, 1e-4, 1e-3, 1e-2, 1e-1]},
)
class NCI(Detector):
    """``-(z - m)' w_y / |z - m| - alpha |z|_1``: m is the mean training feature, w_y the predicted class's weight.

    Args:
        alpha: Weight of the length, at least 0.
    """

    def __init__(self, alpha: float = 1e-4) -> None:
        self.alpha = alpha
        self._mean: Tensor | None = None  # (D,)

    def fit(self, train: Outputs, val: Outputs | None, head: Head | None) -> None:
        """Average training features (N, D).

        Raises:
            GauntletError: There are none, or they are not finite.
        """
        self._mean = feature_mean(train, self.full_features(train, fitting=True))

    def score(self, outputs: Outputs) -> Tensor:
        """Scores, shape (N,), float64; a feature that is the training mean has no direction and scores 0 for it."""
        features, head, logits = self.pull(outputs)
        mean, weight = like(self.fitted(self._mean), features), like(head.weight, features)

        def score(part: Tensor, predicted: Tensor) -> Tensor:
            centred = compute_dtype(part) - mean
            length = double(torch.linalg.vector_norm(centred, dim=1))
            along = double((centred * weight[predicted]).sum(dim=1)) / length.masked_fill(length == 0, 1.0)
            return -along - self.alpha * double(torch.linalg.vector_norm(compute_dtype(part), ord=1, dim=1))

        return by_rows(score, features, logits.argmax(dim=1))
