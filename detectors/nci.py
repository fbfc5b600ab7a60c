"""NCI: nearness to the weight of the predicted class, and length."""

from __future__ import annotations

import torch
from torch import Tensor

from ..registry import detector
from .base import Detector
from .head import apply_head
from .numerics import double, mean_row
from .outputs import Head, Outputs


@detector(
    "nci",
    needs=("features", "head"),
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
        self._mean = mean_row(self.whole_features(train, fitting=True))

    def score(self, outputs: Outputs) -> Tensor:
        """Scores, shape (N,), float64; a feature that is the training mean has no direction and scores 0 for it."""
        mean = self.fitted(self._mean)
        features, head = self.pull(outputs)
        centred = double(features) - mean
        weight = double(head.weight)[apply_head(features, head).argmax(dim=1)]
        length = torch.linalg.vector_norm(centred, dim=1)
        along = (centred * weight).sum(dim=1) / length.masked_fill(length == 0, 1.0)
        return -along - self.alpha * double(features).abs().sum(dim=1)
