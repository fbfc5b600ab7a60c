"""Salt and pepper: black and white pixels, as few as fool the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..datasets.per_image_rng import PerImageRNG
from ..registry import GauntletError
from .minimum_norm import IterativeMinimumNormAttack, MinimumNormSearch
from .native import native
from .norms import per_image
from .victim import Victim, not_numbers


@dataclass
class SaltAndPepperState(MinimumNormSearch):
    """``share`` of pixels changed now (M,), the interval ``low`` to ``high`` it runs through, and its ``stride``."""

    share: Tensor
    low: Tensor
    high: Tensor
    stride: Tensor


@native(
    "salt-and-pepper",
    "l2",
    reference="Rauber et al. 2017, arXiv 1707.04131",
    kind="minimum-norm",
    access="decision",
    cost="standard",
    tags=("noise",),
)
class SaltAndPepper(IterativeMinimumNormAttack):
    """Salt-and-pepper noise whose density runs through an interval that narrows around what fooled (as foolbox's).

    Rauber, Brendel, Bethge 2017, arXiv 1707.04131. Measured in L2; a candidate that is farther away than the nearest
    adversarial is not shown to the model.

    Args:
        steps: Draws for each image.
        across_channels: Whether a pixel changes in all channels at once.

    Raises:
        GauntletError: A parameter is out of range.
    """

    norm = "l2"

    def __init__(self, steps: int = 1000, across_channels: bool = True) -> None:
        if steps < 1:
            raise GauntletError(f"salt-and-pepper needs steps >= 1, got {steps}.")
        self.steps, self.across_channels = steps, across_channels

    def start(self, victim: Victim, fields: dict[str, Any]) -> SaltAndPepperState:
        """With hardly any pixel changed."""
        zero = torch.zeros_like(fields["best_size"])
        share = zero + 1 / self.steps
        return SaltAndPepperState(**fields, share=share, low=zero, high=zero + 1, stride=share)

    def step(self, victim: Victim, state: SaltAndPepperState, rng: PerImageRNG) -> Tensor:
        """One draw of noise; the victim sees it where it is nearer than the best so far."""
        shape = state.clean.shape[1:]
        shape = torch.Size([1, *shape[1:]]) if self.across_channels else shape
        chance = rng.select(state.item).uniform(shape, purpose="shake", step=state.steps_done)
        half = per_image(state.share / 2, chance)
        candidate = torch.where(chance >= 1 - half, 1.0, torch.where(chance < half, 0.0, state.clean))
        size = (candidate - state.clean).flatten(1).norm(dim=1)
        closer = size < state.best_size  # the others could not improve anything: no query
        fooled, over = torch.zeros_like(closer), torch.zeros_like(closer)
        if closer.any():
            outputs = victim.outputs(candidate[closer])
            fooled[closer] = victim.is_fooled(outputs, state.labels[closer])
            over[closer] = not_numbers(outputs) & state.best_size[closer].isinf()
        state.best = torch.where(per_image(fooled | over, candidate), candidate, state.best)
        state.best_size = torch.where(fooled, size, state.best_size)
        self._narrow(state, fooled)
        return over | (state.steps_done + 1 >= self.steps)

    def _narrow(self, state: SaltAndPepperState, nearer: Tensor) -> None:
        """Around a success, from half its share to 1.2 times it; start again at the lower end."""
        state.low = torch.where(nearer, state.share / 2, state.low)
        state.high = torch.where(nearer, (1.2 * state.share).clamp_max(1), state.high)
        state.stride = torch.where(nearer, (state.high - state.low) / (self.steps - state.steps_done), state.stride)
        again = nearer | (state.share == state.high)
        state.share = (torch.where(again, state.low, state.share) + state.stride).minimum(state.high)
