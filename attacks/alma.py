"""ALMA: distance under the constraint of a wrong prediction, by an augmented Lagrangian."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ..datasets.per_image_rng import PerImageRNG
from ..registry import GauntletError
from .losses import dlr, lacking_classes
from .minimum_norm import IterativeMinimumNormAttack, MinimumNormSearch
from .native import native
from .norms import per_image
from .victim import Victim

_MEMORY = 0.9  # of the multiplier, of the mean square and of the momentum
_LOOK = 10  # steps between two looks at the constraint
_IMPROVED = 0.95  # of the constraint at the last look
_HARDER = 1.2  # factor of the penalty where it has not improved
_LAST = 0.01  # share of the first step that the last has
_MARGIN = 1e-4  # that the logits must differ by
_SIZES = {"l2": 0.1, "l1": 0.5}  # how far the first step goes


@dataclass
class ALMAState(MinimumNormSearch):
    """State of the search.

    Attributes:
        square: RMSProp's mean of squared gradients (M, C, H, W).
        velocity: Its momentum (M, C, H, W).
        stride: Length of its step (M,).
        multiplier: Of the constraint (M,).
        penalty: Parameter of the penalty (M,).
        before: The constraint at the last look (M,).
        since: Step at which an image was first found (M,); beyond the last where there is none.
    """

    square: Tensor
    velocity: Tensor
    stride: Tensor
    multiplier: Tensor
    penalty: Tensor
    before: Tensor
    since: Tensor


@native("alma", "l2", "l1", reference="Rony, Granger, Pedersoli, Ben Ayed 2020, arXiv 2011.11857", kind="minimum-norm")
class ALMA(IterativeMinimumNormAttack):
    """RMSProp on distance plus a penalty of the difference of logits ratio, with multipliers of each image.

    Rony, Granger, Pedersoli, Ben Ayed 2020, arXiv 2011.11857, with the penalty P2 and the constants of
    adversarial-library; the first step is as long as ``first`` says. It needs three classes.

    Args:
        norm: ``l2`` or ``l1``.
        steps: Steps.
        first: Distance from the original after the first step; by default 0.1 in L2 and 0.5 in L1.

    Raises:
        GauntletError: A parameter is out of range.
    """

    def __init__(self, norm: Literal["l2", "l1"] = "l2", steps: int = 1000, first: float | None = None) -> None:
        if steps < 2 or (first is not None and not first > 0):
            raise GauntletError(f"alma needs steps >= 2 and first > 0, got {steps} and {first}.")
        self.norm, self.steps = norm, steps
        self.first = _SIZES[norm] if first is None else first

    def left_out(self, classes: int) -> dict[str, str]:
        """The attack itself, with two classes."""
        reason = lacking_classes("dlr", classes)
        return {"": reason} if reason else {}

    def start(self, victim: Victim, fields: dict[str, Any]) -> ALMAState:
        """At the originals, with multiplier and penalty of 1."""
        one = torch.ones_like(fields["best_size"])
        return ALMAState(
            **fields,
            square=torch.ones_like(fields["clean"]),
            velocity=torch.zeros_like(fields["clean"]),
            stride=one,
            multiplier=one,
            penalty=one,
            before=one * torch.inf,
            since=torch.full_like(fields["item"], self.steps + 1),
        )

    def step(self, victim: Victim, state: ALMAState, rng: PerImageRNG) -> Tensor:
        """One step downhill; the multiplier follows the penalty's slope."""
        slope, outputs = victim.gradient(state.current, state.labels, dlr)
        gap = outputs.topk(3, dim=1).values
        value = -dlr(outputs, state.labels) + _MARGIN / (gap[:, 0] - gap[:, 2] + 1e-8)
        fooled = victim.is_fooled(outputs, state.labels) & (value < 0)
        over = state.keep_nearest(victim.is_fooled(outputs, state.labels), self.norm, outputs)
        state.since = torch.where(fooled, state.since.minimum(state.steps_done), state.since)
        self._weigh(state, value)
        first = state.steps_done == 0
        pull = _penalty_slope(value, state.penalty, state.multiplier)
        gradient = per_image(torch.where(first, 0.0, 1.0), slope) * self._distance_slope(state)
        self._descend(state, gradient - per_image(pull, slope) * slope.nan_to_num(0), first)
        return over | (state.steps_done + 1 >= self.steps)

    def _weigh(self, state: ALMAState, value: Tensor) -> None:
        first = state.steps_done == 0
        due = (state.steps_done + 1) % _LOOK == 0
        stuck = due & ~first & (state.since > self.steps) & ~(value < _IMPROVED * state.before)
        state.penalty = torch.where(stuck, _HARDER * state.penalty, state.penalty)
        state.before = torch.where(due | first, value, state.before)
        following = _penalty_slope(value, state.penalty, state.multiplier)
        moved = (_MEMORY * state.multiplier + (1 - _MEMORY) * following).clamp(1e-6, 1e12)
        state.multiplier = torch.where(first, state.multiplier, moved)

    def _distance_slope(self, state: ALMAState) -> Tensor:
        offset = state.current - state.clean
        if self.norm == "l1":
            return offset.sign()
        return 2 * offset  # of the squared length, as the authors have it

    def _descend(self, state: ALMAState, gradient: Tensor, first: Tensor) -> None:
        if first.any():
            direction = per_image(torch.where(first, 1.0, 0.0), gradient) * gradient
            state.stride = torch.where(first, self._first_stride(state.clean, direction), state.stride)
        left = ((state.steps_done - state.since).clamp_min(0) / (self.steps - state.since)).clamp(0, 1)
        stride = state.stride * _LAST**left
        state.square = _MEMORY * state.square + (1 - _MEMORY) * gradient.square()
        state.velocity = _MEMORY * state.velocity + gradient / (state.square.sqrt() + 1e-8)
        state.current = (state.current - per_image(stride, gradient) * state.velocity).clamp(0, 1)

    def _first_stride(self, clean: Tensor, direction: Tensor) -> Tensor:
        """How much of a direction (M, C, H, W) leads to the first distance (M,), by doubling and then bisection."""

        def far(length: Tensor) -> Tensor:
            offset = ((clean - per_image(length, clean) * direction).clamp(0, 1) - clean).flatten(1)
            return torch.linalg.vector_norm(offset, ord=2 if self.norm == "l2" else 1, dim=1) > self.first

        high = torch.ones(len(clean), dtype=clean.dtype, device=clean.device)
        for _ in range(60):
            high = torch.where(far(high), high, 2 * high)
        low = torch.zeros_like(high)
        for _ in range(40):
            middle = (low + high) / 2
            low, high = torch.where(far(middle), low, middle), torch.where(far(middle), middle, high)
        return torch.where(high > 1e17, torch.ones_like(high), high)


def _penalty_slope(value: Tensor, penalty: Tensor, multiplier: Tensor) -> Tensor:
    """Derivative (M,) of the penalty P2 in the constraint's value."""
    above = multiplier + 2 * multiplier * penalty * value + penalty.square() * value.square() / 2
    return torch.where(value >= 0, above, multiplier / (1 - penalty * value.clamp(max=0)).square())
