"""What goes through the network in one step, and the cross entropy that takes hard and soft targets."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """One step's images.

    Attributes:
        images: (N, C, H, W) float32 in [0, 1], channels last.
        targets: Classes (N,) int64, class probabilities (N, K), or the images (N, C, H, W) to reconstruct.
        indices: (N,) int64 position of each image in the training set; random streams of attacks are derived from it.
        outliers: (M, C, H, W) images of no class that share the forward pass, or None.
    """

    images: Tensor
    targets: Tensor
    indices: Tensor
    outliers: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)


def as_images(pixels: Tensor) -> Tensor:
    """Bytes or floats to float32 in [0, 1], channels last: on a CPU convolutions then run about twice as fast."""
    images = pixels.float().div_(255) if pixels.dtype == torch.uint8 else pixels
    return images.to(memory_format=torch.channels_last)


def probabilities(targets: Tensor, classes: int) -> Tensor:
    """Targets of either kind as class probabilities (N, classes)."""
    return targets if targets.is_floating_point() else F.one_hot(targets, classes).float()


def hard(targets: Tensor) -> Tensor:
    """Targets of either kind as classes (N,): the most probable one."""
    return targets.argmax(1) if targets.is_floating_point() else targets
