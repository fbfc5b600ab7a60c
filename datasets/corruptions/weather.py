"""Weather of Hendrycks and Dietterich's benchmark: snow, frost and fog."""

from __future__ import annotations

import torch
from torch import Tensor

from ...registry import corruption
from ..per_image_rng import PerImageRNG
from .filters import plasma, separable, streaked, zoom_matrix
from .strength import is_large, strength

_PAPER = "Hendrycks, Dietterich 2019, arXiv 1903.12261"
#: Red, green and blue in the brightness of a pixel (ITU-R BT.601).
_LUMA = (0.299, 0.587, 0.114)


@corruption("fog", reference=_PAPER, tags=("common", "weather"))
def fog(images: Tensor, severity: int, draws: PerImageRNG, *, scale: str = "auto") -> Tensor:
    """Plasma clouds in front; the brightest pixel stays as bright."""
    small = ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))
    large = ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))
    amount, decay = strength(severity, images, scale, small, large)
    clouds = _clouds_over(images, draws, decay, "fog", least=256 if is_large(images, scale) else 2)
    brightest = images.amax((1, 2, 3), keepdim=True)
    return (images + amount * clouds) * brightest / (brightest + amount)


@corruption("frost", reference=_PAPER, tags=("common", "weather"), stand_in="photographs of frost on windows")
def frost(images: Tensor, severity: int, draws: PerImageRNG, *, scale: str = "auto") -> Tensor:
    """Ridges of ice in front of the image: a stand-in for the photographs of frost of the benchmark."""
    small = ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))
    large = ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))
    own, ice = strength(severity, images, scale, small, large)
    crystals = (1 - (2 * _clouds_over(images, draws, 1.6, "frost") - 1).abs()) ** 2
    tint = torch.tensor((0.85, 0.93, 1.0) if images.shape[1] == 3 else (0.92,), device=images.device)
    return own * images + ice * crystals * tint[:, None, None]


@corruption("snow", reference=_PAPER, tags=("common", "weather"))
def snow(images: Tensor, severity: int, draws: PerImageRNG, *, scale: str = "auto") -> Tensor:
    """Flakes that fall, driven by the wind, before a whitened image."""
    small = (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    )
    large = (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    )
    mean, deviation, zoom, least, radius, sigma, own = strength(severity, images, scale, small, large)
    height, width = images.shape[2:]
    drawn = mean + deviation * draws.normal((height, width), purpose="snow")
    flakes = separable(drawn, zoom_matrix(height, zoom), zoom_matrix(width, zoom))
    flakes = flakes.masked_fill(flakes < least, 0.0).clamp(0, 1)[:, None]
    wind = 90 * draws.uniform((), purpose="snow wind") - 135
    flakes = streaked(flakes, int(radius), sigma, wind)
    whitened = torch.maximum(images, brightness_of(images) * 1.5 + 0.5)
    return own * images + (1 - own) * whitened + flakes + flakes.flip((2, 3))


def _clouds_over(images: Tensor, draws: PerImageRNG, decay: float, purpose: str, least: int = 2) -> Tensor:
    """A corner (N, 1, H, W) of clouds whose side is the power of two, at least ``least``, that covers the images."""
    height, width = images.shape[2:]
    size = max(least, 1 << (max(height, width) - 1).bit_length())
    return plasma(draws, size, decay, purpose)[:, None, :height, :width]


def brightness_of(images: Tensor) -> Tensor:
    """One grey channel (N, 1, H, W)."""
    if images.shape[1] != 3:
        return images.mean(dim=1, keepdim=True)
    return (images * torch.tensor(_LUMA, device=images.device)[:, None, None]).sum(dim=1, keepdim=True)
