"""EAD: elastic-net attacks, which shrink every pixel's change by a threshold at each step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..datasets.per_image_rng import PerImageRNG
from ..registry import GauntletError
from .cw import Trials
from .losses import margin
from .minimum_norm import IterativeMinimumNormAttack, MinimumNormSearch
from .native import native
from .norms import per_image
from .victim import Victim


@dataclass
class EADState(MinimumNormSearch, Trials):
    """``ahead`` is the image that the next gradient is taken at (M, C, H, W)."""

    ahead: Tensor


@native(
    "ead", "l1", reference="Chen, Sharma, Zhang, Yi, Hsieh 2017, arXiv 1709.04114", kind="minimum-norm", cost="full"
)
class EAD(IterativeMinimumNormAttack):
    """Accelerated shrinkage on squared L2 plus weighted margin plus a share of L1; what is nearest in L1 is kept.

    Chen, Sharma, Zhang, Yi, Hsieh 2017, arXiv 1709.04114 (the L1 decision rule). Weight and early abort are each
    image's own, as in ``cw-l2``.

    Args:
        trials: Weights to try: ten times more until one succeeds, then bisection.
        steps: Most steps with each.
        stepsize: Of the first step; it falls as the root of what is left of the trial.
        regularization: Weight of the L1 norm, by which each step shrinks a pixel's change.
        confidence: Margin to reach.
        initial_weight: The first weight.

    Raises:
        GauntletError: A parameter is out of range.
    """

    norm = "l1"

    def __init__(
        self,
        trials: int = 9,
        steps: int = 1000,
        stepsize: float = 0.01,
        regularization: float = 0.01,
        confidence: float = 0.0,
        initial_weight: float = 1e-3,
    ) -> None:
        if min(trials, steps) < 1 or not min(stepsize, initial_weight) > 0 or not regularization >= 0:
            raise GauntletError(
                "ead needs trials and steps >= 1, stepsize and initial_weight > 0 and regularization >= 0, got "
                f"{trials}, {steps}, {stepsize}, {initial_weight} and {regularization}."
            )
        self.trials, self.steps, self.stepsize = trials, steps, stepsize
        self.regularization, self.confidence, self.initial_weight = regularization, confidence, initial_weight

    def start(self, victim: Victim, fields: dict[str, Any]) -> EADState:
        """At the originals, with the first weight."""
        trials = Trials.begin(fields["item"], fields["best_size"], self.initial_weight)
        return EADState(**vars(trials), **fields, ahead=fields["clean"].clone())

    def step(self, victim: Victim, state: EADState, rng: PerImageRNG) -> Tensor:
        """One step downhill from the image ahead, shrunk towards the original."""
        slope, ahead = victim.gradient(state.ahead, state.labels, margin)
        pushing = self.confidence - margin(ahead, state.labels) > 0
        pull = per_image(torch.where(pushing, state.weight, 0.0), slope) * slope.nan_to_num(0)
        stride = self.stepsize * (1 - state.inner / self.steps).sqrt()
        offset = state.ahead - state.clean
        moved = offset - per_image(stride, slope) * (2 * offset - pull)
        shrunk = moved.sign() * (moved.abs() - self.regularization).clamp_min(0)
        before, state.current = state.current, (state.clean + shrunk).clamp(0, 1)
        state.inner = state.inner + 1
        momentum = state.inner / (state.inner + 3)
        state.ahead = state.current + per_image(momentum, before) * (state.current - before)
        outputs = victim.outputs(state.current)
        lack = self.confidence - margin(outputs, state.labels)
        fooled = victim.is_fooled(outputs, state.labels) & (lack <= 0)
        over = state.keep_nearest(fooled, self.norm, outputs)
        state.found = state.found | fooled
        ended = self._stalled(state, lack) | (state.inner >= self.steps)
        state.next_trial(ended)
        for name in ("current", "ahead"):
            setattr(state, name, torch.where(per_image(ended, state.clean), state.clean, getattr(state, name)))
        return over | (state.trials >= self.trials)

    def _stalled(self, state: EADState, lack: Tensor) -> Tensor:
        """Where the loss has not fallen (M,), which is looked at ten times in a trial."""
        offset = (state.current - state.clean).flatten(1)
        distance = offset.square().sum(dim=1) + self.regularization * offset.abs().sum(dim=1)
        return state.progress_stopped(state.weight * lack.clamp_min(0) + distance, math.ceil(self.steps / 10))
