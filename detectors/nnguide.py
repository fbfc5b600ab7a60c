"""NNGuide: energy guided by the nearest training features."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from ..registry import detector
from .base import Detector
from .numerics import by_rows, check_at_least, double, like
from .outputs import Head, Outputs
from .probabilities import log_sum_exp
from .search import Ranking, Search, check_neighbours, search_of


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
        check_at_least("nnguide", "k", k)
        self.k = k
        self._search: Search | None = None
        self._scale: Tensor | None = None  # (N,): e_i / |z_i|

    def fit(self, train: Outputs, val: Outputs | None, head: Head | None) -> None:
        """Look at the training features (N, D), not copied, and at the logsumexp of their logits (N, C).

        Raises:
            GauntletError: There are fewer than k of them, or they are not finite.
        """
        features = self.projected_features(train).detach()
        check_neighbours(self.name, self.k, len(features), f"k={self.k} neighbours")
        self._search = search_of(train)
        energies = log_sum_exp(self.pull(train)[1].detach())
        lengths = self._search.lengths
        self._scale = like(energies / lengths.masked_fill(lengths == 0, 1.0), features)
        self._search.ask("energy", Ranking(self.k, self._scale))

    def score(self, outputs: Outputs) -> Tensor:
        """Scores, shape (N,), in the squared unit of the logits."""
        search, scale = self.fitted(self._search), self.fitted(self._scale)
        features = self.projected_features(outputs, search.features.shape[1])
        found = search.find("energy", self.k, outputs)

        def mean_product(own: Tensor, at: Tensor) -> Tensor:
            neighbours = double(search.features[at]) * double(scale[at])[:, :, None]
            return (F.normalize(double(own), dim=1)[:, None] * neighbours).sum(dim=2).mean(dim=1)

        # Once more, differentiably, where somebody wants the gradient.
        values = double(found.values)
        means = by_rows(mean_product, features, found.positions) if features.requires_grad else values.mean(dim=1)
        return -means * log_sum_exp(self.pull(outputs)[1])
