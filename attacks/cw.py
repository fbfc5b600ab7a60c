"""Carlini and Wagner's L2 attack: distance against margin, with the weight found by bisection for each image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

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
class Trials:
    """Weights of the margin, tried in turn: ten times more until one succeeds, bisection from then on.

    Attributes:
        weight: The weight now (M,).
        low: Largest weight known to fail.
        high: Smallest weight known to succeed.
        found: Whether this weight succeeded.
        inner: Steps taken with this weight.
        trials: Weights tried.
        before: Loss at the last check of progress.
    """

    weight: Tensor
    low: Tensor
    high: Tensor
    found: Tensor
    inner: Tensor
    trials: Tensor
    before: Tensor

    @classmethod
    def begin(cls, items: Tensor, like: Tensor, weight: float) -> Trials:
        """The first trial of as many searches as there are ``items`` (M,)."""
        none, counts = torch.zeros_like(like), torch.zeros_like(items)
        return Trials(none + weight, none, none + torch.inf, none.bool(), counts, counts, none + torch.inf)

    def progress_stopped(self, loss: Tensor, every: int) -> Tensor:
        """Where the loss (M,) has not fallen by 0.01 % since the last look, one in ``every`` steps."""
        due = (self.inner - 1) % every == 0
        stalled = due & ~(loss <= 0.9999 * self.before)
        self.before = torch.where(due, loss, self.before)
        return stalled

    def next_trial(self, over: Tensor) -> None:
        """Choose the next weight where a trial is over (a mask (M,))."""
        self.high = torch.where(over & self.found, self.weight, self.high)
        self.low = torch.where(over & ~self.found, self.weight, self.low)
        following = torch.where(self.high.isinf(), self.weight * 10, (self.low + self.high) / 2)
        self.weight = torch.where(over, following, self.weight)
        self.trials = self.trials + over.long()
        self.inner, self.found = self.inner.masked_fill(over, 0), self.found & ~over
        self.before = self.before.masked_fill(over, torch.inf)


@dataclass
class CWState(MinimumNormSearch, Trials):
    """State of the search.

    Attributes:
        origin: The original image in the variable of the search, an inverse tanh (M, C, H, W).
        shift: What is added to it.
        first: Adam's mean of gradients.
        second: Adam's mean of their squares.
    """

    origin: Tensor
    shift: Tensor
    first: Tensor
    second: Tensor


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
        nothing = torch.zeros_like(origin)
        trials = Trials.begin(fields["item"], fields["best_size"], self.initial_weight)
        return CWState(**vars(trials), **fields, origin=origin, shift=nothing, first=nothing, second=nothing)

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
        adam_step(state, (2 * offset - pull) * (1 - squeezed.square()) / 2, self.stepsize)
        state.inner = state.inner + 1
        # Early abort as in the authors' code, which looks ten times in a trial.
        stalled = state.progress_stopped(loss, math.ceil(self.steps / 10))
        self._reweigh(state, stalled | (state.inner >= self.steps))
        return over | (state.trials >= self.trials)

    def _reweigh(self, state: CWState, over: Tensor) -> None:
        """Where a trial is over (a mask (M,)), choose the next weight and start from the original again."""
        if not over.any():
            return
        Trials.next_trial(state, over)
        keep = per_image((~over).to(state.shift.dtype), state.shift)
        state.shift, state.first, state.second = state.shift * keep, state.first * keep, state.second * keep


class AdamState(Protocol):
    """Searches that Adam moves, each by the count of its own ``inner`` steps."""

    shift: Tensor
    first: Tensor
    second: Tensor
    inner: Tensor


def adam_step(state: AdamState, gradient: Tensor, stepsize: float) -> None:
    """One step of Adam along a gradient (M, C, H, W), each search by its own count."""
    fast, slow = _DECAYS
    state.first = fast * state.first + (1 - fast) * gradient
    state.second = slow * state.second + (1 - slow) * gradient.square()
    count = per_image(state.inner + 1, gradient)
    mean, square = state.first / (1 - fast**count), state.second / (1 - slow**count)
    state.shift = state.shift - stepsize * mean / (square.sqrt() + 1e-8)
