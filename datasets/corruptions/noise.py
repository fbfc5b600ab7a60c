"""Noise of Hendrycks and Dietterich's benchmark: normal, of photons, of dead pixels, and in proportion."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from ...registry import corruption
from ..per_image_rng import PerImageRNG
from .strength import strength

_PAPER = "Hendrycks, Dietterich 2019, arXiv 1903.12261"
_LEVELS = 256


@corruption("gaussian-noise", reference=_PAPER, tags=("common", "noise"))
def gaussian_noise(images: Tensor, severity: int, draws: PerImageRNG, *, scale: str = "auto") -> Tensor:
    """Normal noise in every channel of every pixel: dim light."""
    deviation = strength(severity, images, scale, (0.04, 0.06, 0.08, 0.09, 0.10), (0.08, 0.12, 0.18, 0.26, 0.38))
    return images + deviation * draws.normal(images.shape[1:], purpose="gaussian-noise")


@corruption("shot-noise", reference=_PAPER, tags=("common", "noise"))
def shot_noise(images: Tensor, severity: int, draws: PerImageRNG, *, scale: str = "auto") -> Tensor:
    """Poisson noise of as many photons as a white pixel sends; images are taken with 256 levels."""
    photons = strength(severity, images, scale, (500, 250, 100, 75, 50), (60, 25, 12, 5, 3))
    table = _poisson(photons).to(images.device)
    level = (images * (_LEVELS - 1)).round().long()
    drawn = draws.uniform(images.shape[1:], purpose="shot-noise").double()
    # One sorted row after the other: the place of level + u in all of them is that of u in its own.
    counts = torch.searchsorted(table.flatten(), (level + drawn).contiguous(), right=True) - level * table.shape[1]
    return (counts / photons).to(images.dtype)


@corruption("impulse-noise", reference=_PAPER, tags=("common", "noise"))
def impulse_noise(images: Tensor, severity: int, draws: PerImageRNG, *, scale: str = "auto") -> Tensor:
    """Salt and pepper, as many of each, in single channels: bit errors."""
    amount = strength(severity, images, scale, (0.01, 0.02, 0.03, 0.05, 0.07), (0.03, 0.06, 0.09, 0.17, 0.27))
    drawn = draws.uniform(images.shape[1:], purpose="impulse-noise")
    return images.masked_fill(drawn < amount, 1.0).masked_fill(drawn < amount / 2, 0.0)


@corruption("speckle-noise", reference=_PAPER, tags=("extra", "noise"))
def speckle_noise(images: Tensor, severity: int, draws: PerImageRNG, *, scale: str = "auto") -> Tensor:
    """Normal noise in proportion to the pixel."""
    deviation = strength(severity, images, scale, (0.06, 0.1, 0.12, 0.16, 0.2), (0.15, 0.2, 0.35, 0.45, 0.6))
    return images * (1 + deviation * draws.normal(images.shape[1:], purpose="speckle-noise"))


@functools.lru_cache(maxsize=16)
def _poisson(photons: int) -> Tensor:
    """Row l: l plus the distribution function at 0, 1, ... of a Poisson variable with mean ``photons l / 255``."""
    most = math.ceil(photons + 8 * math.sqrt(photons) + 12)
    means = torch.linspace(0, photons, _LEVELS, dtype=torch.float64)[:, None]
    counts = torch.arange(1, most + 1, dtype=torch.float64)
    below = torch.special.gammaincc(counts.expand(_LEVELS, -1), means.expand(-1, most))
    return below.clamp(max=1 - 2**-30) + torch.arange(_LEVELS)[:, None]
