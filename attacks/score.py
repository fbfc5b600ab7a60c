"""Victims for attacks on a detector: its score as a loss, alone or together with the classifier."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .losses import margin
from .victim import Victim

#: From images (N, C, H, W) to scores (N,), higher = more out-of-distribution.
Score = Callable[[Tensor], Tensor]


class ScoreVictim(Victim):
    """A detector under attack: images of label 1 are driven to lower scores, those of label 0 to higher ones.

    Its outputs are half the scaled score, negated and as it is (N, 2), so that the margin is the score's, too, for
    attacks by scores. Nothing is ever fooled: the attack goes all the way, and the most extreme image found is kept.

    Args:
        module: The classifier, whose parameters are frozen.
        score: The detector's score.
        scale: Divides the score; of the order of its spread.
        **settings: Those of :class:`Victim`.
    """

    def __init__(self, module: nn.Module, score: Score, *, scale: float = 1.0, **settings: Any) -> None:
        super().__init__(_Scores(module, score, scale), **settings)

    def inspect(self, images: Tensor) -> int | None:
        """Its outputs are scores and no classes."""
        return None

    def losses(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The scaled score (N,), negated where the label is 1."""
        return margin(outputs, labels)

    def is_fooled(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Nothing is fooled (N,): a score has no end."""
        return torch.zeros(len(outputs), dtype=torch.bool, device=outputs.device)


class JointVictim(Victim):
    """A classifier and a detector under attack together: fooled is an image that is accepted, and classified wrong.

    Its outputs are the logits and, last, the scaled score above the threshold (N, C + 1).

    Args:
        module: The classifier.
        score: The detector's score.
        threshold: Scores above it are rejected.
        scale: Divides the score; of the order of its spread.
        **settings: Those of :class:`Victim`.
    """

    def __init__(self, module: nn.Module, score: Score, *, threshold: float, scale: float, **settings: Any) -> None:
        super().__init__(_Joint(module, score, threshold, scale), **settings)

    def inspect(self, images: Tensor) -> int | None:
        """Its outputs are not logits alone."""
        return None

    def losses(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """What is still lacking of a wrong answer and of acceptance (N,), at most 0 (Bryniarski et al. 2021)."""
        lacking = margin(outputs[:, :-1], labels).clamp(max=0)
        return lacking - outputs[:, -1].clamp(min=0)

    def is_fooled(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Which images (N,) are accepted, and classified wrong."""
        return (outputs[:, :-1].argmax(1) != labels) & (outputs[:, -1] <= 0)


class _Scores(nn.Module):
    def __init__(self, inner: nn.Module, score: Score, scale: float) -> None:
        super().__init__()
        self.inner, self._score, self._scale = inner, score, scale

    def forward(self, images: Tensor) -> Tensor:
        half = self._score(images) / (2 * self._scale)
        return torch.stack([-half, half], 1)


class _Joint(nn.Module):
    def __init__(self, inner: nn.Module, score: Score, threshold: float, scale: float) -> None:
        super().__init__()
        self.inner, self._score, self._threshold, self._scale = inner, score, threshold, scale

    def forward(self, images: Tensor) -> Tensor:
        above = (self._score(images) - self._threshold) / self._scale
        return torch.cat([self.inner(images), above[:, None].to(images.dtype)], 1)
