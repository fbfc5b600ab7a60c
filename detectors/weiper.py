"""WeiPer + KLD: the density of an image's features and of its randomly perturbed logits, against that of training."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..registry import GauntletError, detector
from .base import Detector
from .numerics import cached_rows, check_at_least, compute_dtype, double, like
from .outputs import Head, Outputs

#: Seed of the perturbations: part of the definition, so it never changes.
_SEED = 2_405
#: Projections that are made by default at most.
_PROJECTIONS = 10_000
#: What is added to every bin of the features' and of the logits' densities.
_FLOORS = (0.01, 0.025)


class _Density(NamedTuple):
    """Bins of one kind of values, and the mean density of the training images in them."""

    low: float
    high: float
    mean: Tensor  # (bins,)
    floor: float

    def divergence(self, values: Tensor, smoothing: int) -> Tensor:
        """Symmetric KL divergence (N,) of the density of each row of values (N, M) from the mean, float64."""
        q = _normal(_smooth(densities(values, self.low, self.high, len(self.mean)), smoothing) + self.floor)
        p = _normal(self.mean.to(q.device) + self.floor)
        return ((p - q) * (p.log() - q.log())).sum(dim=1)


@detector(
    "weiper",
    needs=("features", "head"),
    reference="Granz, Heurich, Landgraf 2024, NeurIPS, arXiv 2405.17164",
    tags=("post-hoc", "features"),
    differentiable=False,
    grid={"distance": [1.8, 2.1, 2.4], "weight": [0.1, 1.0, 2.5], "confidence": [0.1, 1.0, 2.5]},
)
class WeiPer(Detector):
    """``KLD(features) + weight KLD(perturbed logits) - confidence MSP``, as the authors' code for OpenOOD has it.

    Perturbed logits are those of ``repeats`` copies of the head, to every weight vector of which a random vector of
    ``distance`` times its length was added; MSP is the mean of their largest softmax probabilities. A density is the
    histogram of all of an image's features, or perturbed logits, between the smallest and the largest value in training
    (smoothed by a moving mean; that of training, the mean over images, is not), a KLD is in both directions.

    Args:
        repeats: Copies of the head; None for 100, or as many as make 10,000 logits where that is fewer.
        distance: Length of a perturbation, in lengths of the weight.
        bins: Of each density.
        smoothing: Bins that the moving mean over features takes, and that over logits.
        weight: Of the divergence of the perturbed logits.
        confidence: Of the mean softmax probability.

    Raises:
        GauntletError: smoothing spans more than all bins.
    """

    def __init__(
        self,
        repeats: int | None = None,
        distance: float = 2.1,
        bins: int = 100,
        smoothing: int = 20,
        weight: float = 1.0,
        confidence: float = 1.0,
    ) -> None:
        for name, value in (("repeats", repeats), ("bins", bins), ("smoothing", smoothing)):
            check_at_least("weiper", name, 1 if value is None else value)
        if smoothing > bins:
            raise GauntletError(f"Detector 'weiper' needs smoothing of at most its {bins} bins, got {smoothing}.")
        self.repeats, self.distance, self.bins, self.smoothing = repeats, distance, bins, smoothing
        self.weight, self.confidence = weight, confidence
        self._densities: list[_Density] = []
        self._heads: Head | None = None

    def fit(self, train: Outputs, val: Outputs | None, head: Head | None) -> None:
        """Perturb the head and average the densities of training features (N, D).

        Raises:
            GauntletError: There are none, they are not finite, or the model has no head.
        """
        features, head = self.full_features(train, fitting=True), self.required(head)
        classes = len(head.weight)
        repeats = self.repeats or max(1, min(100, _PROJECTIONS // classes))
        self._heads = perturbed(head, repeats, self.distance)
        self._densities = [
            self._density(features, kind, floor)
            for kind, floor in zip((self._same, self._logits), _FLOORS, strict=True)
        ]

    def score(self, outputs: Outputs) -> Tensor:
        """Scores, shape (N,), float64."""
        heads = self.fitted(self._heads)
        features, head = self.pull(outputs)
        own, perturbed = self._densities
        found = [double(features[:0, 0])]
        for part in features.detach().split(self._rows(len(heads.weight))):
            logits = self._logits(part)
            likely = double(logits).unflatten(1, (-1, len(head.weight))).softmax(dim=2).amax(dim=2).mean(dim=1)
            apart = own.divergence(part, self.smoothing) + self.weight * perturbed.divergence(logits, self.smoothing)
            found.append(apart - self.confidence * likely)
        return torch.cat(found)

    def _density(self, features: Tensor, kind: Callable[[Tensor], Tensor], floor: float) -> _Density:
        parts = features.split(self._rows(len(self.fitted(self._heads).weight)))
        ends = [torch.stack(torch.aminmax(kind(part))) for part in parts]
        low, high = (float(end) for end in (torch.stack(ends)[:, 0].amin(), torch.stack(ends)[:, 1].amax()))
        sums = torch.stack([densities(kind(part), low, high, self.bins).sum(dim=0) for part in parts]).sum(dim=0)
        return _Density(low, high, sums / len(features), floor)

    def _same(self, features: Tensor) -> Tensor:
        return features

    def _logits(self, features: Tensor) -> Tensor:
        """Perturbed logits (N, repeats * C) of features (N, D)."""
        heads = self.fitted(self._heads)
        return torch.addmm(like(heads.bias, features), compute_dtype(features), like(heads.weight, features).T)

    def _rows(self, projections: int) -> int:
        return max(64, cached_rows(projections))


def perturbed(head: Head, repeats: int, distance: float) -> Head:
    """``repeats`` copies of a head, one after the other, with noise of ``distance`` times a weight's length on it."""
    noise = torch.randn(repeats, *head.weight.shape, generator=torch.Generator().manual_seed(_SEED))
    weight = double(head.weight)
    step = distance * F.normalize(noise.double(), dim=2).to(weight.device) * weight.norm(dim=1)[:, None]
    return Head((weight + step).flatten(0, 1), double(head.bias).repeat(repeats))


def densities(values: Tensor, low: float, high: float, bins: int) -> Tensor:
    """Shares (N, bins) of each row of values (N, M) in equal bins from ``low`` to ``high``; what is outside is left."""
    width = (high + 1e-8 - low) / bins
    places = ((double(values) - low) / width).floor().clamp(-1, bins).long() + 1
    counts = double(values).new_zeros(len(values), bins + 2)
    counts.scatter_add_(1, places, torch.ones_like(places, dtype=counts.dtype))
    return counts[:, 1:-1] / max(values.shape[1], 1)


def _smooth(density: Tensor, size: int) -> Tensor:
    """Moving mean of ``size`` bins, the outermost repeated beyond the ends."""
    padded = F.pad(density[:, None], ((size - 1) // 2, size // 2), mode="replicate")
    return F.avg_pool1d(padded, size, stride=1)[:, 0]


def _normal(density: Tensor) -> Tensor:
    return density / density.sum(dim=-1, keepdim=True)
