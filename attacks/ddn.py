"""DDN: steps along the gradient on a sphere whose radius shrinks while the image fools and grows while it does not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..datasets.per_image_rng import PerImageRNG
from ..registry import GauntletError
from .minimum_norm import IterativeMinimumNormAttack, MinimumNormSearch
from .native import native
from .norms import lengths, per_image
from .steps import steepest_direction
from .victim import Victim


@dataclass
class DDNState(MinimumNormSearch):
    """``radius`` is that of the sphere (M,)."""

    radius: Tensor


@native("ddn", "l2", reference="Rony et al. 2019, arXiv 1811.09600", kind="minimum-norm")
class DDN(IterativeMinimumNormAttack):
    """Decoupled direction and norm.

    Rony, Hafemann, Oliveira, Ben Ayed, Sabourin, Granger 2019, arXiv 1811.09600. It follows the cross entropy, which
    does not lead to the nearest boundary of all.

    Args:
        steps: Steps; their length falls from 1 to 0.01 along a cosine.
        initial_radius: First radius of the sphere.
        gamma: Share by which the radius changes at each step.

    Raises:
        GauntletError: A parameter is out of range.
    """

    norm = "l2"

    def __init__(self, steps: int = 100, initial_radius: float = 1.0, gamma: float = 0.05) -> None:
        if steps < 1 or not initial_radius > 0 or not 0 < gamma < 1:
            raise GauntletError(
                "ddn needs steps >= 1, initial_radius > 0 and 0 < gamma < 1, got "
                f"{steps}, {initial_radius} and {gamma}."
            )
        self.steps, self.initial_radius, self.gamma = steps, initial_radius, gamma

    def start(self, victim: Victim, fields: dict[str, Any]) -> DDNState:
        """On a sphere of the initial radius."""
        return DDNState(**fields, radius=torch.full_like(fields["best_size"], self.initial_radius))

    def step(self, victim: Victim, state: DDNState, rng: PerImageRNG) -> Tensor:
        """A step along the gradient, and onto the sphere of the new radius."""
        gradient, outputs = victim.gradient(state.current, state.labels)
        fooled = victim.is_fooled(outputs, state.labels)
        over = state.keep_nearest(fooled, self.norm, outputs)
        stride = cosine_decay(state.steps_done, self.steps, 1.0, 0.01)
        offset = state.current - state.clean + per_image(stride, gradient) * steepest_direction(gradient, "l2")
        state.radius = state.radius * torch.where(fooled, 1 - self.gamma, 1 + self.gamma)
        # Onto the sphere even from inside: direction and distance are decoupled.
        offset = offset * per_image(state.radius / lengths(offset), offset)
        state.current = (state.clean + offset).clamp(0, 1)
        return over | (state.steps_done + 1 >= self.steps)


def cosine_decay(steps_done: Tensor, steps: int, first: float, last: float) -> Tensor:
    """A quantity that falls from ``first`` to ``last`` along half a cosine (M,)."""
    return last + (first - last) * (1 + torch.cos(math.pi * steps_done / steps)) / 2
