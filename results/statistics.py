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
        inside: (..., G) weight of the ID images with each score, in float64, which is exact for whole weights.
        outside: (..., G) the same of the OOD images.
        flagged: (..., G) weight of the ID images that score at least this much.
        caught: (..., G) the same of the OOD images.
    """

    score: np.ndarray
    inside: np.ndarray
    outside: np.ndarray
    flagged: np.ndarray
    caught: np.ndarray

    @classmethod
    def from_weights(cls, score: np.ndarray, inside: np.ndarray, outside: np.ndarray) -> Ranking:
        """From the weights (..., G) of the images with each ``score`` (G,)."""
        return cls(score, inside, outside, inside.cumsum(-1), outside.cumsum(-1))

    @classmethod
    def from_counts(cls, score: np.ndarray, caught: np.ndarray, reached: np.ndarray) -> Ranking:
        """From how many OOD images (in float64), and how many of both sides, score at least each ``score`` (G,)."""
        flagged = reached - caught
        return cls(score, _steps(flagged), _steps(caught), flagged, caught)

    @cached_property
    def precision(self) -> np.ndarray:
        """(..., G) share of OOD images of those that score at least this much; 1 where none does."""
        found = self.flagged + self.caught
        if found[..., 0].all():
            return self.caught / found
        return np.divide(self.caught, found, out=np.ones(found.shape), where=found > 0)

    @cached_property
    def swapped(self) -> Ranking:
        """The same with ID as the positive class, on negated scores."""
        kept, accepted = self.flagged[..., -1:] - self.flagged, self.caught[..., -1:] - self.caught
        kept += self.inside
        accepted += self.outside
        parts = (-self.score, self.outside, self.inside, accepted, kept)
        return Ranking(*(part[..., ::-1] for part in parts))

    def compressed(self, most: int = GROUPS) -> Ranking:
        """Neighbouring groups of one-weight images joined until at most ``most`` are left, all of like size."""
        if len(self.score) <= most:
            return self
        reached = self.flagged + self.caught
        group = reached.astype(np.int64) * most // (int(reached[-1]) + 1)
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


@dataclass(frozen=True)
class Selection:
    """Images as a selective classifier answers them, the most certain first; equal scores are one group.

    Attributes:
        count: (..., G) weight of the images with each score.
        loss: (..., G) weighted sum of what answering them costs: 1 for an error, 0 for a right answer.
    """

    count: np.ndarray
    loss: np.ndarray

    @cached_property
    def answered(self) -> np.ndarray:
        """(..., G) weight of the images that are at least so confident."""
        return self.count.cumsum(-1)

    @cached_property
    def lost(self) -> np.ndarray:
        """(..., G) what answering all of these costs."""
        return self.loss.cumsum(-1)


def _steps(total: np.ndarray) -> np.ndarray:
    """What each place adds to a running total."""
    steps = total.copy()
    steps[1:] -= total[:-1]  # in place: at this size an array costs more to get than to fill
    return steps


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """The quotient, 0 where nothing is ``below``."""
    return np.divide(above, below, out=np.zeros(np.shape(above)), where=below > 0)
