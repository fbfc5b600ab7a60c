"""Auto-PGD in L1: sparse steps whose number of coordinates adapts, in balls that shrink to the budget."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .apgd_state import APGDState
from .budget import BudgetSearch, SearchBatch
from .norms import per_image, perturbation_norms
from .steps import within

#: Balls, in epsilons, and the share of the steps that each of them has.
_STAGES = ((3.0, 0.3), (2.0, 0.3), (1.0, 0.4))
_SPARSER = 1.5  # coordinates of the best image to those that the next steps move, and the factor of a shorter step
_LEAST_STEP = 0.1  # in radii


@dataclass
class APGDL1State(APGDState):
    """State of Auto-PGD in L1.

    Attributes:
        share: Of the coordinates that a step moves (M,).
        changed: Coordinates that the best image had changed at the last checkpoint (M,).
        ball: The radius now (M,); ``radius`` is that of the budget.
    """

    share: Tensor
    changed: Tensor
    ball: Tensor


class Climber(Protocol):
    """What a climb needs of an Auto-PGD attack."""

    steps: int

    def fresh(
        self, batch: SearchBatch, items: Tensor, state: BudgetSearch, restart: int, *, stepsize: Tensor
    ) -> APGDState:
        """Searches of items (M,) at their first images, with a first step of length ``stepsize`` (M,)."""

    def evaluate(self, batch: SearchBatch, state: APGDState) -> tuple[Tensor, Tensor, Tensor]:
        """Gradient (M, C, H, W), loss (M,), and which searches are over (M,)."""


class L1Climb:
    """One climb of Auto-PGD in L1 (Croce, Hein 2021, arXiv 2103.01208).

    A step moves the coordinates with the largest gradient by equal amounts, its length is the radius at first. At
    checkpoints the number of coordinates becomes two thirds of those that the best image changes; where that falls, the
    climb goes back to the best image with the longest step, otherwise the step becomes shorter. As in AutoAttack, the
    ball has three, then two, then one epsilon, each beginning where the last one was best.

    Args:
        attack: Whose loss, targets and steps are taken.
        batch: The items.
        restart: Number of the climb.
    """

    def __init__(self, attack: Climber, batch: SearchBatch, restart: int) -> None:
        self.attack, self.batch, self.restart = attack, batch, restart
        lengths = [math.ceil(share * attack.steps) for _, share in _STAGES[:-1]]
        self.lengths = [*lengths, max(attack.steps - sum(lengths), 1)]
        # Each ball begins with a look at where it begins, and then has its steps.
        self.begins = [sum(self.lengths[:stage]) + stage for stage in range(len(_STAGES))]

    def start(self, items: Tensor) -> APGDL1State:
        """At a random point of the largest ball."""
        state = self.batch.start(items)
        draws = self.batch.rng(items).normal(state.clean.shape[1:], purpose="start direction", restart=self.restart)
        ball = _STAGES[0][0] * state.radius
        state.current = within(state.clean + draws, state.clean, "l1", ball)
        plain = self.attack.fresh(self.batch, items, state, self.restart, stepsize=ball)
        count = _changed(state.current, state.clean)
        return APGDL1State(**vars(plain), share=count / state.clean[0].numel() / _SPARSER, changed=count, ball=ball)

    def step(self, state: APGDL1State) -> Tensor:
        """One step, or the first of the next ball."""
        attack = self.attack
        self._enter_next_ball(state)
        gradient, loss, over = attack.evaluate(self.batch, state)
        # What fools in a larger ball is no adversarial yet: it has to fool inside the budget.
        over &= perturbation_norms(state.current, state.clean, "l1") <= state.radius * (1 + 1e-6)
        better = loss > state.best_loss
        state.best = torch.where(per_image(better | over, state.best), state.current, state.best)
        state.best_gradient = torch.where(per_image(better, gradient), gradient, state.best_gradient)
        state.best_loss = torch.where(better, loss, state.best_loss)
        here, gradient = self._checkpoint(state, gradient)
        state.steps_since = state.steps_since + 1
        moved = self._move(state, here, gradient)
        done = over | (state.steps_done >= self.begins[-1] + self.lengths[-1])
        state.current = torch.where(per_image(done, moved), state.best, moved)
        return done

    def _enter_next_ball(self, state: APGDL1State) -> None:
        for stage, begin in enumerate(self.begins[1:], start=1):
            due = state.steps_done == begin
            if not due.any():
                continue
            ball = torch.where(due, _STAGES[stage][0] * state.radius, state.ball)
            inside = within(state.best, state.clean, "l1", ball)
            count = _changed(inside, state.clean)
            state.current = torch.where(per_image(due, inside), inside, state.current)
            state.best = torch.where(per_image(due, inside), inside, state.best)
            state.ball, state.stepsize = ball, torch.where(due, ball, state.stepsize)
            state.share = torch.where(due, count / inside[0].numel() / _SPARSER, state.share)
            state.changed = torch.where(due, count, state.changed)
            state.best_loss = state.best_loss.masked_fill(due, -torch.inf)
            state.steps_since = state.steps_since.masked_fill(due, 0)

    def _checkpoint(self, state: APGDL1State, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Where due, judge how sparse the best image has become; returns where to step from, and gradients."""
        begins = torch.tensor(self.begins, device=state.item.device)
        stage = (state.steps_done[:, None] >= begins).sum(dim=1) - 1
        windows = torch.tensor([max(int(0.04 * length), 1) for length in self.lengths], device=state.item.device)
        due = state.steps_since >= windows[stage]
        if not due.any():
            return state.current, gradient
        count = _changed(state.best, state.clean)
        sparser = due & (count / state.changed.clamp_min(1) < 0.95)
        shorter = (state.stepsize / _SPARSER).maximum(_LEAST_STEP * state.ball)
        state.stepsize = torch.where(sparser, state.ball, torch.where(due, shorter, state.stepsize))
        state.share = torch.where(due, count / state.clean[0].numel() / _SPARSER, state.share)
        state.changed = torch.where(due, count, state.changed)
        state.steps_since = state.steps_since.masked_fill(due, 0)
        back = per_image(sparser, state.current)
        return torch.where(back, state.best, state.current), torch.where(back, state.best_gradient, gradient)

    def _move(self, state: APGDL1State, here: Tensor, gradient: Tensor) -> Tensor:
        size = gradient.flatten(1).abs().nan_to_num(0)
        # At least one coordinate, as many as the share says.
        count = (state.share * size.shape[1]).ceil().long().clamp(1, size.shape[1])
        threshold = size.sort(dim=1, descending=True).values.gather(1, count[:, None] - 1)
        signs = (gradient.nan_to_num(0).flatten(1).sign() * (size >= threshold)).view_as(gradient)
        length = state.stepsize / signs.flatten(1).abs().sum(dim=1).clamp_min(1)
        return within(here + per_image(length, signs) * signs, state.clean, "l1", state.ball)


def _changed(images: Tensor, clean: Tensor) -> Tensor:
    """How many values of each image (M, C, H, W) differ from the original's (M,)."""
    return (images != clean).flatten(1).sum(dim=1).to(clean.dtype)
