"""The L1 ball: sparse steps, the projection onto its intersection with the box, and uniform draws from it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..datasets.per_image_rng import PerImageRNG
from .norms import add_l1, per_image


def project_l1(offset: Tensor, clean: Tensor, radius: Tensor) -> Tensor:
    """The nearest perturbation in the L1 ball that keeps ``clean`` plus it in [0, 1].

    Croce, Hein 2021, arXiv 2103.01208: the Euclidean projection onto the intersection, which is not the projection
    onto one and then the other. Each entry is ``min(max(|u| - t, 0), room)`` with one threshold t for an image, found
    exactly by sorting the points where the L1 norm, as a function of t, bends.

    Args:
        offset: Perturbations u (N, C, H, W).
        clean: Images in [0, 1], same shape.
        radius: Largest L1 norm (N,).
    """
    size = offset.flatten(1).abs().double()
    room = torch.where(offset > 0, 1 - clean, clean).flatten(1).double()
    radius = radius.double()
    # Most perturbations of a step fit already; sorting is for those that do not.
    threshold = torch.zeros_like(radius)
    long = size.minimum(room).sum(dim=1) > radius
    if long.any():
        threshold[long] = _threshold(size[long], room[long], radius[long])
    kept = (size - threshold[:, None]).clamp_min(0).minimum(room)
    return (kept.to(offset.dtype).view_as(offset)) * offset.sign()


def _threshold(size: Tensor, room: Tensor, radius: Tensor) -> Tensor:
    """The t (N,) at which the sum of ``min(max(size - t, 0), room)`` (N, D) is the radius."""
    # As t falls, an entry begins to grow at `size` and is full at `size - room`.
    bends = torch.cat([size, (size - room).clamp_min(0)], dim=1)
    slopes = torch.cat([torch.ones_like(size), -torch.ones_like(size)], dim=1)
    bends, order = bends.sort(dim=1, descending=True)
    slopes = slopes.gather(1, order).cumsum(dim=1)
    grown = torch.cat([torch.zeros_like(radius)[:, None], (slopes[:, :-1] * -bends.diff(dim=1)).cumsum(dim=1)], dim=1)
    last = (grown <= radius[:, None]).sum(dim=1, keepdim=True) - 1  # the last bend at which the sum is not too large
    rest = radius - grown.gather(1, last).squeeze(1)
    return (bends.gather(1, last).squeeze(1) - rest / slopes.gather(1, last).squeeze(1).clamp_min(1)).clamp_min(0)


def sparse_direction(gradient: Tensor, current: Tensor, share: float = 0.01) -> Tensor:
    """Signs of the largest entries of gradients (N, C, H, W), of L1 norm 1 (SLIDE: Tramèr, Boneh, arXiv 1904.13000).

    Entries that would leave [0, 1] do not compete.
    """
    stuck = ((current <= 0) & (gradient < 0)) | ((current >= 1) & (gradient > 0))
    size = gradient.abs().nan_to_num(0).masked_fill(stuck, 0).flatten(1)
    count = max(round(share * size.shape[1]), 1)
    top = size.topk(count, dim=1)
    chosen = torch.zeros_like(size).scatter(1, top.indices, (top.values > 0).to(size.dtype))
    return (chosen / chosen.sum(dim=1, keepdim=True).clamp_min(1)).view_as(gradient) * gradient.sign()


def uniform_in_l1(rng: PerImageRNG, shape: torch.Size, restart: int = 0) -> Tensor:
    """Perturbations (N, *shape), uniform in the unit L1 ball: signed exponentials over their sum and one more."""
    count = math.prod(shape)
    waits = -torch.log1p(-rng.uniform((count + 1,), purpose="start sizes", restart=restart))
    signs = (rng.uniform((count,), purpose="start signs", restart=restart) < 0.5).float() * 2 - 1
    inside = signs * waits[:, :count] / waits.sum(dim=1, keepdim=True)
    return inside.view(-1, *shape)


def l1_step(current: Tensor, clean: Tensor, gradient: Tensor, stepsize: Tensor, radius: Tensor) -> Tensor:
    """A sparse step of L1 length ``stepsize`` (N,) up the gradient, projected onto ball and box."""
    moved = current + per_image(stepsize, current) * sparse_direction(gradient, current)
    return add_l1(clean, project_l1(moved - clean, clean, radius), radius)
