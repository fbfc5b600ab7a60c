"""Augmentations: registered functions on whole batches, on the device that the images are on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ...datasets.corruptions.shift import rotated, warp
from ...registry import AUGMENTATIONS, GauntletError, augmentation, select_one
from .batch import Batch, probabilities
from .hooks import Hook, TrainingState

#: From a batch, draws and the number of classes to the augmented batch.
Augmentation = Callable[[Batch, Generator, int], Batch]


class Augment(Hook):
    """Augments every batch, anew in every epoch."""

    def __init__(self, augmentations: Sequence[Augmentation]) -> None:
        self.augmentations = list(augmentations)

    def transform(self, loop: TrainingState, batch: Batch) -> Batch:
        """Apply them in order."""
        for one in self.augmentations:
            batch = one(batch, loop.rng, len(loop.train.classes))
        return batch


def read_augmentations(specs: Sequence[Any]) -> list[Augmentation]:
    """From ``[flip, {crop: {padding: 4}}]`` to functions.

    Raises:
        GauntletError: A name or parameter is unknown.
    """
    return [_bound(spec) for spec in ([specs] if isinstance(specs, str) else specs)]


def _bound(spec: Any) -> Augmentation:
    chosen = select_one(AUGMENTATIONS, spec)

    def apply(batch: Batch, rng: Generator, classes: int) -> Batch:
        given = {"images": batch.images, "batch": batch, "rng": rng, "classes": classes}
        made = chosen.entry.factory(*(given[need] for need in chosen.entry.needs), **chosen.parameters)
        return made if isinstance(made, Batch) else replace(batch, images=made)

    return apply


@augmentation("rotation")
def rotation(images: Tensor, rng: Generator, *, degrees: float = 20.0) -> Tensor:
    """Rotate each image by an angle uniform in [-degrees, degrees], bilinear, black outside."""
    angle = uniform(len(images), rng, -math.radians(degrees), math.radians(degrees))
    return rotated(images, angle)


@augmentation("translation")
def translation(images: Tensor, rng: Generator, *, share: float = 0.2) -> Tensor:
    """Move each image by up to ``share`` of its sides in both directions, bilinear, black outside."""
    across, down = (uniform(len(images), rng, -2 * share, 2 * share) for _ in range(2))
    one, zero = torch.ones_like(across), torch.zeros_like(across)
    return warp(images, (one, zero, across), (zero, one, down))


@augmentation("crop")
def crop(images: Tensor, rng: Generator, *, padding: int = 4) -> Tensor:
    """Pad with black and take a random window of the old size."""
    count, _, height, width = images.shape
    padded = F.pad(images, (padding,) * 4)
    top, left = (torch.randint(2 * padding + 1, (count, 1), generator=rng, device=images.device) for _ in range(2))
    rows = top + torch.arange(height, device=images.device)
    columns = left + torch.arange(width, device=images.device)
    which = torch.arange(count, device=images.device)[:, None, None]
    windows = padded.permute(0, 2, 3, 1)[which, rows[:, :, None], columns[:, None, :]]
    return windows.permute(0, 3, 1, 2)


@augmentation("flip")
def flip(images: Tensor, rng: Generator, *, p: float = 0.5) -> Tensor:
    """Mirror each image left to right with probability ``p``."""
    return torch.where(_each(uniform(len(images), rng) < p), images.flip(3), images)


@augmentation("noise")
def noise(images: Tensor, rng: Generator, *, low: float = 0.1, high: float = 0.3, p: float = 1.0) -> Tensor:
    """Add, with probability ``p``, normal noise whose standard deviation is uniform in [low, high] by image; clip."""
    sigma = uniform(len(images), rng, low, high)
    if p < 1:
        sigma = sigma * (uniform(len(images), rng) < p)
    draws = torch.randn(images.shape, generator=rng, device=images.device)
    return (images + _each(sigma) * draws).clamp_(0, 1)


@augmentation("mixup", reference="Zhang, Cisse, Dauphin, Lopez-Paz 2017, arXiv 1710.09412")
def mixup(batch: Batch, rng: Generator, classes: int, *, alpha: float = 1.0) -> Batch:
    """Blend every image with another by one weight from Beta(alpha, alpha); targets likewise."""
    weight = float(betas(alpha, alpha, 1, rng))
    partner = torch.randperm(len(batch), generator=rng, device=rng.device)
    targets = probabilities(batch.targets, classes)
    images = batch.images.lerp(batch.images[partner], 1 - weight)
    return replace(batch, images=images, targets=targets.lerp(targets[partner], 1 - weight))


@augmentation("cutmix", reference="Yun, Han, Oh et al. 2019, arXiv 1905.04899")
def cutmix(batch: Batch, rng: Generator, classes: int, *, alpha: float = 1.0, p: float = 0.5) -> Batch:
    """With probability ``p``, paste a box of another image into every image; targets by the area that is kept."""
    weight, draw = float(betas(alpha, alpha, 1, rng)), float(torch.rand((), generator=rng, device=rng.device))
    partner = torch.randperm(len(batch), generator=rng, device=rng.device)
    height, width = batch.images.shape[2:]
    centre = torch.rand(2, generator=rng, device=rng.device).tolist()
    if draw >= p:
        return batch
    top, bottom = _side(centre[0], height, weight)
    left, right = _side(centre[1], width, weight)
    images = batch.images.clone()
    images[:, :, top:bottom, left:right] = batch.images[partner][:, :, top:bottom, left:right]
    pasted = (bottom - top) * (right - left) / (height * width)
    targets = probabilities(batch.targets, classes)
    return replace(batch, images=images, targets=targets.lerp(targets[partner], pasted))


def _side(centre: float, length: int, weight: float) -> tuple[int, int]:
    """Where a box of side sqrt(1 - weight) of ``length`` begins and ends, clipped at the border."""
    half, middle = int(length * math.sqrt(1 - weight)) / 2, int(centre * length)
    return max(0, round(middle - half)), min(length, round(middle + half))


def betas(a: float, b: float, count: int, rng: Generator) -> Tensor:
    """Draws (count,) from Beta(a, b), each by the quotient of two Gamma draws.

    Raises:
        GauntletError: a or b is not positive.
    """
    if not (a > 0 and b > 0):
        raise GauntletError(f"A Beta distribution needs positive parameters, got {a} and {b}.")
    shape = torch.tensor([[a], [b]], dtype=torch.float64, device=rng.device).expand(2, count).contiguous()
    x, y = torch._standard_gamma(shape, generator=rng)
    return (x / (x + y).clamp(min=1e-300)).float()


def uniform(count: int, rng: Generator, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Draws (count,), uniform in [low, high), on the generator's device."""
    return low + (high - low) * torch.rand(count, generator=rng, device=rng.device)


def _each(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
