"""Sigma-zero: gradient descent on a smooth stand-in for the number of changed pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..datasets.per_image_rng import PerImageRNG
from ..registry import GauntletError
from .ddn import cosine_decay
from .losses import margin
from .minimum_norm import IterativeMinimumNormAttack, MinimumNormSearch
from .native import native
from .norms import per_image
from .victim import Victim

_SOFTNESS = 1e-3  # sigma: a pixel's perturbation p counts p^2 / (p^2 + sigma)


@dataclass
class SigmaZeroState(MinimumNormSearch):
    """``threshold`` is the size below which a pixel's perturbation is erased (M,)."""

    threshold: Tensor


@native("sigma-zero", "l0", reference="Cinà et al. 2024, arXiv 2402.01879", kind="minimum-norm", cost="standard")
class SigmaZero(IterativeMinimumNormAttack):
    """Descends margin and smoothed L0 norm together, and erases what stays below a threshold that adapts.

    Cinà, Villani, Pintor, Schönherr, Biggio, Pelillo 2024, arXiv 2402.01879. The threshold rises while the image
    fools and falls while it does not. Pixels are counted, not channels.

    Args:
        steps: Gradient steps; their length (of the largest entry) falls from 1 to 0.1 along a cosine.
        threshold: First threshold.
        adaptation: How fast the threshold changes, in step lengths.

    Raises:
        GauntletError: A parameter is out of range.
    """

    norm = "l0"

    def __init__(self, steps: int = 300, threshold: float = 0.3, adaptation: float = 0.01) -> None:
        if steps < 1 or not 0 <= threshold <= 1 or not adaptation >= 0:
            raise GauntletError(
                "sigma-zero needs steps >= 1, 0 <= threshold <= 1 and adaptation >= 0, got "
                f"{steps}, {threshold} and {adaptation}."
            )
        self.steps, self.threshold, self.adaptation = steps, threshold, adaptation

    def start(self, victim: Victim, fields: dict[str, Any]) -> SigmaZeroState:
        """With the first threshold."""
        return SigmaZeroState(**fields, threshold=torch.full_like(fields["best_size"], self.threshold))

    def step(self, victim: Victim, state: SigmaZeroState, rng: PerImageRNG) -> Tensor:
        """A step downhill, without the pixels whose perturbation stays below the threshold."""
        slope, outputs = victim.gradient(state.current, state.labels, margin)
        fooled = victim.is_fooled(outputs, state.labels)
        over = state.keep_nearest(fooled, self.norm, outputs)
        stride = cosine_decay(state.steps_done, self.steps, 1.0, 0.1)
        change = torch.where(fooled, self.adaptation, -self.adaptation) * stride
        state.threshold = torch.where(state.steps_done == 0, state.threshold, (state.threshold + change).clamp(0, 1))
        offset = state.current - state.clean
        # Once it fools, only the number of pixels is driven down.
        lacking = per_image(margin(outputs, state.labels) <= 0, slope)
        downhill = _density(offset) - torch.where(lacking, slope.nan_to_num(0), 0.0)
        # Normalised by its largest entry: the step length is that of one pixel.
        largest = downhill.flatten(1).abs().amax(dim=1).clamp_min(1e-12)
        moved = (state.current - per_image(stride / largest, slope) * downhill).clamp(0, 1)
        size = (moved - state.clean).abs().amax(dim=1, keepdim=True)
        state.current = torch.where(size >= per_image(state.threshold, size), moved, state.clean)
        return over | (state.steps_done + 1 >= self.steps)


def _density(offset: Tensor) -> Tensor:
    """Gradient of the share of changed pixels, smoothed, with respect to perturbations (M, C, H, W)."""
    square = offset.square().sum(dim=1, keepdim=True)
    return 2 * _SOFTNESS * offset / (square + _SOFTNESS).square() / offset[0, 0].numel()
