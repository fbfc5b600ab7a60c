"""What goes through the network in one step, its targets in either form, and how a split is judged."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...datasets import ImageSet


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
    """Targets of either kind as class probabilities (N, classes).

    >>> probabilities(torch.tensor([1, 0]), 2).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    return targets if targets.is_floating_point() else F.one_hot(targets, classes).float()


def hard(targets: Tensor) -> Tensor:
    """Targets of either kind as classes (N,): the most probable one."""
    return targets.argmax(1) if targets.is_floating_point() else targets


@torch.no_grad()
def evaluate(module: nn.Module, images: ImageSet, device: torch.device, batch_size: int = 1024) -> tuple[float, float]:
    """Mean cross entropy and accuracy in eval mode; (nan, nan) on an empty set."""
    if len(images) == 0:
        return math.nan, math.nan
    module.eval()
    loss, right = 0.0, 0
    for x, y, _ in images.batches(batch_size):
        logits = module(as_images(x.to(device)))
        y = y.to(device)
        loss += float(F.cross_entropy(logits, y, reduction="sum"))
        right += int((logits.argmax(1) == y).sum())
    return loss / len(images), right / len(images)
