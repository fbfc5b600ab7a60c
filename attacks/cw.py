"""Carlini and Wagner's L2 attack: distance against margin, with the weight found by bisection for each image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..datasets.per_image_rng import PerImageRNG
from ..registry import GauntletError
from .losses import margin
from .minimum_norm import IterativeMinimumNormAttack, MinimumNormSearch
from .native import native
from .norms import per_image
from .victim import Victim

_DECAYS = (0.9, 0.999)  # of Adam


@dataclass
class CWState(MinimumNormSearch):
    """State of the search.

    Attributes:
        origin: The original image in the variable of the search, an inverse tanh (M, C, H, W).
        shift: What is added to it.
        first: Adam's mean of gradients.
        second: Adam's mean of their squares.
        weight: Weight of the margin (M,).
        low: Largest weight known to fail.
        high: Smallest weight known to succeed.
        found: Whether this weight succeeded.
        inner: Steps taken with this weight.
        trials: Weights tried.
        before: Loss at the last check of progress.
    """

    origin: Tensor
    shift: Tensor
    first: Tensor
    second: Tensor
    weight: Tensor
    low: Tensor
    high: Tensor
    found: Tensor
    inner: Tensor
    trials: Tensor
    before: Tensor


@native("cw-l2", "l2", reference="Carlini, Wagner 2016, arXiv 1608.04644", kind="minimum-norm", cost="full")
class CarliniWagner(IterativeMinimumNormAttack):
    """Adam on squared distance plus weighted margin, in a variable that keeps the image inside the box.

    Carlini, Wagner 2016, arXiv 1608.04644. Weight and early abort are each image's own, so that results do not depend
    on its neighbours.

    Args:
        trials: Weights to try: ten times more until one succeeds, then bisection.
        steps: Most steps with each; they end when the loss has not fallen by 0.01 % in a tenth of them.
        stepsize: Of Adam.
        confidence: Margin to reach.
        initial_weight: The first weight.

    Raises:
        GauntletError: A parameter is out of range.
    """

    norm = "l2"

    def __init__(
        self,
        trials: int = 9,
        steps: int = 1000,
        stepsize: float = 0.01,
        confidence: float = 0.0,
        initial_weight: float = 1e-3,
    ) -> None:
        if min(trials, steps) < 1 or not min(stepsize, initial_weight) > 0:
            raise GauntletError(
                "cw-l2 needs trials and steps >= 1, stepsize and initial_weight > 0, got "
                f"{trials}, {steps}, {stepsize} and {initial_weight}."
            )
        self.trials, self.steps, self.stepsize = trials, steps, stepsize
        self.confidence, self.initial_weight = confidence, initial_weight

    def start(self, victim: Victim, fields: dict[str, Any]) -> CWState:
        """At the originals, with the first weight."""
        # A pixel of 0 or 1 would be at infinity.
        origin = ((2 * fields["clean"] - 1) * 0.999999).atanh()
        nothing, none = torch.zeros_like(origin), torch.zeros_like(fields["best_size"])
        return CWState(
            **fields,
            origin=origin,
            shift=nothing,
            first=nothing,
            second=nothing,
            weight=none + self.initial_weight,
            low=none,
            high=none + torch.inf,
            found=none.bool(),
            inner=torch.zeros_like(fields["item"]),
            trials=torch.zeros_like(fields["item"]),
            before=none + torch.inf,
        )

    def step(self, victim: Victim, state: CWState, rng: PerImageRNG) -> Tensor:
        """One step of Adam with the weight of now, and the next weight where its trial is over."""
        squeezed = (state.origin + state.shift).tanh()
        state.current = (squeezed + 1) / 2
        slope, outputs = victim.gradient(state.current, state.labels, margin)
        lack = self.confidence - margin(outputs, state.labels)
        offset = state.current - (state.origin.tanh() + 1) / 2
        loss = state.weight * lack.clamp_min(0) + offset.square().flatten(1).sum(dim=1)
        fooled = victim.is_fooled(outputs, state.labels) & (lack <= 0)
        over = state.keep_nearest(fooled, self.norm, outputs)
        state.found = state.found | fooled
        pull = per_image(torch.where(lack > 0, state.weight, torch.zeros_like(lack)), slope) * slope.nan_to_num(0)
        self._descend(state, (2 * offset - pull) * (1 - squeezed.square()) / 2)
        state.inner = state.inner + 1
        # Early abort as in the authors' code, which looks ten times in a trial.
        due = (state.inner - 1) % math.ceil(self.steps / 10) == 0
        stalled = due & ~(loss <= 0.9999 * state.before)
        state.before = torch.where(due, loss, state.before)
        self._reweigh(state, stalled | (state.inner >= self.steps))
        return over | (state.trials >= self.trials)

    def _descend(self, state: CWState, gradient: Tensor) -> None:
        """One step of Adam along a gradient (M, C, H, W), each search by its own count."""
        fast, slow = _DECAYS
        state.first = fast * state.first + (1 - fast) * gradient
        state.second = slow * state.second + (1 - slow) * gradient.square()
        count = per_image(state.inner + 1, gradient)
        mean, square = state.first / (1 - fast**count), state.second / (1 - slow**count)
        state.shift = state.shift - self.stepsize * mean / (square.sqrt() + 1e-8)

    def _reweigh(self, state: CWState, over: Tensor) -> None:
        """Where a trial is over (a mask (M,)), choose the next weight and start from the original again."""
        if not over.any():
            return
        state.high = torch.where(over & state.found, state.weight, state.high)
        state.low = torch.where(over & ~state.found, state.weight, state.low)
        # Ten times more until a weight succeeds, bisection from then on.
        following = torch.where(state.high.isinf(), state.weight * 10, (state.low + state.high) / 2)
        state.weight = torch.where(over, following, state.weight)
        state.trials = state.trials + over.long()
        state.inner, state.found = state.inner.masked_fill(over, 0), state.found & ~over
        state.before = state.before.masked_fill(over, torch.inf)
        keep = per_image((~over).to(state.shift.dtype), state.shift)
        state.shift, state.first, state.second = state.shift * keep, state.first * keep, state.second * keep
