"""`pixmix`: images mixed with fractal pictures (Hendrycks, Zou, Mazeika et al. 2021, arXiv 2112.05135).

The paper mixes in photographs of fractals; these are plasma fractals, noise with a 1/f spectrum, made on the device.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from ...datasets.corruptions.shift import warp
from ...registry import GauntletError, augmentation
from .augment import betas, uniform


@augmentation("pixmix", reference="Hendrycks, Zou, Mazeika et al. 2021, arXiv 2112.05135")
def pixmix(images: Tensor, rng: Generator, *, rounds: int = 4, severity: float = 3.0, strength: float = 3.0) -> Tensor:
    """Mix each image up to ``rounds`` times with a fractal or an augmented copy of itself, by sum or by product.

    The report that asks for it finds it unsuitable for digits; meant for colour photographs.

    Raises:
        GauntletError: ``severity`` is not in [0, 10], or ``strength`` not positive.
    """
    # Posterising has no grey levels left beyond 10.
    if not 0 <= severity <= 10:
        raise GauntletError(f"pixmix needs a severity from 0 to 10, got {severity}.")
    if not strength > 0:
        raise GauntletError(f"pixmix needs a strength above 0, got {strength}.")
    mixed = torch.where(_coin(images, rng), images, _augmented(images, severity, rng))
    count = _draw(images, rng).mul(rounds + 1).floor()
    for turn in range(rounds):
        other = torch.where(_coin(images, rng), plasma(images, rng), _augmented(images, severity, rng))
        summed = _sum(mixed, other, strength, rng)
        multiplied = _product(mixed, other, strength, rng)
        step = torch.where(_coin(images, rng), summed, multiplied).clamp(0, 1)
        mixed = torch.where(turn < count, step, mixed)
    return mixed.to(memory_format=torch.channels_last)


def plasma(images: Tensor, rng: Generator) -> Tensor:
    """Noise with amplitude 1/f in each channel, stretched to [0, 1], in the shape of ``images``."""
    height, width = images.shape[2:]
    spectrum = torch.fft.rfft2(torch.randn(images.shape, generator=rng, device=images.device))
    rows = torch.fft.fftfreq(height, device=images.device)[:, None]
    columns = torch.fft.rfftfreq(width, device=images.device)[None]
    frequency = (rows.square() + columns.square()).sqrt().clamp(min=1 / max(height, width))
    noise = torch.fft.irfft2(spectrum / frequency, s=(height, width))
    low, high = noise.amin((2, 3), keepdim=True), noise.amax((2, 3), keepdim=True)
    return (noise - low) / (high - low).clamp(min=1e-12)


def _augmented(images: Tensor, severity: float, rng: Generator) -> Tensor:
    """One of four: posterise, solarise, stretch the contrast, or rotate, shear and translate."""
    level = severity / 10
    bits = 2 ** (4 - round(level * 3))
    posterised = (images * (bits - 1)).round() / (bits - 1)
    solarised = torch.where(images > 1 - level, 1 - images, images)
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    stretched = (images - low) / (high - low).clamp(min=1e-3)
    choice = _draw(images, rng).mul(4).floor()
    chosen = torch.where(choice == 0, posterised, torch.where(choice == 1, solarised, stretched))
    return torch.where(choice == 3, _moved(images, level, rng), chosen)


def _moved(images: Tensor, level: float, rng: Generator) -> Tensor:
    """Rotation up to 30 degrees, shear up to 0.3 and translation up to a third, at full level."""
    draws = (2 * torch.rand(len(images), 4, generator=rng, device=images.device) - 1) * level
    angle, shear = draws[:, 0] * 0.5236, draws[:, 1] * 0.3
    across, down = draws[:, 2] * 2 / 3, draws[:, 3] * 2 / 3
    return warp(images, (angle.cos(), shear - angle.sin(), across), (angle.sin(), angle.cos(), down))


def _sum(image: Tensor, other: Tensor, strength: float, rng: Generator) -> Tensor:
    a, c = _weights(image, strength, rng)
    return (a * (2 * image - 1) + c * (2 * other - 1) + 1) / 2


def _product(image: Tensor, other: Tensor, strength: float, rng: Generator) -> Tensor:
    a, c = _weights(image, strength, rng)
    return (2 * image).clamp(min=1e-37) ** a * (2 * other).clamp(min=1e-37) ** c / 2


def _weights(image: Tensor, strength: float, rng: Generator) -> tuple[Tensor, Tensor]:
    """Weights (N, 1, 1, 1) of image and other picture, drawn apart: near 1 and 0, from inside or from outside."""
    pairs = ((strength, 1.0), (1.0, strength), (1.0, strength))
    near, beyond, far = (betas(*pair, len(image), rng).view(-1, 1, 1, 1) for pair in pairs)
    inside = _coin(image, rng)
    return torch.where(inside, near, 1 + beyond), torch.where(inside, far, -far)


def _draw(images: Tensor, rng: Generator) -> Tensor:
    return uniform(len(images), rng).view(-1, 1, 1, 1)


def _coin(images: Tensor, rng: Generator) -> Tensor:
    return _draw(images, rng) < 0.5
