"""Shifted test images, for models that were trained on unshifted ones: rotated, or noisy (report R2, section VI)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .imageset import ImageSet

_DEGREES = 20.0
_SIGMA = (0.1, 0.3)


def shifted(images: ImageSet, names: tuple[str, ...]) -> ImageSet:
    """The images after the shifts, in order. An image's draws depend on nothing but its index and the shift."""
    pixels = images.images
    for name in names:
        pixels = SHIFTS[name](pixels, images.indices.tolist())
    return replace(images, pixels=pixels.contiguous())


def _rotation(pixels: Tensor, indices: list[int]) -> Tensor:
    """Each image turned by up to 20 degrees either way, bilinear, black outside."""
    turns = [np.random.RandomState([1, index]).uniform(-_DEGREES, _DEGREES) for index in indices]
    angle = torch.tensor(turns, dtype=torch.float32) * (math.pi / 180)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    aspect = pixels.shape[2] / pixels.shape[3]
    rows = [torch.stack([cos, -sin * aspect, zero], 1), torch.stack([sin / aspect, cos, zero], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, align_corners=False).clamp(0, 1)


def _noise(pixels: Tensor, indices: list[int]) -> Tensor:
    """Normal noise whose standard deviation is uniform in [0.1, 0.3] for each image; clipped."""
    shape = pixels.shape[1:]
    draws = [rng.uniform(*_SIGMA) * rng.randn(*shape) for rng in (np.random.RandomState([2, i]) for i in indices)]
    return (pixels + torch.from_numpy(np.asarray(draws, dtype=np.float32).reshape(pixels.shape))).clamp(0, 1)


SHIFTS: dict[str, Callable[[Tensor, list[int]], Tensor]] = {"rotation": _rotation, "noise": _noise}
