"""Distance to the k-th nearest training feature."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..registry import GauntletError, detector
from .base import Detector
from .numerics import double, rows_per_chunk
from .outputs import Head, Outputs


@detector(
    "knn",
    needs="features",
    reference="Sun, Ming, Zhu, Li 2022, arXiv 2204.06507",
    tags=("post-hoc", "features"),
)
class KNN(Detector):
    """Euclidean distance to the k-th nearest training feature, all features scaled to length 1.

    Args:
        k: Which neighbour; at most the number of training images.
        normalize: Whether features are scaled to length 1 (a zero feature stays zero).
    """

    def __init__(self, k: int = 50, normalize: bool = True) -> None:
        if k < 1:
            raise GauntletError(f"Detector 'knn' needs k of at least 1, got {k}.")
        self.k = k
        self.normalize = normalize
        self._centre: Tensor | None = None  # (D,)
        self._bank: Tensor | None = None  # (N, D), around the centre

    def fit(self, train: Outputs, val: Outputs | None, head: Head | None) -> None:
        """Keep the training features, shape (N, D).

        Raises:
            GauntletError: There are fewer than k of them, or they are not finite.
        """
        features = self.compact_features(train)
        if len(features) < self.k:
            raise GauntletError(
                f"Detector {self.name!r} looks for neighbour k={self.k} among only {len(features)} training images: "
                "choose a smaller k or more training images."
            )
        bank = torch.empty_like(features)
        rows = rows_per_chunk(features.shape[1])
        for own, chunk in zip(bank.split(rows), features.detach().split(rows), strict=True):
            own.copy_(self._prepare(chunk))
        # Distances do not depend on the origin, but float32 products are the more exact the shorter the vectors are.
        self._centre = bank.mean(dim=0)
        self._bank = bank.sub_(self._centre)

    def score(self, outputs: Outputs) -> Tensor:
        """Distances, shape (N,), float64; in [0, 2] with ``normalize``."""
        bank, centre = self.fitted(self._bank), self.fitted(self._centre)
        features = self._prepare(self.compact_features(outputs, len(centre))) - centre
        neighbours = bank[_kth_nearest(features.detach(), bank, self.k)]
        # The search ranks with float32 products; the distance itself is exact and differentiable.
        return torch.linalg.vector_norm(double(features) - double(neighbours), dim=1)

    def _prepare(self, features: Tensor) -> Tensor:
        return F.normalize(features, dim=1) if self.normalize else features


@torch.no_grad()
def _kth_nearest(queries: Tensor, bank: Tensor, k: int) -> Tensor:
    """Position in ``bank`` (N, D) of the k-th nearest neighbour of each query (M, D), shape (M,)."""
    # |q - b|^2 = |q|^2 - 2 (q.b - |b|^2 / 2): the bracket alone ranks the neighbours of one query.
    offset = torch.cat([-0.5 * part.square().sum(dim=1) for part in bank.split(rows_per_chunk(bank.shape[1]))])
    found = [
        torch.addmm(offset, chunk, bank.T).topk(k, dim=1).indices[:, -1]
        for chunk in queries.split(rows_per_chunk(len(bank)))
    ]
    return torch.cat(found)
