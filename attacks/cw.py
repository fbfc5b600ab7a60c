"""Carlini and Wagner's L2 attack: distance against margin, with the weight found by bisection for each image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..datasets.per_image_rng import PerImageRNG
from ..registry import GauntletError, attack
from .base import MinimisationAttack
from .losses import margin
from .minimum_norm import Search, nearest, start
from .norms import per_image
from .victim import Victim

_DECAYS = (0.9, 0.999)  # of Adam


@dataclass
class _Weighing(Search):
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


@attack(
    "cw-l2",
    norm="l2",
    kind="minimisation",
    access="gradient",
    cost="full",
    tags=("native", "white-box"),
    reference="Carlini, Wagner 2016, arXiv 1608.04644",
)
class CarliniWagner(MinimisationAttack):
    """Adam on squared distance plus weighted margin, in a variable that keeps the image inside the box.

    Carlini, Wagner 2016, arXiv 1608.04644. Weight and early abort are each image's own, so that results do not depend
    on its neighbours.

    Args:
        trials: Weights to try: ten times more until one succeeds, then bisection.
        steps: Most steps with each; they end when the loss has not fallen by 0.01 % in a tenth of them.
        stepsize: Of Adam.
        confidence: Margin to reach.
        initial_weight: The first weight.
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

    def closest(
        self, victim: Victim, images: Tensor, labels: Tensor, epsilons: Sequence[float], rng: PerImageRNG
    ) -> Tensor:
        """One search for each image."""
        return nearest(
            victim, images, lambda items: self._load(images, labels, items), lambda rows: self._step(victim, rows)
        )

    def _load(self, images: Tensor, labels: Tensor, items: Tensor) -> _Weighing:
        fields = start(images, labels, items)
        origin = ((2 * fields["clean"] - 1) * 0.999999).atanh()
        nothing, none = torch.zeros_like(origin), torch.zeros_like(fields["size"])
        return _Weighing(
            **fields,
            origin=origin,
            shift=nothing,
            first=nothing,
            second=nothing,
            weight=none + self.initial_weight,
            low=none,
            high=none + torch.inf,
            found=none.bool(),
            inner=torch.zeros_like(items),
            trials=torch.zeros_like(items),
            before=none + torch.inf,
        )

    def _step(self, victim: Victim, rows: _Weighing) -> Tensor:
        squeezed = (rows.origin + rows.shift).tanh()
        rows.current = (squeezed + 1) / 2
        slope, outputs = victim.gradient(rows.current, rows.labels, margin)
        lack = self.confidence - margin(outputs, rows.labels)
        offset = rows.current - (rows.origin.tanh() + 1) / 2
        loss = rows.weight * lack.clamp_min(0) + offset.square().flatten(1).sum(dim=1)
        fooled = victim.judge(outputs, rows.labels) & (lack <= 0)
        rows.note(fooled, self.norm)
        rows.found = rows.found | fooled
        pull = per_image(torch.where(lack > 0, rows.weight, torch.zeros_like(lack)), slope) * slope.nan_to_num(0)
        self._descend(rows, (2 * offset - pull) * (1 - squeezed.square()) / 2)
        rows.inner = rows.inner + 1
        due = (rows.inner - 1) % math.ceil(self.steps / 10) == 0
        stalled = due & ~(loss <= 0.9999 * rows.before)
        rows.before = torch.where(due, loss, rows.before)
        self._reweigh(rows, stalled | (rows.inner >= self.steps))
        return rows.trials >= self.trials

    def _descend(self, rows: _Weighing, gradient: Tensor) -> None:
        """One step of Adam, each row by its own count."""
        fast, slow = _DECAYS
        rows.first = fast * rows.first + (1 - fast) * gradient
        rows.second = slow * rows.second + (1 - slow) * gradient.square()
        count = per_image(rows.inner + 1, gradient)
        mean, square = rows.first / (1 - fast**count), rows.second / (1 - slow**count)
        rows.shift = rows.shift - self.stepsize * mean / (square.sqrt() + 1e-8)

    def _reweigh(self, rows: _Weighing, over: Tensor) -> None:
        """Where a trial is over, choose the next weight and start from the original again."""
        if not over.any():
            return
        rows.high = torch.where(over & rows.found, rows.weight, rows.high)
        rows.low = torch.where(over & ~rows.found, rows.weight, rows.low)
        following = torch.where(rows.high.isinf(), rows.weight * 10, (rows.low + rows.high) / 2)
        rows.weight = torch.where(over, following, rows.weight)
        rows.trials = rows.trials + over.long()
        rows.inner, rows.found = rows.inner.masked_fill(over, 0), rows.found & ~over
        rows.before = rows.before.masked_fill(over, torch.inf)
        keep = per_image((~over).to(rows.shift.dtype), rows.shift)
        rows.shift, rows.first, rows.second = rows.shift * keep, rows.first * keep, rows.second * keep
