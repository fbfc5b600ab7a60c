"""Steps of gradient attacks in each norm: the steepest direction, the move inside the ball, the random start."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..datasets.per_image_rng import PerImageRNG
from .l1 import l1_step, project_l1, uniform_in_l1
from .norms import add_l1, lengths, per_image, project

#: Epsilons that an iterative attack walks by default, at least: twice from side to side of the ball.
PATH = 4.0


def ascend(current: Tensor, clean: Tensor, gradient: Tensor, norm: str, *, stepsize: Tensor, radius: Tensor) -> Tensor:
    """One step up the gradient, projected onto the ball around ``clean`` and clipped to [0, 1].

    Args:
        current: Images (N, C, H, W).
        clean: Centres of the balls, same shape.
        gradient: Gradient of the loss at ``current``.
        norm: ``linf``, ``l2`` or ``l1`` (a sparse step).
        stepsize: Length of the step (N,).
        radius: Radius of the balls (N,).
    """
    if norm == "l1":
        return l1_step(current, clean, gradient, stepsize, radius)
    moved = current + per_image(stepsize, current) * steepest_direction(gradient, norm)
    return within(moved, clean, norm, radius)


def within(images: Tensor, clean: Tensor, norm: str, radius: Tensor) -> Tensor:
    """Images (N, C, H, W) projected onto the ball of ``radius`` (N,) around ``clean`` and clipped to [0, 1]."""
    if norm == "l1":
        return add_l1(clean, project_l1(images - clean, clean, radius), radius)
    return (clean + project(images - clean, norm, radius)).clamp_(0, 1)


def displaced(clean: Tensor, offset: Tensor, norm: str, radius: Tensor) -> Tensor:
    """Images moved by perturbations of at most the given size (N,), clipped to [0, 1]."""
    return add_l1(clean, offset, radius) if norm == "l1" else (clean + offset).clamp_(0, 1)


def steepest_direction(gradient: Tensor, norm: str) -> Tensor:
    """Direction of unit size in which the loss grows fastest, from its gradient (N, C, H, W).

    It is zero where the gradient is zero or not a number.

    >>> steepest_direction(torch.tensor([[0.0, -2.0]]), "linf")
    tensor([[ 0., -1.]])
    """
    if norm == "linf":
        return gradient.sign()  # the sign of NaN is 0
    size = lengths(gradient)
    return (gradient * per_image(1 / size, gradient)).nan_to_num_(0)


def random_offset(norm: str, rng: PerImageRNG, shape: torch.Size, *, restart: int = 0) -> Tensor:
    """Perturbations (N, *shape), uniform in the unit ball of the norm."""
    if norm == "linf":
        return rng.uniform(shape, purpose="start", restart=restart) * 2 - 1
    if norm == "l1":
        return uniform_in_l1(rng, shape, restart)
    direction = rng.normal(shape, purpose="start direction", restart=restart)
    direction /= per_image(lengths(direction), direction)
    distance = rng.uniform((), purpose="start distance", restart=restart) ** (1 / math.prod(shape))
    return direction * per_image(distance, direction)
