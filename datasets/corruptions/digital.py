"""Digital corruptions of Hendrycks and Dietterich's benchmark: light, contrast, colour, blocks, bending."""

from __future__ import annotations

import functools
import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...registry import GauntletError, corruption
from ..per_image_rng import PerImageRNG
from .filters import gaussian, sampled, separable
from .strength import strength

_PAPER = "Hendrycks, Dietterich 2019, arXiv 1903.12261"


@corruption("brightness", reference=_PAPER, tags=("common", "weather"))
def brightness(images: Tensor, severity: int, *, scale: str = "auto") -> Tensor:
    """Brighter: a constant added to the value in HSV, hue and saturation as they were."""
    added = strength(severity, images, scale, (0.05, 0.1, 0.15, 0.2, 0.3), (0.1, 0.2, 0.3, 0.4, 0.5))
    value = images.amax(dim=1, keepdim=True)
    brighter = (value + added).clamp(max=1)
    return torch.where(value > 0, images * (brighter / value.clamp(min=1e-12)), brighter)


@corruption("contrast", reference=_PAPER, tags=("common", "digital"))
def contrast(images: Tensor, severity: int, *, scale: str = "auto") -> Tensor:
    """Less contrast: every channel nearer to its mean."""
    kept = strength(severity, images, scale, (0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05))
    means = images.mean(dim=(2, 3), keepdim=True)
    return (images - means) * kept + means


@corruption("saturate", reference=_PAPER, tags=("extra", "digital"), channels=3)
def saturate(images: Tensor, severity: int, *, scale: str = "auto") -> Tensor:
    """Duller or more vivid: the saturation in HSV scaled and shifted, hue and value as they were."""
    small = ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2))
    large = ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2))
    factor, added = strength(severity, images, scale, small, large)
    value = images.amax(dim=1, keepdim=True)
    apart = value - images
    widest = apart.amax(dim=1, keepdim=True)
    saturation = torch.where(value > 0, widest / value.clamp(min=1e-12), torch.zeros_like(value))
    wanted = (saturation * factor + added).clamp(0, 1)
    red = torch.tensor((0.0, 1.0, 1.0), device=images.device)[:, None, None]  # the hue that HSV gives to greys
    direction = torch.where(widest > 0, apart / widest.clamp(min=1e-12), red.expand_as(images))
    return value - direction * wanted * value


@corruption("pixelate", reference=_PAPER, tags=("common", "digital"))
def pixelate(images: Tensor, severity: int, *, scale: str = "auto") -> Tensor:
    """Shrunk and enlarged again with box filters."""
    share = strength(severity, images, scale, (0.95, 0.9, 0.85, 0.75, 0.65), (0.6, 0.5, 0.4, 0.3, 0.25))
    height, width = images.shape[2:]
    shrink, enlarge = [], []
    for size in (height, width):
        less = max(int(size * share), 1)
        shrink.append(box_matrix(size, less))
        enlarge.append(box_matrix(less, size))
    small = (separable(images, *shrink) * 255).round() / 255
    return separable(small, *enlarge)


@corruption("jpeg-compression", reference=_PAPER, tags=("common", "digital"))
def jpeg_compression(images: Tensor, severity: int, *, scale: str = "auto") -> Tensor:
    """Compressed as JPEG with quarter-resolution colour, image by image.

    Raises:
        GauntletError: The images have neither one nor three channels.
    """
    if images.shape[1] not in (1, 3):
        raise GauntletError(f"Corruption 'jpeg-compression' needs images of 1 or 3 channels, got {images.shape[1]}.")
    quality = strength(severity, images, scale, (80, 65, 58, 50, 40), (25, 18, 15, 10, 7))
    pixels = (images * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    coded = np.stack([_through_jpeg(image, quality) for image in pixels])
    return torch.from_numpy(coded).permute(0, 3, 1, 2).to(images.device).float() / 255


@corruption("elastic-transform", reference=_PAPER, tags=("common", "digital"))
def elastic_transform(images: Tensor, severity: int, draws: PerImageRNG, *, scale: str = "auto") -> Tensor:
    """Bent: three points of the image are moved at random, then every pixel along a smooth random field."""
    small = ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03))
    large = ((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02))
    force, smoothness, moved = strength(severity, images, scale, small, large)
    height, width = images.shape[2:]
    size = min(height, width)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    grid = torch.stack([columns, rows]).to(images)  # x, y
    bent = sampled(images, *_affine(grid, draws, moved * size, height, width), border="mirror-101")
    if not force:
        return bent
    field = 2 * draws.uniform((2, height, width), purpose="elastic-transform field") - 1
    right, down = (force * size * gaussian(field, smoothness * size, truncate=3, mirror=True)).unbind(1)
    return sampled(bent, grid[1] + down, grid[0] + right, border="mirror")


def _affine(grid: Tensor, draws: PerImageRNG, most: float, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Rows and columns (N, H, W) that each pixel is taken from where three points have moved by up to ``most``."""
    centre, side = torch.tensor([height // 2, width // 2]), min(height, width) // 3
    corners = centre + side * torch.tensor([[1, 1], [1, -1], [-1, -1]])
    before = corners.to(grid).expand(len(draws), 3, 2)
    after = before + most * (2 * draws.uniform((3, 2), purpose="elastic-transform points") - 1)
    known = torch.cat([after, torch.ones_like(after[..., :1])], dim=2).double()
    back = torch.linalg.solve(known, before.double())  # (N, 3, 2): from where a pixel is to where it was
    points = torch.cat([grid, torch.ones_like(grid[:1])]).flatten(1).T.double()
    columns, rows = (points @ back).view(len(draws), height, width, 2).float().unbind(3)
    return rows, columns


def _through_jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    """Pixels (H, W, C) in 256 levels, written and read."""
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)).reshape(pixels.shape)


@functools.lru_cache(maxsize=64)
def box_matrix(size: int, wanted: int) -> Tensor:
    """A line of pixels resized by PIL's box filter as a matrix (wanted, size)."""
    factor = size / wanted
    reach = max(factor, 1.0) / 2
    matrix = np.zeros((wanted, size))
    for row in range(wanted):
        middle = (row + 0.5) * factor
        first, end = max(int(middle - reach + 0.5), 0), min(int(middle + reach + 0.5), size)
        offsets = (np.arange(first, end) - middle + 0.5) / max(factor, 1.0)
        matrix[row, first:end] = (offsets > -0.5) & (offsets <= 0.5)
    return torch.from_numpy(matrix / matrix.sum(axis=1, keepdims=True)).float()
