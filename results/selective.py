"""Samples of selective classification: how certain a score is of each image, and what answering that image costs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from ..registry import GauntletError
from .intervals import check_sample
from .samples import Sample
from .statistics import GROUPS, Selection


class Selective(Sample):
    """A score and a loss of each image.

    Args:
        score: (N,) higher = less certain.
        loss: (N,) what it costs to answer: 0 where the answer is right, 1 where it is wrong, or any other cost.

    Raises:
        GauntletError: There are no images, a number is not finite, or the lengths differ.
    """

    kinds = ("selection",)

    def __init__(self, score: Any, loss: Any) -> None:
        self.score, self.loss = check_sample(score, "scores"), check_sample(loss, "losses")
        if len(self.score) != len(self.loss):
            raise GauntletError(f"Each score needs a loss, got {len(self.score)} scores and {len(self.loss)} losses.")
        self.sizes = (len(self.score),)

    @cached_property
    def _group(self) -> np.ndarray:
        """(N,) the place of each score among the distinct ones, the most certain first."""
        return np.unique(self.score, return_inverse=True)[1].ravel()

    @property
    def statistics(self) -> Mapping[str, Any]:
        """Every image with weight 1."""
        return self.weighted(np.ones(len(self.score)))

    def weighted(self, *weights: np.ndarray) -> Mapping[str, Any]:
        """Weights (..., N) of the images."""
        return {"selection": _selection(self._group, weights[0], self.loss)}

    def replicates(self, rng: np.random.Generator, replicates: int) -> Mapping[str, Any]:
        """Of at most 512 groups of neighbouring scores, each parted by loss: k images of one weigh Gamma(k)."""
        group = self._group
        below = np.searchsorted(np.sort(group), group)  # how many images are more certain: ties stay together
        coarse = group if group.max() < GROUPS else below * GROUPS // len(group)
        levels, level = np.unique(self.loss, return_inverse=True)
        cells, counts = np.unique(coarse * len(levels) + level.ravel(), return_counts=True)
        weights = rng.standard_gamma(counts.astype(np.float64), size=(replicates, len(cells)))
        weights *= len(group) / weights.sum(axis=1, keepdims=True)
        place = np.unique(cells // len(levels), return_inverse=True)[1].ravel()
        return {"selection": _selection(place, weights, levels[cells % len(levels)])}


def _selection(group: np.ndarray, weights: np.ndarray, loss: np.ndarray) -> Selection:
    """Sums by group (N,) of weights (..., N) and of what these images cost (N,)."""
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    parts = (weights, weights * loss)
    return Selection(*(np.add.reduceat(part[..., order], starts, axis=-1) for part in parts))
