"""FMN: gradient steps inside a ball that closes in on the boundary, in each norm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ..datasets.per_image_rng import PerImageRNG
from ..registry import GauntletError
from .ddn import cosine_decay
from .l1 import project_l1
from .losses import margin
from .minimum_norm import IterativeMinimumNormAttack, MinimumNormSearch
from .native import native
from .norms import per_image, perturbation_norms, project
from .steps import steepest_direction
from .victim import Victim

_DUAL = {"linf": 1, "l2": 2, "l1": torch.inf}


@dataclass
class FMNState(MinimumNormSearch):
    """``radius`` is that of the ball (M,), infinite until the boundary has been estimated."""

    radius: Tensor


@native("fmn", "l2", "linf", "l1", "l0", reference="Pintor et al. 2021, arXiv 2102.12827", kind="minimum-norm")
class FMN(IterativeMinimumNormAttack):
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

    Raises:
        GauntletError: A parameter is out of range.
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

    def start(self, victim: Victim, fields: dict[str, Any]) -> FMNState:
        """In a ball without bound, in L0 of one pixel."""
        radius = torch.full_like(fields["best_size"], 1.0 if self.norm == "l0" else torch.inf)
        return FMNState(**fields, radius=radius)

    def step(self, victim: Victim, state: FMNState, rng: PerImageRNG) -> Tensor:
        """A step along the gradient, and into the ball of the new radius."""
        gradient, outputs = victim.gradient(state.current, state.labels, margin)
        fooled = victim.is_fooled(outputs, state.labels)
        over = state.keep_nearest(fooled, self.norm, outputs)
        gradient = free(gradient, state.current)
        gamma = cosine_decay(state.steps_done, self.steps, self.gamma, 0.001)
        state.radius = self._radius(state, fooled, gamma, gradient, margin(outputs, state.labels))
        stride = cosine_decay(state.steps_done, self.steps, self.first_stride, self.last_stride)
        offset = state.current - state.clean + per_image(stride, gradient) * steepest_direction(gradient, "l2")
        state.current = (state.clean + self._project(offset, state)).clamp(0, 1)
        return over | (state.steps_done + 1 >= self.steps)

    def _radius(self, state: FMNState, fooled: Tensor, gamma: Tensor, gradient: Tensor, gap: Tensor) -> Tensor:
        """The next radius (M,)."""
        if self.norm == "l0":
            smaller = torch.minimum(state.radius - 1, (state.radius * (1 - gamma)).floor()).minimum(state.best_size)
            larger = torch.maximum(state.radius + 1, (state.radius * (1 + gamma)).floor())
            most = state.clean[0, 0].numel()
            return torch.where(fooled, smaller, larger).clamp(1, most)
        size = perturbation_norms(state.current, state.clean, self.norm)
        steepness = torch.linalg.vector_norm(gradient.flatten(1), ord=_DUAL[self.norm], dim=1).clamp_min(1e-12)
        estimate = torch.maximum(size + gap.abs() / steepness, size * (1 + gamma))
        larger = torch.where(state.best_size.isfinite(), state.radius * (1 + gamma), estimate)
        return torch.where(fooled, torch.minimum(state.radius * (1 - gamma), state.best_size), larger)

    def _project(self, offset: Tensor, state: FMNState) -> Tensor:
        radius = state.radius.nan_to_num(posinf=torch.finfo(offset.dtype).max)
        if self.norm == "l1":
            return project_l1(offset, state.clean, radius)
        if self.norm != "l0":
            return project(offset, self.norm, radius)
        inside = (state.clean + offset).clamp(0, 1) - state.clean
        return inside * largest_pixels(inside, radius)


def free(gradient: Tensor, current: Tensor) -> Tensor:
    """A gradient (M, C, H, W) without the entries that would lead out of [0, 1], and without NaN."""
    stuck = ((current <= 0) & (gradient < 0)) | ((current >= 1) & (gradient > 0))
    return gradient.nan_to_num(0).masked_fill(stuck, 0)


def largest_pixels(offset: Tensor, count: Tensor) -> Tensor:
    """A mask (M, 1, H, W) of the ``count`` (M,) pixels with the largest perturbation, summed over channels."""
    size = offset.abs().sum(dim=1).flatten(1)
    rank = size.argsort(dim=1, descending=True).argsort(dim=1)
    return (rank < count[:, None]).view(len(offset), 1, *offset.shape[2:])
