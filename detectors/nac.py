"""NAC-UE: how often training images brought the neurons into the state that an image brings them into."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..registry import GauntletError, detector
from .base import Detector
from .numerics import by_rows, cached_rows, double
from .outputs import Head, Outputs

#: Where the outermost bins begin, as a value of the sigmoid.
_LEAST_STATE = 1e-6


@detector(
    "nac",
    needs=("features", "head"),
    reference="Liu, Tian, Li, Ma, Wang 2024, arXiv 2306.02879",
    tags=("post-hoc", "features"),
    grid={"steepness": [1.0, 10.0, 100.0, 1000.0], "full": [1, 5, 50]},
)
class NeuronCoverage(Detector):
    """Minus the mean over features of ``min(n / full, 1)``: n training images lie in the bin of the feature's state.

    The state of feature i is ``sigmoid(steepness z_i g_i)``; g is the gradient of ``KL(uniform || softmax(l))`` in the
    features, ``W'(p - 1/C)``. Half of the bins divide (0, 0.5] evenly in the logarithm, the others mirror them: states
    crowd at both ends and at 0.5 (a feature of 0). The paper adds up several layers; this is the last one's features.

    It wants many training images, or a small ``full``: with few, the states of confident images are rare too, and only
    unsure ones count as covered.

    Args:
        bins: Number of bins, even, at least 2.
        steepness: Of the sigmoid, above 0.
        full: Training images from which a bin counts as covered, at least 1.

    Raises:
        GauntletError: A parameter is out of its range.
    """

    def __init__(self, bins: int = 50, steepness: float = 100.0, full: int = 50) -> None:
        if bins < 2 or bins % 2:
            raise GauntletError(f"Detector 'nac' needs an even number of bins, at least 2, got {bins}.")
        if not 0 < steepness < math.inf:
            raise GauntletError(f"Detector 'nac' needs a finite steepness above 0, got {steepness:g}.")
        if full < 1:
            raise GauntletError(f"Detector 'nac' needs full of at least 1 image, got {full}.")
        self.bins, self.steepness, self.full = bins, steepness, full
        self._covered: Tensor | None = None  # (D, bins): share of a full bin

    def fit(self, train: Outputs, val: Outputs | None, head: Head | None) -> None:
        """Count the states of training features (N, D).

        Raises:
            GauntletError: There are none, or they are not finite.
        """
        features, head = self.full_features(train, fitting=True), self.required(head)
        bins = _Bins.of(self.bins, self.steepness, head, features)
        counts = torch.zeros(features.shape[1], self.bins, dtype=torch.long, device=features.device)
        for part in features.split(cached_rows(features.shape[1])):
            counts += bins.histogram(part)
        self._covered = double(counts).div(self.full).clamp(max=1.0)

    def score(self, outputs: Outputs) -> Tensor:
        """Scores in [-1, 0], shape (N,), float64."""
        features, head = self.pull(outputs)
        covered = self.fitted(self._covered).to(features.device).flatten()
        bins = _Bins.of(self.bins, self.steepness, head, features)
        return by_rows(lambda part: -covered[bins.places(part)].mean(dim=1), features)


class _Bins(NamedTuple):
    """Bins of ``z_i g_i``, for all features one after the other."""

    head: Head
    weight: Tensor  # (C, D) in float64
    edges: Tensor  # (bins - 1,) between them
    starts: Tensor  # (D,): place of each feature's first bin

    @classmethod
    def of(cls, bins: int, steepness: float, head: Head, features: Tensor) -> _Bins:
        weight = double(head.weight)
        below = torch.logspace(math.log10(_LEAST_STATE), math.log10(0.5), bins // 2 + 1, dtype=torch.float64)[1:-1]
        edges = below.logit() / steepness
        edges = torch.cat([edges, edges.new_zeros(1), -edges.flip(0)])
        return cls(head, weight, edges.to(weight.device), torch.arange(weight.shape[1], device=weight.device) * bins)

    def places(self, features: Tensor) -> Tensor:
        """The place of each state of features (N, D)."""
        p = self.head.logits(features).softmax(dim=1)
        slopes = (p - 1 / p.shape[1]) @ self.weight
        return torch.bucketize(double(features) * slopes, self.edges) + self.starts

    def histogram(self, features: Tensor) -> Tensor:
        """How many of the features (N, D) are in each bin, shape (D, bins)."""
        total = len(self.starts) * (len(self.edges) + 1)
        return torch.bincount(self.places(features).flatten(), minlength=total).view(len(self.starts), -1)
