"""Distance to the k-th nearest training feature."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..registry import detector
from .base import Detector
from .moments import feature_mean
from .numerics import by_rows, check_at_least, compute_dtype, double, like
from .outputs import Head, Outputs
from .search import Ranking, Search, check_neighbours, search, search_of


@detector(
    "knn",
    needs="features",
    reference="Sun, Ming, Zhu, Li 2022, arXiv 2204.06507",
    tags=("post-hoc", "features"),
)
class KNN(Detector):
    """Euclidean distance to the k-th nearest training feature, all features scaled to length 1.

    Neighbours are ranked by products in the precision of the features, which in float32 tell squared distances apart
    that differ by more than about 1e-6 of the features' squared length; the distance itself is computed in float64.

    Args:
        k: Which neighbour; at most the number of training images.
        normalize: Whether features are scaled to length 1 (a zero feature stays zero).
    """

    def __init__(self, k: int = 50, normalize: bool = True) -> None:
        check_at_least("knn", "k", k)
        self.k = k
        self.normalize = normalize
        self._search: Search | None = None
        self._centre: Tensor | None = None  # (D,), of features that are not normalised

    def fit(self, train: Outputs, val: Outputs | None, head: Head | None) -> None:
        """Look at the training features, shape (N, D), which are not copied.

        Raises:
            GauntletError: There are fewer than k of them, or they are not finite.
        """
        features = self.projected_features(train)
        check_neighbours(self.name, self.k, len(features), f"neighbour k={self.k}")
        self._search = search_of(train)
        self._centre = like(feature_mean(train, features), features)
        if self.normalize:
            # |q - b|^2 = |q|^2 + |b|^2 - 2 q.b: among features of length 1 the product alone ranks the neighbours.
            lengths = self._search.lengths
            silent = lengths == 0
            scale = lengths.masked_fill(silent, 1.0).reciprocal()
            offset = like(0.5 * silent, features) if bool(silent.any()) else None
            self._search.ask("cosine", Ranking(self.k, like(scale, features), offset))

    def score(self, outputs: Outputs) -> Tensor:
        """Distances, shape (N,), float64; in [0, 2] with ``normalize``."""
        search, centre = self.fitted(self._search), self.fitted(self._centre)
        features = self.projected_features(outputs, len(centre))
        if self.normalize:
            neighbours = search.find("cosine", self.k, outputs).positions[:, -1]
        else:
            neighbours = _kth_nearest(features.detach(), search.features, centre, self.k)

        def distance(own: Tensor, at: Tensor) -> Tensor:
            return torch.linalg.vector_norm(self._prepare(own) - self._prepare(search.features[at]), dim=1)

        return by_rows(distance, features, neighbours)

    def _prepare(self, features: Tensor) -> Tensor:
        return F.normalize(double(features), dim=1) if self.normalize else double(features)


def _kth_nearest(queries: Tensor, bank: Tensor, centre: Tensor, k: int) -> Tensor:
    """Position in ``bank`` (N, D) of the k-th nearest neighbour of each query (M, D), shape (M,)."""
    # Distances do not depend on the origin, but products are the more exact the shorter the vectors are.
    offset = by_rows(lambda part: -0.5 * (compute_dtype(part) - centre).square().sum(dim=1), bank)
    return search(compute_dtype(queries) - centre, bank, {"": Ranking(k, offset=offset)})[""].positions[:, -1]
