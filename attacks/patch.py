"""Patch: a square of pixels of any value, the rest of the image as it is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from ..datasets.per_image_rng import PerImageRNG
from ..registry import GauntletError
from .base import AttackResult, Kind
from .budget import BudgetAttack, BudgetSearch, SearchBatch
from .native import native
from .square_patches import random_corners, square_masks
from .victim import Victim

_PLACES = {"top-left": (0.0, 0.0), "top-right": (0.0, 1.0), "bottom-left": (1.0, 0.0), "bottom-right": (1.0, 1.0)}


@dataclass
class PatchState(BudgetSearch):
    """``mask`` is true on the pixels of the patch (M, 1, H, W)."""

    mask: Tensor


@native("patch", "none", reference="Karmon, Zoran, Goldberg 2018, arXiv 1801.02608", kind="other")
class Patch(BudgetAttack):
    """Sign steps on the pixels of one square, which may take any value in [0, 1].

    Karmon, Zoran, Goldberg 2018, arXiv 1801.02608: a patch for each image, after the one for all images of Brown et al.
    2017, arXiv 1712.09665. Untargeted, and from random pixels, where the paper goes for a target. It has no budget:
    every positive epsilon gives the same images, at epsilon 0 they stay as they are.

    Args:
        share: Of the image that the patch covers, in (0, 1].
        location: A corner, ``centre``, or ``random``: a place drawn for each image and restart.
        steps: Gradient steps.
        stepsize: Their length, in units in which pixels span [0, 1].
        restarts: Starts to try on an image that resists.

    Raises:
        GauntletError: A parameter is out of range.
    """

    norm = "none"
    kind: Kind = "other"

    def __init__(
        self,
        share: float = 0.05,
        location: Literal["random", "centre", "top-left", "top-right", "bottom-left", "bottom-right"] = "random",
        steps: int = 100,
        stepsize: float = 0.05,
        restarts: int = 1,
    ) -> None:
        if not 0 < share <= 1 or min(steps, restarts) < 1 or not stepsize > 0:
            raise GauntletError(
                "patch needs 0 < share <= 1, steps and restarts >= 1 and stepsize > 0, got "
                f"{share}, {steps}, {restarts} and {stepsize}."
            )
        self.share, self.location = share, location
        self.steps, self.stepsize, self.restarts = steps, stepsize, restarts

    def attack(
        self, victim: Victim, images: Tensor, labels: Tensor, epsilons: Sequence[float], rng: PerImageRNG
    ) -> Iterable[AttackResult]:
        """Search once for all epsilons."""
        (result,) = super().attack(victim, images, labels, epsilons[:1], rng)
        return [replace(result, epsilon=epsilon) for epsilon in epsilons]

    def search(self, batch: SearchBatch, items: Tensor) -> None:
        """Climb from every start; after each, go on with the items that resist."""
        for restart in range(self.restarts):
            batch.run(
                batch.unsolved(items), partial(self._start, batch, restart), partial(self._step, batch), backwards=1
            )

    def _start(self, batch: SearchBatch, restart: int, items: Tensor) -> PatchState:
        """Random pixels in the patch."""
        state, rng = batch.start(items), batch.rng(items)
        height, width = state.clean.shape[2:]
        side = torch.full_like(items, min(max(round(math.sqrt(self.share * height * width)), 1), height, width))
        numbers = rng.uniform((2,), purpose="place", restart=restart)
        if self.location != "random":
            down, along = _PLACES.get(self.location, (0.5, 0.5))
            numbers = torch.tensor([down, along], device=items.device).clamp(max=1 - 1e-6).expand(len(items), 2)
        mask = square_masks(random_corners(numbers, side, height, width), side, height, width)
        noise = rng.uniform(state.clean.shape[1:], purpose="start", restart=restart).to(state.clean)
        state.current = torch.where(mask, noise, state.clean)
        return PatchState(**vars(state), mask=mask)

    def _step(self, batch: SearchBatch, state: PatchState) -> Tensor:
        gradient, outputs = batch.victim.gradient(state.current, state.labels)
        over = batch.victim.is_over(outputs, state.labels)
        moved = torch.where(state.mask, (state.current + self.stepsize * gradient.sign()).clamp(0, 1), state.current)
        moved[over] = state.current[over]  # the image that was judged, not the one after it
        state.current = moved
        return over | (state.steps_done + 1 >= self.steps)
