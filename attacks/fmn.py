"""FMN: gradient steps inside a ball that closes in on the boundary, in each norm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..datasets.per_image_rng import PerImageRNG
from ..registry import GauntletError, attack
from .base import MinimisationAttack
from .ddn import falling
from .l1 import project_l1
from .losses import margin
from .minimum_norm import Search, nearest, start
from .norms import per_image, perturbation_norms, project
from .steps import steepest
from .victim import Victim

_DUAL = {"linf": 1, "l2": 2, "l1": torch.inf}


@dataclass
class _Ball(Search):
    """``radius`` is that of the ball (M,), infinite until the boundary has been estimated."""

    radius: Tensor


@attack(
    "fmn",
    norm="l2",
    norms=("linf", "l2", "l1", "l0"),
    kind="minimisation",
    access="gradient",
    cost="fast",
    tags=("native", "white-box"),
    reference="Pintor et al. 2021, arXiv 2102.12827",
)
class FMN(MinimisationAttack):
    """Fast minimum norm.

    Pintor, Roli, Brendel, Biggio 2021, arXiv 2102.12827. The radius goes to the estimated distance of the boundary
    until an adversarial is found; then it shrinks while the image fools, and grows while it does not. Gradient entries
    that would leave [0, 1] count neither for the step nor for the estimate: with them the search stalls just below the
    boundary where many pixels are black or white.

    Args:
        norm: ``linf``, ``l2``, ``l1`` or ``l0`` (which counts pixels).
        steps: Steps; their length falls along a cosine.
        first_stride: Length of the first step, in L2.
        last_stride: Length of the last.
        gamma: Share by which the radius changes at first; it falls to 0.001.
    """

    def __init__(
        self,
        norm: Literal["linf", "l2", "l1", "l0"] = "l2",
        steps: int = 100,
        first_stride: float = 1.0,
        last_stride: float = 0.01,
        gamma: float = 0.05,
    ) -> None:
        if steps < 1 or not first_stride >= last_stride > 0 or not 0 < gamma < 1:
            raise GauntletError(
                "fmn needs steps >= 1, first_stride >= last_stride > 0 and 0 < gamma < 1, got "
                f"{steps}, {first_stride}, {last_stride} and {gamma}."
            )
        self.norm, self.steps, self.gamma = norm, steps, gamma
        self.first_stride, self.last_stride = first_stride, last_stride

    def closest(
        self, victim: Victim, images: Tensor, labels: Tensor, epsilons: Sequence[float], rng: PerImageRNG
    ) -> Tensor:
        """One search for each image."""

        def load(items: Tensor) -> _Ball:
            fields = start(images, labels, items)
            return _Ball(
                **fields, radius=fields["size"].clone() if self.norm != "l0" else torch.ones_like(fields["size"])
            )

        return nearest(victim, images, load, lambda rows: self._step(victim, rows))

    def _step(self, victim: Victim, rows: _Ball) -> Tensor:
        gradient, outputs = victim.gradient(rows.current, rows.labels, margin)
        fooled = victim.judge(outputs, rows.labels)
        rows.note(fooled, self.norm)
        gradient = free(gradient, rows.current)
        gamma = falling(rows.taken, self.steps, self.gamma, 0.001)
        rows.radius = self._radius(rows, fooled, gamma, gradient, margin(outputs, rows.labels))
        stride = falling(rows.taken, self.steps, self.first_stride, self.last_stride)
        offset = rows.current - rows.clean + per_image(stride, gradient) * steepest(gradient, "l2")
        rows.current = (rows.clean + self._project(offset, rows)).clamp(0, 1)
        return rows.taken + 1 >= self.steps

    def _radius(self, rows: _Ball, fooled: Tensor, gamma: Tensor, gradient: Tensor, gap: Tensor) -> Tensor:
        """The next radius (M,)."""
        if self.norm == "l0":
            smaller = torch.minimum(rows.radius - 1, (rows.radius * (1 - gamma)).floor()).minimum(rows.size)
            larger = torch.maximum(rows.radius + 1, (rows.radius * (1 + gamma)).floor())
            most = rows.clean[0, 0].numel()
            return torch.where(fooled, smaller, larger).clamp(1, most)
        size = perturbation_norms(rows.current, rows.clean, self.norm)
        steepness = torch.linalg.vector_norm(gradient.flatten(1), ord=_DUAL[self.norm], dim=1).clamp_min(1e-12)
        estimate = torch.maximum(size + gap.abs() / steepness, size * (1 + gamma))
        larger = torch.where(rows.size.isfinite(), rows.radius * (1 + gamma), estimate)
        return torch.where(fooled, torch.minimum(rows.radius * (1 - gamma), rows.size), larger)

    def _project(self, offset: Tensor, rows: _Ball) -> Tensor:
        radius = rows.radius.nan_to_num(posinf=torch.finfo(offset.dtype).max)
        if self.norm == "l1":
            return project_l1(offset, rows.clean, radius)
        if self.norm != "l0":
            return project(offset, self.norm, radius)
        inside = (rows.clean + offset).clamp(0, 1) - rows.clean
        return inside * largest_pixels(inside, radius)


def free(gradient: Tensor, current: Tensor) -> Tensor:
    """The gradient without the entries that would leave [0, 1], and without NaN."""
    stuck = ((current <= 0) & (gradient < 0)) | ((current >= 1) & (gradient > 0))
    return gradient.nan_to_num(0).masked_fill(stuck, 0)


def largest_pixels(offset: Tensor, count: Tensor) -> Tensor:
    """A mask (M, 1, H, W) of the ``count`` (M,) pixels with the largest perturbation, summed over channels."""
    size = offset.abs().sum(dim=1).flatten(1)
    rank = size.argsort(dim=1, descending=True).argsort(dim=1)
    return (rank < count[:, None]).view(len(offset), 1, *offset.shape[2:])
