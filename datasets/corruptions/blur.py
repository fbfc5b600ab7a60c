"""Blurs of Hendrycks and Dietterich's benchmark: out of focus, through glass, in motion, while zooming."""

from __future__ import annotations

import functools

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...registry import corruption
from ..per_image_rng import PerImageRNG
from .filters import gathered, gaussian, separable, streaked, zoom_matrix
from .strength import strength

_PAPER = "Hendrycks, Dietterich 2019, arXiv 1903.12261"


@corruption("gaussian-blur", reference=_PAPER, tags=("extra", "blur"))
def gaussian_blur(images: Tensor, severity: int, *, scale: str = "auto") -> Tensor:
    """Blurred by a Gaussian."""
    return gaussian(images, strength(severity, images, scale, (0.4, 0.6, 0.7, 0.8, 1), (1, 2, 3, 4, 6)))


@corruption("defocus-blur", reference=_PAPER, tags=("common", "blur"))
def defocus_blur(images: Tensor, severity: int, *, scale: str = "auto") -> Tensor:
    """Out of focus: averaged over a disk with a softened edge."""
    small = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))
    large = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))
    radius, softness = strength(severity, images, scale, small, large)
    kernel = _disk(radius, softness).to(images)
    reach = len(kernel) // 2
    height, width = images.shape[2:]
    rows, columns = (_mirrored(size, reach).to(images.device) for size in (height, width))
    padded = images[:, :, rows][:, :, :, columns].flatten(0, 1)[:, None]
    return F.conv2d(padded, kernel[None, None]).view_as(images)


@corruption("glass-blur", reference=_PAPER, tags=("common", "blur"))
def glass_blur(images: Tensor, severity: int, draws: PerImageRNG, *, scale: str = "auto") -> Tensor:
    """Through frosted glass: pixels swap places with near ones, from the last to the first, between two blurs.

    (The files of CIFAR-10-C copy the near pixel instead, because a swap of numpy views in colour images overwrites.)
    """
    small = ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2))
    large = ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))
    sigma, reach, rounds = strength(severity, images, scale, small, large)
    return gaussian(shuffled(gaussian(images, sigma), reach, rounds, draws), sigma)


@corruption("motion-blur", reference=_PAPER, tags=("common", "blur"))
def motion_blur(images: Tensor, severity: int, draws: PerImageRNG, *, scale: str = "auto") -> Tensor:
    """In motion: blurred along a line at up to 45 degrees."""
    small = ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))
    large = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))
    radius, sigma = strength(severity, images, scale, small, large)
    return streaked(images, radius, sigma, 90 * draws.uniform((), purpose="motion-blur") - 45)


@corruption("zoom-blur", reference=_PAPER, tags=("common", "blur"))
def zoom_blur(images: Tensor, severity: int, *, scale: str = "auto") -> Tensor:
    """While zooming in: the mean of the image and of enlarged ones."""
    small = ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01))
    large = ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))
    end, step = strength(severity, images, scale, small, large)
    height, width = images.shape[2:]
    factors = np.arange(1, end, step).tolist()
    total = images.clone()
    for factor in factors:
        total += separable(images, zoom_matrix(height, factor), zoom_matrix(width, factor))
    return total / (len(factors) + 1)


def shuffled(images: Tensor, reach: int, rounds: int, draws: PerImageRNG, chance: float = 1.0) -> Tensor:
    """Each pixel that is not too near to the border swaps places with one up to ``reach`` away, one after the other.

    Every swap is made with a ``chance`` of its own.
    """
    height, width = images.shape[2:]
    rows = torch.arange(height - reach, reach, -1)
    columns = torch.arange(width - reach, reach, -1)
    count = len(rows) * len(columns)
    if not count:
        return images
    pixels = (rows[:, None] * width + columns).flatten().tolist()
    places = torch.arange(height * width)[:, None].repeat(1, len(images)).numpy()
    every = np.arange(len(images))
    for turn in range(rounds):
        drawn = draws.uniform((count, 3), purpose="glass-blur", step=turn).cpu()
        down, right = ((drawn[..., :2] * 2 * reach).floor().long() - reach).mul(drawn[..., 2:] < chance).unbind(2)
        others = (torch.tensor(pixels) + down * width + right).T.numpy()
        for pixel, other in zip(pixels, others, strict=True):
            kept = places[pixel].copy()
            places[pixel] = places[other, every]
            places[other, every] = kept
    moved = torch.from_numpy(places.T.copy()).view(len(images), height, width)
    return gathered(images, moved.to(images.device))


@functools.lru_cache(maxsize=32)
def _disk(radius: float, softness: float) -> Tensor:
    """A disk with sum 1 whose edge is blurred by a kernel of three or, where large, five pixels."""
    reach = max(8, int(radius))
    line = np.arange(-reach, reach + 1)
    disk = ((line[:, None] ** 2 + line**2) <= radius**2).astype(float)
    disk /= disk.sum()
    soft = np.arange(-1, 2) if radius <= 8 else np.arange(-2, 3)
    weights = np.exp(-0.5 * (soft / softness) ** 2)
    weights /= weights.sum()
    places = _mirrored(len(line), len(soft) // 2).numpy()
    for _ in range(2):  # rows, then columns
        padded = disk[places]
        disk = sum(weight * padded[k : k + len(line)] for k, weight in enumerate(weights)).T
    used = np.flatnonzero(disk.max(axis=0) > 1e-9)
    part = slice(used[0], used[-1] + 1)
    return torch.from_numpy(disk[part, part] / disk.sum()).float()


def _mirrored(size: int, reach: int) -> Tensor:
    """Places of a line of pixels and of ``reach`` beyond each end; the border pixel is not repeated."""
    period = max(2 * size - 2, 1)
    around = torch.arange(-reach, size + reach) % period
    return torch.minimum(around, period - around).clamp(max=size - 1)
