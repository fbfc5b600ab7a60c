"""Shifts of test images for models that were trained on unshifted ones: rotated, or noisy (report R2, section VI)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...registry import corruption
from ..per_image_rng import PerImageRNG

_DEGREES = 20.0
_SIGMA = (0.1, 0.3)


# The draws are numpy's, seeded by the index alone: those of the report's suites.
@corruption("shift/rotation", tags=("shift",), severities=(1,))
def rotation(images: Tensor, severity: int, draws: PerImageRNG) -> Tensor:
    """Each image turned by up to 20 degrees either way, bilinear, black outside."""
    turns = [np.random.RandomState([1, index]).uniform(-_DEGREES, _DEGREES) for index in draws.indices.tolist()]
    return rotated(images, torch.tensor(turns, dtype=torch.float32, device=images.device) * (math.pi / 180))


@corruption("shift/noise", tags=("shift",), severities=(1,))
def noise(images: Tensor, severity: int, draws: PerImageRNG) -> Tensor:
    """Normal noise whose standard deviation is uniform in [0.1, 0.3] for each image; clipped."""
    streams = (np.random.RandomState([2, index]) for index in draws.indices.tolist())
    made = [stream.uniform(*_SIGMA) * stream.randn(*images.shape[1:]) for stream in streams]
    noise = torch.from_numpy(np.asarray(made, dtype=np.float32).reshape(images.shape))
    return (images + noise.to(images.device)).clamp(0, 1)


def rotated(images: Tensor, angles: Tensor) -> Tensor:
    """Images (N, C, H, W) turned by angles (N,) in radians."""
    cos, sin, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    aspect = images.shape[2] / images.shape[3]  # grid coordinates span [-1, 1] whatever the sides are
    return warp(images, (cos, -sin * aspect, zero), (sin / aspect, cos, zero))


def warp(images: Tensor, *rows: Sequence[Tensor]) -> Tensor:
    """Images (N, C, H, W) seen through affine maps of grid coordinates; bilinear, black outside.

    Args:
        images: To look at.
        rows: Both rows of the maps, for x and for y, each three tensors (N,).
    """
    matrices = torch.stack([torch.stack(list(row), 1) for row in rows], 1)
    grid = F.affine_grid(matrices.to(images.dtype), list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)
    return moved.clamp_(0, 1).contiguous(memory_format=torch.channels_last)
