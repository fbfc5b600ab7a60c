"""NNGuide: energy guided by the nearest training features."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..registry import GauntletError, detector
from .base import Detector
from .numerics import double, rows_per_chunk
from .outputs import Head, Outputs


@detector(
    "nnguide",
    needs=("features", "logits"),
    reference="Park, Jung, Teoh 2023, arXiv 2309.14888",
    tags=("post-hoc", "features"),
    grid={"k": [10, 50, 100]},
)
class NNGuide(Detector):
    """``-logsumexp(l)`` times the mean of the k largest ``<z, e_i z_i>``, features scaled to length 1, e_i energies.

    Args:
        k: Number of neighbours; at most the number of training images.
    """

    def __init__(self, k: int = 100) -> None:
        if k < 1:
            raise GauntletError(f"Detector 'nnguide' needs k of at least 1, got {k}.")
        self.k = k
        self._bank: Tensor | None = None  # (N, D)

    def fit(self, train: Outputs, val: Outputs | None, head: Head | None) -> None:
        """Keep the training features (N, D), each as long as its logits' (N, C) logsumexp.

        Raises:
            GauntletError: There are fewer than k of them, or they are not finite.
        """
        features = self.compact_features(train).detach()
        if len(features) < self.k:
            raise GauntletError(
                f"Detector {self.name!r} looks for k={self.k} neighbours among only {len(features)} training images: "
                "choose a smaller k or more training images."
            )
        energies = double(self.pull(train)[1].detach()).logsumexp(dim=1)
        self._bank = F.normalize(features, dim=1) * energies[:, None].to(features.dtype)

    def score(self, outputs: Outputs) -> Tensor:
        """Scores, shape (N,), in the squared unit of the logits."""
        bank = self.fitted(self._bank)
        features = F.normalize(self.compact_features(outputs, bank.shape[1]), dim=1)
        parts = [
            double((chunk @ bank.T).topk(self.k, dim=1).values).mean(dim=1)
            for chunk in features.split(rows_per_chunk(len(bank)))
        ]
        return -torch.cat(parts) * double(self.pull(outputs)[1]).logsumexp(dim=1)
