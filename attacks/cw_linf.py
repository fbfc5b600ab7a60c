"""Carlini and Wagner's Linf attack: what exceeds a bound against the margin, with a bound that falls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..datasets.per_image_rng import PerImageRNG
from ..registry import GauntletError
from .cw import adam_step
from .losses import margin
from .minimum_norm import IterativeMinimumNormAttack, MinimumNormSearch
from .native import native
from .norms import per_image, perturbation_norms
from .victim import Victim

_LEAST_BOUND = 1 / 255
_DONE = 1e-4  # a loss below this share of the weight ends a trial


@dataclass
class CWLinfState(MinimumNormSearch):
    """State of the search.

    Attributes:
        origin: The original image in the variable of the search, an inverse tanh (M, C, H, W).
        shift: What is added to it; it stays from trial to trial.
        first: Adam's mean of gradients.
        second: Adam's mean of their squares.
        weight: Weight of the margin (M,).
        bound: What a pixel may move without loss (M,).
        nearest: Size of the last image of this trial that was nearer than all before (M,).
        inner: Steps taken in this trial (M,).
    """

    origin: Tensor
    shift: Tensor
    first: Tensor
    second: Tensor
    weight: Tensor
    bound: Tensor
    nearest: Tensor
    inner: Tensor


@native(
    "cw-linf",
    "linf",
    reference="Carlini, Wagner 2016, arXiv 1608.04644",
    kind="minimum-norm",
    cost="full",
    few={"steps": 10, "fall": 0.7},
)
class CarliniWagnerLinf(IterativeMinimumNormAttack):
    """Adam on what the perturbation exceeds a bound by plus weighted margin; the bound falls whenever an image fools.

    Carlini, Wagner 2016, arXiv 1608.04644, as in adversarial-library: a trial that finds nothing nearer makes the
    weight twice as large. Trials end for each image on its own.

    Args:
        steps: Most steps of a trial.
        stepsize: Of Adam.
        initial_weight: The first weight.
        largest_weight: The search ends with it.
        fall: Of the bound, as a share of the nearest image's.

    Raises:
        GauntletError: A parameter is out of range.
    """

    norm = "linf"

    def __init__(
        self,
        steps: int = 1000,
        stepsize: float = 0.01,
        initial_weight: float = 1e-5,
        largest_weight: float = 20.0,
        fall: float = 0.9,
    ) -> None:
        if steps < 1 or not stepsize > 0 or not 0 < initial_weight < largest_weight or not 0 < fall < 1:
            raise GauntletError(
                "cw-linf needs steps >= 1, stepsize > 0, 0 < initial_weight < largest_weight and 0 < fall < 1, got "
                f"{steps}, {stepsize}, {initial_weight}, {largest_weight} and {fall}."
            )
        self.steps, self.stepsize, self.fall = steps, stepsize, fall
        self.initial_weight, self.largest_weight = initial_weight, largest_weight

    def start(self, victim: Victim, fields: dict[str, Any]) -> CWLinfState:
        """At the originals, with the first weight and a bound of 1."""
        origin = ((2 * fields["clean"] - 1) * 0.999999).atanh()  # a pixel of 0 or 1 would be at infinity
        nothing, none = torch.zeros_like(origin), torch.zeros_like(fields["best_size"])
        return CWLinfState(
            **fields,
            origin=origin,
            shift=nothing,
            first=nothing,
            second=nothing,
            weight=none + self.initial_weight,
            bound=none + 1,
            nearest=none + torch.inf,
            inner=torch.zeros_like(fields["item"]),
        )

    def step(self, victim: Victim, state: CWLinfState, rng: PerImageRNG) -> Tensor:
        """One step of Adam with the bound and the weight of now, and the next where the trial is over."""
        squeezed = (state.origin + state.shift).tanh()
        state.current = (squeezed + 1) / 2
        slope, outputs = victim.gradient(state.current, state.labels, margin)
        fooled = victim.is_fooled(outputs, state.labels)
        size = perturbation_norms(state.current, state.clean, self.norm)
        state.nearest = torch.where(fooled & (size < state.best_size), size, state.nearest)
        over = state.keep_nearest(fooled, self.norm, outputs)
        offset, lack = state.current - state.clean, -margin(outputs, state.labels)
        excess = (offset.abs() - per_image(state.bound, offset)).clamp_min(0)
        loss = excess.flatten(1).sum(dim=1) + state.weight * lack.clamp_min(0)
        pull = per_image(torch.where(lack > 0, state.weight, 0.0), slope) * slope.nan_to_num(0)
        gradient = ((excess > 0) * offset.sign() - pull) * (1 - squeezed.square()) / 2
        adam_step(state, gradient, self.stepsize)
        state.inner = state.inner + 1
        self._next_trial(state, (loss < _DONE * state.weight) | (state.inner >= self.steps))
        return over | (state.bound <= _LEAST_BOUND) | (state.weight >= self.largest_weight)

    def _next_trial(self, state: CWLinfState, ended: Tensor) -> None:
        """A smaller bound where the trial found an image, a larger weight where it found none."""
        found = ended & state.nearest.isfinite()
        state.bound = torch.where(found, self.fall * state.bound.minimum(state.nearest), state.bound)
        state.weight = torch.where(ended & ~found, 2 * state.weight, state.weight)
        state.nearest, state.inner = state.nearest.masked_fill(ended, torch.inf), state.inner.masked_fill(ended, 0)
        keep = per_image((~ended).to(state.first.dtype), state.first)
        state.first, state.second = state.first * keep, state.second * keep
