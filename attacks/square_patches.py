"""Random windows on images, one for each row, of sizes that may differ."""

from __future__ import annotations

import torch
from torch import Tensor


def random_corners(numbers: Tensor, side: Tensor, height: int, width: int) -> Tensor:
    """Upper left corners (M, 2) of square windows, uniform over the places where they fit.

    Args:
        numbers: Uniform numbers in [0, 1) (M, 2).
        side: Their sides (M,).
        height: Of the images.
        width: Of the images.
    """
    room = torch.stack([height - side, width - side], dim=1) + 1
    return (numbers * room).long()


def square_masks(corner: Tensor, side: Tensor, height: int, width: int) -> Tensor:
    """Masks (M, 1, H, W) of windows."""
    down, along = coordinates_from(corner, height, width)
    side = side[:, None, None]
    return ((down >= 0) & (down < side) & (along >= 0) & (along < side))[:, None]


def coordinates_from(corner: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Row (M, H, 1) and column (M, 1, W) of each pixel, counted from its window's corner."""
    down = torch.arange(height, device=corner.device)[None] - corner[:, :1]
    along = torch.arange(width, device=corner.device)[None] - corner[:, 1:]
    return down[:, :, None], along[:, None, :]


def random_signs(numbers: Tensor) -> Tensor:
    """-1 or 1, from uniform numbers in [0, 1), of the same shape (...,)."""
    return torch.where(numbers < 0.5, -1.0, 1.0)
