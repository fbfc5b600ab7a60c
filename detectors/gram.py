"""Gram: feature correlations outside the range of the predicted class."""

from __future__ import annotations

import torch
from torch import Tensor

from ..registry import detector
from .base import Detector
from .numerics import double
from .outputs import Head, Outputs

_HELD_OUT = 10  # every tenth image of a class tells how far others are outside
_EPSILON = 1e-6


@detector(
    "gram",
    needs=("gram-statistics", "logits", "labels"),
    reference="Sastry, Oore 2019, arXiv 1912.12510",
    tags=("post-hoc", "feature-maps"),
    differentiable=False,
)
class Gram(Detector):
    """Overshoot of the Gram statistics of all layers beyond the smallest and largest of the predicted class.

    A statistic g outside [low, high] adds ``(low - g) / |low|`` or ``(g - high) / |high|``; each layer's sum is divided
    by its mean over held-out training images (every tenth of a class; 1 where that is 0). The bounds of a class
    without training images are those of all images.
    """

    _bounds: tuple[Tensor, Tensor] | None = None  # (C, S) each
    _expected: Tensor | None = None  # (layers,)

    def fit(self, train: Outputs, val: Outputs | None, head: Head | None) -> None:
        """Find the bounds in statistics (N, S) by labels (N,).

        Raises:
            GauntletError: No image has a class.
        """
        statistics, labels = self.labelled(train, "gram-statistics")
        logits, _ = self.labelled(train, "logits")
        held_out = _every(labels, _HELD_OUT)
        own, theirs = statistics[~held_out], labels[~held_out]
        low, high = [], []
        for label in range(logits.shape[1]):
            members = own[theirs == label] if bool((theirs == label).any()) else own
            low.append(members.amin(dim=0))
            high.append(members.amax(dim=0))
        self._bounds = torch.stack(low), torch.stack(high)
        overshoot = self._overshoot(statistics[held_out], labels[held_out], train.layers)
        expected = overshoot.mean(dim=0) if len(overshoot) else overshoot.new_ones(len(train.layers))
        self._expected = torch.where(expected > 0, expected, 1.0)

    def score(self, outputs: Outputs) -> Tensor:
        """Scores of at least 0, shape (N,), float64."""
        expected = self.fitted(self._expected)
        statistics, logits, _ = self.pull(outputs)
        return (self._overshoot(statistics, logits.argmax(dim=1), outputs.layers) / expected).sum(dim=1)

    def _overshoot(self, statistics: Tensor, labels: Tensor, layers: tuple[int, ...]) -> Tensor:
        """Relative overshoot of each image in each layer, (N, layers)."""
        lows, highs = self.fitted(self._bounds)
        parts = [double(statistics).new_zeros(0, len(layers))]
        for chunk, own in zip(statistics.split(1024), labels.split(1024), strict=True):
            low, high = lows[own], highs[own]
            below = (low - chunk).relu() / (low + _EPSILON).abs()
            above = (chunk - high).relu() / (high + _EPSILON).abs()
            parts.append(torch.stack([part.sum(dim=1) for part in double(below + above).split(layers, dim=1)], dim=1))
        return torch.cat(parts)


def _every(labels: Tensor, nth: int) -> Tensor:
    """Mask (N,) of every nth image of each class, from the nth on."""
    mask = torch.zeros_like(labels, dtype=torch.bool)
    for label in labels.unique():
        mask[(labels == label).nonzero()[nth - 1 :: nth, 0]] = True
    return mask
