"""DDN: steps along the gradient on a sphere whose radius shrinks while the image fools and grows while it does not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..datasets.per_image_rng import PerImageRNG
from ..registry import GauntletError, attack
from .base import MinimisationAttack
from .minimum_norm import Search, nearest, start
from .norms import lengths, per_image
from .steps import steepest
from .victim import Victim


@dataclass
class _Sphere(Search):
    """``radius`` is that of the sphere (M,)."""

    radius: Tensor


@attack(
    "ddn",
    norm="l2",
    kind="minimisation",
    access="gradient",
    cost="fast",
    tags=("native", "white-box"),
    reference="Rony et al. 2019, arXiv 1811.09600",
)
class DDN(MinimisationAttack):
    """Decoupled direction and norm.

    Rony, Hafemann, Oliveira, Ben Ayed, Sabourin, Granger 2019, arXiv 1811.09600. It follows the cross entropy, which
    does not lead to the nearest boundary of all.

    Args:
        steps: Steps; their length falls from 1 to 0.01 along a cosine.
        initial_radius: First radius of the sphere.
        gamma: Share by which the radius changes at each step.
    """

    norm = "l2"

    def __init__(self, steps: int = 100, initial_radius: float = 1.0, gamma: float = 0.05) -> None:
        if steps < 1 or not initial_radius > 0 or not 0 < gamma < 1:
            raise GauntletError(
                "ddn needs steps >= 1, initial_radius > 0 and 0 < gamma < 1, got "
                f"{steps}, {initial_radius} and {gamma}."
            )
        self.steps, self.initial_radius, self.gamma = steps, initial_radius, gamma

    def closest(
        self, victim: Victim, images: Tensor, labels: Tensor, epsilons: Sequence[float], rng: PerImageRNG
    ) -> Tensor:
        """One search for each image."""

        def load(items: Tensor) -> _Sphere:
            fields = start(images, labels, items)
            return _Sphere(**fields, radius=torch.full_like(fields["size"], self.initial_radius))

        return nearest(victim, images, load, lambda rows: self._step(victim, rows))

    def _step(self, victim: Victim, rows: _Sphere) -> Tensor:
        gradient, outputs = victim.gradient(rows.current, rows.labels)
        fooled = victim.judge(outputs, rows.labels)
        rows.note(fooled, self.norm)
        stride = falling(rows.taken, self.steps, 1.0, 0.01)
        offset = rows.current - rows.clean + per_image(stride, gradient) * steepest(gradient, "l2")
        rows.radius = rows.radius * torch.where(fooled, 1 - self.gamma, 1 + self.gamma)
        offset = offset * per_image(rows.radius / lengths(offset), offset)
        rows.current = (rows.clean + offset).clamp(0, 1)
        return rows.taken + 1 >= self.steps


def falling(taken: Tensor, steps: int, first: float, last: float) -> Tensor:
    """A quantity that falls from ``first`` to ``last`` along half a cosine (M,)."""
    return last + (first - last) * (1 + torch.cos(math.pi * taken / steps)) / 2
