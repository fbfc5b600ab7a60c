"""Sigma-zero: gradient descent on a smooth stand-in for the number of changed pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..datasets.per_image_rng import PerImageRNG
from ..registry import GauntletError, attack
from .base import MinimisationAttack
from .ddn import falling
from .losses import margin
from .minimum_norm import Search, nearest, start
from .norms import per_image
from .victim import Victim

_SOFTNESS = 1e-3  # sigma: a pixel's perturbation p counts p^2 / (p^2 + sigma)


@dataclass
class _Sparse(Search):
    """``threshold`` is the size below which a pixel's perturbation is erased (M,)."""

    threshold: Tensor


@attack(
    "sigma-zero",
    norm="l0",
    kind="minimisation",
    access="gradient",
    cost="standard",
    tags=("native", "white-box"),
    reference="Cinà et al. 2024, arXiv 2402.01879",
)
class SigmaZero(MinimisationAttack):
    """Descends margin and smoothed L0 norm together, and erases what stays below a threshold that adapts.

    Cinà, Villani, Pintor, Schönherr, Biggio, Pelillo 2024, arXiv 2402.01879. The threshold rises while the image
    fools and falls while it does not. Pixels are counted, not channels.

    Args:
        steps: Gradient steps; their length (of the largest entry) falls from 1 to 0.1 along a cosine.
        threshold: First threshold.
        adaptation: How fast the threshold changes, in step lengths.
    """

    norm = "l0"

    def __init__(self, steps: int = 300, threshold: float = 0.3, adaptation: float = 0.01) -> None:
        if steps < 1 or not 0 <= threshold <= 1 or not adaptation >= 0:
            raise GauntletError(
                "sigma-zero needs steps >= 1, 0 <= threshold <= 1 and adaptation >= 0, got "
                f"{steps}, {threshold} and {adaptation}."
            )
        self.steps, self.threshold, self.adaptation = steps, threshold, adaptation

    def closest(
        self, victim: Victim, images: Tensor, labels: Tensor, epsilons: Sequence[float], rng: PerImageRNG
    ) -> Tensor:
        """One search for each image."""

        def load(items: Tensor) -> _Sparse:
            fields = start(images, labels, items)
            return _Sparse(**fields, threshold=torch.full_like(fields["size"], self.threshold))

        return nearest(victim, images, load, lambda rows: self._step(victim, rows))

    def _step(self, victim: Victim, rows: _Sparse) -> Tensor:
        slope, outputs = victim.gradient(rows.current, rows.labels, margin)
        fooled = victim.judge(outputs, rows.labels)
        rows.note(fooled, self.norm)
        stride = falling(rows.taken, self.steps, 1.0, 0.1)
        change = torch.where(fooled, self.adaptation, -self.adaptation) * stride
        rows.threshold = torch.where(rows.taken == 0, rows.threshold, (rows.threshold + change).clamp(0, 1))
        offset = rows.current - rows.clean
        lacking = per_image(margin(outputs, rows.labels) <= 0, slope)
        downhill = _density(offset) - torch.where(lacking, slope.nan_to_num(0), 0.0)
        largest = downhill.flatten(1).abs().amax(dim=1).clamp_min(1e-12)
        moved = (rows.current - per_image(stride / largest, slope) * downhill).clamp(0, 1)
        size = (moved - rows.clean).abs().amax(dim=1, keepdim=True)
        rows.current = torch.where(size >= per_image(rows.threshold, size), moved, rows.clean)
        return rows.taken + 1 >= self.steps


def _density(offset: Tensor) -> Tensor:
    """Gradient of the share of changed pixels, smoothed, with respect to perturbations (M, C, H, W)."""
    square = offset.square().sum(dim=1, keepdim=True)
    return 2 * _SOFTNESS * offset / (square + _SOFTNESS).square() / offset[0, 0].numel()
