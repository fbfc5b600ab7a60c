"""What corruptions share: blurs and zooms as matrix products, sampling between pixels, streaks and plasma clouds.

Images are float32 (N, C, H, W); a blur of rows and columns is ``rows @ images @ columns.T`` with two small matrices,
which is exact at the borders and faster than a convolution at the sizes of test images.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor

from ..per_image_rng import PerImageRNG

#: Numbers of the clouds that are made together, so that they stay in the cache.
_CLOUDS = 2**19


def separable(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """``rows`` (H', H) and ``columns`` (W', W) applied to images (..., H, W)."""
    return rows.to(images) @ images @ columns.to(images).T


def gaussian(images: Tensor, sigma: float, *, truncate: float = 4.0, mirror: bool = False) -> Tensor:
    """A Gaussian blur of images (..., H, W) as scipy's ``gaussian_filter`` computes it.

    Args:
        images: To blur.
        sigma: Standard deviation in pixels; 0 changes nothing.
        truncate: Deviations at which the kernel ends.
        mirror: Continue images by their mirror image (half-sample symmetric) instead of their border.
    """
    rows, columns = (gaussian_matrix(size, sigma, truncate, mirror=mirror) for size in images.shape[-2:])
    return separable(images, rows, columns)


@functools.lru_cache(maxsize=64)
def gaussian_matrix(size: int, sigma: float, truncate: float = 4.0, *, mirror: bool = False) -> Tensor:
    """The blur of a line of pixels as a matrix (size, size)."""
    radius = int(truncate * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2) if radius else np.ones(1)
    weights /= weights.sum()
    places = np.arange(size)[:, None] + offsets
    if mirror:
        around = places % (2 * size)
        places = np.minimum(around, 2 * size - 1 - around)
    matrix = np.zeros((size, size))
    np.add.at(matrix, (np.arange(size)[:, None], places.clip(0, size - 1)), weights)
    return torch.from_numpy(matrix).float()


@functools.lru_cache(maxsize=256)
def zoom_matrix(size: int, factor: float) -> Tensor:
    """The middle of a line of pixels, enlarged by ``factor`` and cut to its size again, as a matrix (size, size).

    As scipy's ``zoom`` of order 1: the end pixels of the part that is enlarged stay end pixels.
    """
    part = math.ceil(size / factor)
    first = (size - part) // 2
    enlarged = round(part * factor)
    places = np.linspace(0, part - 1, enlarged)
    below = np.minimum(places.astype(int), max(part - 2, 0))
    matrix = np.zeros((enlarged, size))
    matrix[np.arange(enlarged), first + below] += 1 - (places - below)
    matrix[np.arange(enlarged), first + np.minimum(below + 1, part - 1)] += places - below
    trimmed = (enlarged - size) // 2
    return torch.from_numpy(matrix[trimmed : trimmed + size]).float()


def sampled(images: Tensor, rows: Tensor, columns: Tensor, border: str) -> Tensor:
    """Images (N, C, H, W) at points between their pixels, bilinear.

    Args:
        images: To sample.
        rows: Shape (N, H', W'), in pixels from the centre of the first one.
        columns: The same.
        border: ``zero`` outside, ``mirror`` (half-sample symmetric), or ``mirror-101`` (the border pixel is not
            repeated).
    """
    top, left = rows.floor(), columns.floor()
    down, right = rows - top, columns - left
    corners = [
        (top, left, (1 - down) * (1 - right)),
        (top, left + 1, (1 - down) * right),
        (top + 1, left, down * (1 - right)),
        (top + 1, left + 1, down * right),
    ]
    return sum(_at(images, row, column, border) * weight[:, None] for row, column, weight in corners)  # type: ignore[return-value]


def _at(images: Tensor, rows: Tensor, columns: Tensor, border: str) -> Tensor:
    height, width = images.shape[2:]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    places = _folded(rows.long(), height, border) * width + _folded(columns.long(), width, border)
    found = gathered(images, places)
    return found * inside[:, None] if border == "zero" else found


def _folded(places: Tensor, size: int, border: str) -> Tensor:
    if border == "zero" or size == 1:
        return places.clamp(0, size - 1)
    repeats = 0 if border == "mirror-101" else 1
    period = 2 * size - 2 + 2 * repeats
    around = places.remainder(period)
    return torch.minimum(around, period - repeats - around).clamp(0, size - 1)


def gathered(images: Tensor, places: Tensor) -> Tensor:
    """Pixels of images (N, C, H, W) at flat ``places`` (N, H', W'), shape (N, C, H', W')."""
    flat = places.flatten(1)[:, None].expand(-1, images.shape[1], -1)
    return images.flatten(2).gather(2, flat).view(*images.shape[:2], *places.shape[1:])


def streaked(images: Tensor, radius: int, sigma: float, degrees: Tensor) -> Tensor:
    """A blur along a line, as ImageMagick's motion blur: half a Gaussian, each image (N,) in its own direction.

    Args:
        images: Shape (N, C, H, W); beyond the border they continue as the border.
        radius: Half-width that sets how many steps the line has, ``2 radius + 1``.
        sigma: Standard deviation in steps.
        degrees: Direction of each image, shape (N,).
    """
    steps = [step for step in range(2 * radius + 1) if step <= 5 * sigma]  # further ones are below half a grey level
    weights = [math.exp(-0.5 * (step / sigma) ** 2) for step in steps]
    angle = degrees.double() * (math.pi / 180)
    height, width = images.shape[2:]
    row = torch.arange(height, device=images.device)[None, :, None]
    column = torch.arange(width, device=images.device)[None, None, :]
    total = torch.zeros_like(images)
    for step, weight in zip(steps, weights, strict=True):
        right, down = (
            (step * part - 0.5).ceil().long()[:, None, None].to(images.device) for part in (angle.cos(), angle.sin())
        )
        places = (row + down).clamp(0, height - 1) * width + (column + right).clamp(0, width - 1)
        total += (weight / sum(weights)) * gathered(images, places)
    return total


def plasma(draws: PerImageRNG, size: int, decay: float, purpose: str) -> Tensor:
    """Clouds (N, size, size) from 0 to 1 on a torus: diamond-square (Fournier, Fussell, Carpenter 1982).

    Args:
        draws: One stream for each image.
        size: A power of two.
        decay: By how much the random displacement shrinks when the step is halved.
        purpose: Names the draws.
    """
    together = max(_CLOUDS // size**2, 1)
    parts = [draws.select(slice(start, start + together)) for start in range(0, len(draws), together)]
    return torch.cat([_clouds(part, size, decay, purpose) for part in parts])


def _clouds(draws: PerImageRNG, size: int, decay: float, purpose: str) -> Tensor:
    device = draws.indices.device
    noise = 2 * _stream(draws, size * size, purpose).to(device) - 1
    clouds = torch.zeros(len(draws), size, size, device=device)
    step, wibble, used = size, 100.0, 0

    def displaced(sides: Tensor) -> Tensor:
        nonlocal used
        own = noise[:, used : used + sides[0].numel()].view_as(sides)
        used += sides[0].numel()
        return sides / 4 + wibble**2 * own

    while step >= 2:
        half = step // 2
        corners = clouds[:, ::step, ::step]
        across = corners + corners.roll(-1, 1)
        centres = displaced(across + across.roll(-1, 2))
        clouds[:, half::step, half::step] = centres
        clouds[:, ::step, half::step] = displaced(centres + centres.roll(1, 1) + corners + corners.roll(-1, 2))
        clouds[:, half::step, ::step] = displaced(centres + centres.roll(1, 2) + corners + corners.roll(-1, 1))
        step, wibble = half, wibble / decay
    low, high = clouds.amin((1, 2), keepdim=True), clouds.amax((1, 2), keepdim=True)
    return (clouds - low) / (high - low)


def _stream(draws: PerImageRNG, count: int, purpose: str) -> Tensor:
    """``count`` uniform numbers an image (N, count), where they are too many for :class:`PerImageRNG` to be quick."""
    keys = (draws.uniform((2,), purpose=purpose) * 2**24).long().tolist()
    rows = [np.random.Generator(np.random.Philox(key=key)).random(count, dtype=np.float32) for key in keys]
    return torch.from_numpy(np.stack(rows))
