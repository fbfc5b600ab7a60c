"""Relation: how strongly an image is related to the training images."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..registry import GauntletError, detector
from .base import Detector
from .numerics import compute_dtype, double, like, rows_per_chunk
from .outputs import Head, Outputs
from .search import Search, search_of


@detector(
    "relation",
    needs=("features", "logits"),
    reference="Kim, Yun, Song 2023, arXiv 2301.12321",
    tags=("post-hoc", "features"),
    grid={"power": [1, 2, 4, 6, 8]},
)
class Relation(Detector):
    """``-sum_i k_i^power`` over training images with ``k_i = max(0, z'z_i) p'p_i`` above a threshold.

    Features have length 1, p are softmax probabilities. An image that is related to none scores 0. Relations are in
    the precision of the features, their sum in float64.

    Args:
        power: Exponent of a relation, at least 1.
        threshold: Relations up to it do not count, in [0, 1).

    Raises:
        GauntletError: power is below one.
    """

    def __init__(self, power: int = 1, threshold: float = 0.03) -> None:
        if power < 1:
            raise GauntletError(f"Detector 'relation' needs power of at least 1, got {power}.")
        if not 0 <= threshold < 1:
            raise GauntletError(f"Detector 'relation' needs a threshold of at least 0 and below 1, got {threshold:g}.")
        self.power, self.threshold = power, threshold
        self._search: Search | None = None
        self._likely: Tensor | None = None  # (N, C): probabilities, divided by the length of the feature

    def fit(self, train: Outputs, val: Outputs | None, head: Head | None) -> None:
        """Look at training features (N, D), which are not copied, and at their logits (N, C).

        Raises:
            GauntletError: There are none, or they are not finite.
        """
        features = self.projected_features(train)
        self._search = search_of(train)
        lengths = self._search.lengths
        likely = double(self.pull(train)[1].detach()).softmax(dim=1)
        self._likely = like(likely / lengths.masked_fill(lengths == 0, 1.0)[:, None], features)

    def score(self, outputs: Outputs) -> Tensor:
        """Scores of at most 0, shape (N,), float64."""
        bank, likely = self.fitted(self._search).features, self.fitted(self._likely)
        features = self.projected_features(outputs, bank.shape[1])
        queries = F.normalize(compute_dtype(features), dim=1)
        p = like(double(self.pull(outputs)[1]).softmax(dim=1), features)
        rows = rows_per_chunk(len(bank))
        parts = [self._strength(*pair, bank, likely) for pair in zip(queries.split(rows), p.split(rows), strict=True)]
        return -torch.cat(parts)

    def _strength(self, queries: Tensor, p: Tensor, bank: Tensor, likely: Tensor) -> Tensor:
        relations = (queries @ compute_dtype(bank).T).clamp(min=0) * (p @ likely.T)
        relations = torch.where(relations > self.threshold, relations, 0.0)
        return double(relations if self.power == 1 else relations**self.power).sum(dim=1)
