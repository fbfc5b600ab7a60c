"""What kernels of metrics see of a sample, each image with a weight; all of it works along the last axis."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

GROUPS = 512  # of the pooled ranking, in bootstrap replicates


@dataclass(frozen=True)
class Ranking:
    """Weights of ID and OOD images by score, the highest score first; equal scores are one group.

    Attributes:
        score: (G,) the distinct scores, falling.
        inside: (..., G) weight of the ID images with each score; int64 where every image weighs 1, else float64.
        outside: (..., G) the same of the OOD images.
    """

    score: np.ndarray
    inside: np.ndarray
    outside: np.ndarray

    @classmethod
    def from_counts(cls, score: np.ndarray, caught: np.ndarray, reached: np.ndarray) -> Ranking:
        """From how many OOD images, and how many of both sides, score at least each ``score`` (G,)."""
        return cls(score, np.diff(reached - caught, prepend=0), np.diff(caught, prepend=0))

    @cached_property
    def flagged(self) -> np.ndarray:
        """(..., G) weight of the ID images that score at least this much."""
        return self.inside.cumsum(-1)

    @cached_property
    def caught(self) -> np.ndarray:
        """(..., G) weight of the OOD images that score at least this much."""
        return self.outside.cumsum(-1)

    @cached_property
    def swapped(self) -> Ranking:
        """The same with ID as the positive class, on negated scores."""
        score, inside, outside = (
            np.ascontiguousarray(part[..., ::-1]) for part in (-self.score, self.outside, self.inside)
        )
        return Ranking(score, inside, outside)

    def compressed(self, most: int = GROUPS) -> Ranking:
        """Neighbouring groups of one-weight images joined until at most ``most`` are left, all of like size."""
        if len(self.score) <= most:
            return self
        reached = self.flagged + self.caught
        group = reached * most // (reached[-1] + 1)
        last = np.append(group[1:] != group[:-1], True)
        return Ranking.from_counts(self.score[last], self.caught[last], reached[last])


@dataclass(frozen=True)
class Reliability:
    """Equal-width bins of confidence ((m - 1)/bins, m/bins]; a confidence of 0 belongs to the first.

    Attributes:
        size: (..., bins) weight of the images in each bin.
        confidences: (..., bins) weighted sum of their confidences.
        right: (..., bins) weight of those that are classified right.
    """

    size: np.ndarray
    confidences: np.ndarray
    right: np.ndarray

    @property
    def confidence(self) -> np.ndarray:
        """(..., bins) mean confidence, 0 where a bin is empty."""
        return ratio(self.confidences, self.size)

    @property
    def accuracy(self) -> np.ndarray:
        """(..., bins) share of right images, 0 where a bin is empty."""
        return ratio(self.right, self.size)

    @property
    def gap(self) -> np.ndarray:
        """(..., bins) mean confidence minus accuracy, 0 where a bin is empty."""
        return self.confidence - self.accuracy


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """The quotient, 0 where nothing is ``below``."""
    return np.divide(above, below, out=np.zeros(np.shape(above)), where=below > 0)
