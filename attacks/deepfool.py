"""DeepFool: again and again to the nearest boundary of the linearised model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ..datasets.per_image_rng import PerImageRNG
from ..registry import GauntletError
from .minimum_norm import IterativeMinimumNormAttack, MinimumNormSearch
from .native import native
from .norms import per_image
from .victim import Victim


@dataclass
class DeepFoolState(MinimumNormSearch):
    """``classes`` are the candidates (M, K), the predicted one first; ``moved`` is the sum of steps (M, C, H, W)."""

    classes: Tensor
    moved: Tensor


@native("deepfool", "l2", "linf", reference="Moosavi-Dezfooli et al. 2015, arXiv 1511.04599", kind="minimum-norm")
class DeepFool(IterativeMinimumNormAttack):
    """Steps to the nearest linearised boundary until the image is across.

    Moosavi-Dezfooli, Fawzi, Frossard 2015, arXiv 1511.04599. The gradients of all candidate classes come from one
    forward; an image leaves once it is across.

    Args:
        norm: ``l2`` or ``linf``.
        steps: Most steps.
        candidates: Classes to consider, likeliest first, with the predicted one.
        overshoot: How far beyond the boundary to go, as a share of the way.

    Raises:
        GauntletError: A parameter is out of range.
    """

    def __init__(
        self,
        norm: Literal["l2", "linf"] = "l2",
        steps: int = 50,
        candidates: int = 10,
        overshoot: float = 0.02,
    ) -> None:
        if steps < 1 or candidates < 2:
            raise GauntletError(f"deepfool needs steps >= 1 and candidates >= 2, got {steps} and {candidates}.")
        self.norm, self.steps, self.candidates, self.overshoot = norm, steps, candidates, overshoot

    def start(self, victim: Victim, fields: dict[str, Any]) -> DeepFoolState:
        """With the likeliest classes as candidates."""
        classes = victim.outputs(fields["clean"]).argsort(dim=1, descending=True)[:, : self.candidates]
        return DeepFoolState(**fields, classes=classes, moved=torch.zeros_like(fields["clean"]))

    def step(self, victim: Victim, state: DeepFoolState, rng: PerImageRNG) -> Tensor:
        """Across the nearest linearised boundary."""
        unit, distance = to_nearest_boundary(victim, state, self.norm)
        state.moved = state.moved + per_image(distance, unit) * unit
        state.current = state.best = (state.clean + (1 + self.overshoot) * state.moved).clamp(0, 1)
        return victim.is_over(victim.outputs(state.current), state.labels) | (state.steps_done + 1 >= self.steps)


def to_nearest_boundary(victim: Victim, state: DeepFoolState, norm: str) -> tuple[Tensor, Tensor]:
    """Unit direction (M, C, H, W) of the nearest linearised boundary, and how far it is (M,), 1e-4 more than that."""
    others, base = state.classes[:, 1:], state.classes[:, 0]
    slopes, outputs = victim.logit_difference_gradients(state.current, others, base)
    gaps = (outputs.gather(1, others) - outputs.gather(1, base[:, None])).abs()
    # The dual norm of a gradient is how fast the gap closes per unit of distance.
    steepness = torch.linalg.vector_norm(slopes.flatten(2), ord=2 if norm == "l2" else 1, dim=2) + 1e-8
    distance, best = (gaps / steepness).min(dim=1)
    every = torch.arange(len(state), device=best.device)
    slope = slopes[every, best]
    unit = slope * per_image(1 / steepness[every, best], slope) if norm == "l2" else slope.sign()
    # The authors add 1e-4, so that an image on the boundary still moves.
    return unit, distance + 1e-4
