"""Salt and pepper: black and white pixels, as few as fool the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..datasets.per_image_rng import PerImageRNG
from ..registry import GauntletError, attack
from .base import MinimisationAttack
from .minimum_norm import Search, nearest, start
from .norms import per_image
from .victim import Victim


@dataclass
class _Shaker(Search):
    """``share`` of pixels changed now (M,), the interval ``low`` to ``high`` it runs through, and its ``stride``."""

    share: Tensor
    low: Tensor
    high: Tensor
    stride: Tensor


@attack(
    "salt-and-pepper",
    norm="l2",
    kind="minimisation",
    access="decision",
    cost="standard",
    tags=("native", "noise", "black-box"),
    reference="Rauber et al. 2017, arXiv 1707.04131",
)
class SaltAndPepper(MinimisationAttack):
    """Salt-and-pepper noise whose density runs through an interval that narrows around what fooled (as foolbox's).

    Rauber, Brendel, Bethge 2017, arXiv 1707.04131. Measured in L2; a candidate that is farther away than the nearest
    adversarial is not shown to the model.

    Args:
        steps: PerImageRNG for each image.
        across_channels: Whether a pixel changes in all channels at once.
    """

    norm = "l2"

    def __init__(self, steps: int = 1000, across_channels: bool = True) -> None:
        if steps < 1:
            raise GauntletError(f"salt-and-pepper needs steps >= 1, got {steps}.")
        self.steps, self.across_channels = steps, across_channels

    def closest(
        self, victim: Victim, images: Tensor, labels: Tensor, epsilons: Sequence[float], rng: PerImageRNG
    ) -> Tensor:
        """One search for each image."""

        def load(items: Tensor) -> _Shaker:
            fields = start(images, labels, items)
            none = torch.zeros_like(fields["size"])
            return _Shaker(**fields, share=none + 1 / self.steps, low=none, high=none + 1, stride=none + 1 / self.steps)

        return nearest(victim, images, load, lambda rows: self._step(victim, rows, rng.select(rows.item)))

    def _step(self, victim: Victim, rows: _Shaker, draws: PerImageRNG) -> Tensor:
        shape = rows.clean.shape[1:]
        shape = torch.Size([1, *shape[1:]]) if self.across_channels else shape
        chance = draws.uniform(shape, purpose="shake", step=rows.taken)
        half = per_image(rows.share / 2, chance)
        candidate = torch.where(chance >= 1 - half, 1.0, torch.where(chance < half, 0.0, rows.clean))
        size = (candidate - rows.clean).flatten(1).norm(dim=1)
        closer = size < rows.size
        fooled = torch.zeros_like(closer)
        if closer.any():
            fooled[closer] = victim.fooled(candidate[closer], rows.labels[closer])
        rows.best = torch.where(per_image(fooled, candidate), candidate, rows.best)
        rows.size = torch.where(fooled, size, rows.size)
        self._narrow(rows, fooled)
        return rows.taken + 1 >= self.steps

    def _narrow(self, rows: _Shaker, nearer: Tensor) -> None:
        """Around a success, from half its share to 1.2 times it; start again at the lower end."""
        rows.low = torch.where(nearer, rows.share / 2, rows.low)
        rows.high = torch.where(nearer, (1.2 * rows.share).clamp_max(1), rows.high)
        rows.stride = torch.where(nearer, (rows.high - rows.low) / (self.steps - rows.taken), rows.stride)
        again = nearer | (rows.share == rows.high)
        rows.share = (torch.where(again, rows.low, rows.share) + rows.stride).minimum(rows.high)
