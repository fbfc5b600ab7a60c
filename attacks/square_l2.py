"""The windows of Square in L2: bumps that take their length from elsewhere in the perturbation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..datasets.per_image_rng import PerImageRNG
from .square_patches import coordinates_from, random_corners, random_signs, square_masks


def initial_tiles(rng: PerImageRNG, shape: torch.Size, restart: int) -> Tensor:
    """Perturbations (N, C, H, W) to start from: a grid of five by five bumps of random sign."""
    channels, height, width = shape
    side = max(min(height, width) // 5, 1)
    down, along = height // side, width // side
    where = torch.zeros(1, 2, dtype=torch.int64, device=rng.indices.device)
    upright = torch.zeros(1, dtype=torch.bool, device=where.device)
    bump = bumps(where, where[:, 0] + side, upright, side, side)[0, 0]
    sign = random_signs(rng.uniform((channels, down, along), purpose="tiles", restart=restart))
    spread = sign.repeat_interleave(side, dim=2).repeat_interleave(side, dim=3) * bump.repeat(down, along)
    return F.pad(spread, (0, width - along * side, 0, height - down * side))


def move_windows(
    offset: Tensor, radius: Tensor, side: Tensor, rng: PerImageRNG, step: Tensor, restart: int, order: int = 2
) -> Tensor:
    """One proposal (Andriushchenko et al. 2020, arXiv 1912.00049, algorithm 3).

    The perturbation in one window is erased; its length, with what the ball still leaves, goes into another window,
    where a bump of random sign is added.

    Args:
        offset: Perturbations (M, C, H, W).
        radius: Their largest norm (M,).
        side: Sides of the windows (M,).
        rng: Of the images.
        step: Queries taken (M,).
        restart: Number of the search.
        order: 2, or 1 for lengths in L1.
    """
    channels, height, width = offset.shape[1:]
    numbers = rng.uniform((5 + channels,), purpose="windows", step=step, restart=restart)
    to, off = (random_corners(numbers[:, pair], side, height, width) for pair in (slice(0, 2), slice(2, 4)))
    here, there = square_masks(to, side, height, width), square_masks(off, side, height, width)
    sign = random_signs(numbers[:, 5:])[:, :, None, None]
    direction = sign * bumps(to, side, numbers[:, 4] < 0.5, height, width) + _unit(offset * here, order)
    spent = offset.abs() ** order
    unused = (radius**order - spent.sum(dim=(1, 2, 3))).clamp_min(0)[:, None, None, None] / channels
    freed = (spent * (here | there)).sum(dim=(2, 3), keepdim=True)
    filled = _unit(direction * here, order) * (freed + unused) ** (1 / order)
    return torch.where(here, filled, offset.masked_fill(there, 0))


def bumps(corner: Tensor, side: Tensor, lying: Tensor, height: int, width: int) -> Tensor:
    """Two bumps of opposite sign, one above the other or (``lying``) side by side, in windows (M, 1, H, W).

    Each is a pyramid: at distance d from its centre (in the larger of the two directions) it is the sum of
    ``1 / (k + 1)^2`` over k from d to half the side.
    """
    down, along = coordinates_from(corner, height, width)
    lying, size = lying[:, None, None], side[:, None, None]
    first, second = torch.where(lying, along, down), torch.where(lying, down, along)
    half = size // 2
    upper = first < half
    centre = torch.where(upper, half // 2, half + (size - half) // 2)
    distance = torch.maximum((first - centre).abs(), (second - half).abs()).minimum(half + 1)
    terms = 1 / torch.arange(1, max(height, width) + 2, device=side.device) ** 2
    sums = F.pad(terms.cumsum(0), (1, 0))
    inside = square_masks(corner, side, height, width)[:, 0]
    value = (sums[half + 1] - sums[distance]) * inside
    return (_unit(value * upper) - _unit(value * ~upper))[:, None] / 2**0.5


def _unit(values: Tensor, order: int = 2) -> Tensor:
    """Each (..., H, W) divided by its length."""
    return values / torch.linalg.vector_norm(values, ord=order, dim=(-2, -1), keepdim=True).clamp_min(1e-12)
