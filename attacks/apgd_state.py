"""What the climbs of Auto-PGD remember."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .budget import BudgetSearch


@dataclass
class APGDState(BudgetSearch):
    """State of Auto-PGD.

    Attributes:
        target: Class aimed at (M,); only for targeted losses.
        previous: Image before this one (M, C, H, W).
        best: Image of the highest loss so far (M, C, H, W).
        best_gradient: Gradient there (M, C, H, W).
        best_loss: Loss there (M,).
        previous_loss: Loss one step ago (M,).
        checkpoint_loss: Highest loss when the last checkpoint was reached (M,).
        halved: Whether the step was halved there (M,).
        stepsize: Length of the step (M,).
        increases: Steps since the checkpoint that raised the loss (M,).
        steps_since: Steps since the checkpoint (M,).
        window: Steps between the last checkpoint and the next (M,).
    """

    target: Tensor
    previous: Tensor
    best: Tensor
    best_gradient: Tensor
    best_loss: Tensor
    previous_loss: Tensor
    checkpoint_loss: Tensor
    halved: Tensor
    stepsize: Tensor
    increases: Tensor
    steps_since: Tensor
    window: Tensor
