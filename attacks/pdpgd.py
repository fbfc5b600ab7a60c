"""PDPGD: primal descent with a proximal step, and dual ascent on the weight of the distance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..datasets.per_image_rng import PerImageRNG
from ..registry import GauntletError
from .losses import margin
from .minimum_norm import IterativeMinimumNormAttack, MinimumNormSearch
from .native import native
from .norms import per_image
from .victim import Victim

_DECAYS = (0.9, 0.999)  # of Adam
_LEAST_RATIO = 1e-6  # of the weights of distance and margin, and of their inverse
_PROXIMAL_STEPS = 5
_STILL = 1e-2  # relative change at which a proximal iteration ends


@dataclass
class PDPGDState(MinimumNormSearch):
    """State of the search.

    Attributes:
        first: Adam's mean of gradients (M, C, H, W).
        second: Adam's mean of their squares (M, C, H, W).
        dual: Log of the ratio of the weights of margin and distance (M,).
        share: Moving mean of the share of the distance in the weights (M,).
    """

    first: Tensor
    second: Tensor
    dual: Tensor
    share: Tensor


@native("pdpgd", "l2", "linf", "l1", reference="Matyasko, Chau 2021, arXiv 2106.01538", kind="minimum-norm")
class PDPGD(IterativeMinimumNormAttack):
    """Adam on the softplus of the margin and the proximal operator of the norm, whose weight falls while nothing fools.

    Matyasko, Chau 2021, arXiv 2106.01538, with the constants of adversarial-library.

    Args:
        norm: ``l2``, ``linf`` or ``l1``.
        steps: Steps.
        stepsize: Of Adam at first; it falls to a hundredth.
        ratio: Weight of the distance over that of the margin at first.
        dual_stepsize: Of the log of that ratio at first; it falls to a tenth.

    Raises:
        GauntletError: A parameter is out of range.
    """

    def __init__(
        self,
        norm: Literal["l2", "linf", "l1"] = "l2",
        steps: int = 500,
        stepsize: float = 0.1,
        ratio: float = 0.01,
        dual_stepsize: float = 0.1,
    ) -> None:
        if steps < 2 or not min(stepsize, dual_stepsize) > 0 or not 0 < ratio < 1:
            raise GauntletError(
                "pdpgd needs steps >= 2, stepsize and dual_stepsize > 0 and 0 < ratio < 1, got "
                f"{steps}, {stepsize}, {dual_stepsize} and {ratio}."
            )
        self.norm, self.steps, self.stepsize = norm, steps, stepsize
        self.ratio, self.dual_stepsize = ratio, dual_stepsize

    def start(self, victim: Victim, fields: dict[str, Any]) -> PDPGDState:
        """At the originals."""
        nothing, dual = torch.zeros_like(fields["clean"]), torch.full_like(fields["best_size"], -math.log(self.ratio))
        return PDPGDState(**fields, first=nothing, second=nothing, dual=dual, share=(-dual).sigmoid())

    def step(self, victim: Victim, state: PDPGDState, rng: PerImageRNG) -> Tensor:
        """One primal and one dual step."""
        slope, outputs = victim.gradient(state.current, state.labels, lambda out, y: -F.softplus(-margin(out, y)))
        lead = -margin(outputs, state.labels)
        fooled = victim.is_fooled(outputs, state.labels)
        over = state.keep_nearest(fooled, self.norm, outputs)
        self._descend(state, -slope.nan_to_num(0))
        done = state.steps_done.to(lead)
        rate = self.dual_stepsize * ((self.steps - 1 - done) / (self.steps - 1) * 0.9 + 0.1)
        limit = -math.log(_LEAST_RATIO)
        state.dual = (state.dual + rate * lead.sign()).clamp(-limit, limit)
        state.share = 0.9 * state.share + 0.1 * (-state.dual).sigmoid()
        return over | (state.steps_done + 1 >= self.steps)

    def _descend(self, state: PDPGDState, gradient: Tensor) -> None:
        """One step of Adam, and the proximal operator in its metric."""
        fast, slow = _DECAYS
        state.first = fast * state.first + (1 - fast) * gradient
        state.second = slow * state.second + (1 - slow) * gradient.square()
        count = per_image(state.steps_done + 1, gradient)
        metric = (state.second / (1 - slow**count)).sqrt() + 1e-8
        stride = self.stepsize * 0.01 ** (state.steps_done / self.steps)
        moved = state.current - per_image(stride, gradient) * state.first / (1 - fast**count) / metric
        offset = moved.clamp(0, 1) - state.clean
        largest = metric.flatten(1).amax(dim=1)
        weight = state.share / (1 - state.share) * stride / largest
        state.current = (
            state.clean + self._proximal(offset, state.clean, metric / per_image(largest, metric), weight)
        ).clamp(0, 1)

    def _proximal(self, offset: Tensor, clean: Tensor, metric: Tensor, weight: Tensor) -> Tensor:
        """Where weighted distance and the way from ``offset`` (M, C, H, W), in the metric, are least together."""
        found, moving = offset, torch.ones_like(weight, dtype=torch.bool)
        for _ in range(_PROXIMAL_STEPS):
            following = PROXIMAL[self.norm](found - metric * (found - offset), weight)
            following = (clean + following).clamp(0, 1) - clean
            following = torch.where(per_image(moving, following), following, found)
            change = (following - found).flatten(1).norm(dim=1) / following.flatten(1).norm(dim=1).clamp_min(1e-12)
            found, moving = following, moving & (change > _STILL)
        return found


def shrink(offset: Tensor, weight: Tensor) -> Tensor:
    """Proximal operator of the L1 norm: every entry of (M, C, H, W) comes nearer to 0 by the weight (M,)."""
    return offset.sign() * (offset.abs() - per_image(weight, offset)).clamp_min(0)


def shorten(offset: Tensor, weight: Tensor) -> Tensor:
    """Proximal operator of the L2 norm: perturbations (M, C, H, W) become shorter by the weight (M,)."""
    return offset * per_image((1 - weight / offset.flatten(1).norm(dim=1).clamp_min(1e-12)).clamp_min(0), offset)


def cut(offset: Tensor, weight: Tensor) -> Tensor:
    """Proximal operator of the Linf norm: the largest entries of (M, C, H, W) are cut by the weight (M,) in all."""
    size = offset.flatten(1).abs().sort(dim=1, descending=True).values
    rank = torch.arange(1, size.shape[1] + 1, device=size.device)
    # The level at which what is cut off sums to the weight.
    levels = (size.cumsum(dim=1) - weight[:, None]) / rank
    count = (size > levels).sum(dim=1, keepdim=True).clamp_min(1)
    level = levels.gather(1, count - 1).squeeze(1).clamp_min(0)
    return offset.clamp(-per_image(level, offset), per_image(level, offset))


PROXIMAL = {"l1": shrink, "l2": shorten, "linf": cut}
