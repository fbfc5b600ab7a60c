"""`resnet18`, `resnet34`, `resnet50`: torchvision's, with a 3x3 stem for small images; and `wrn-28-10`."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from ..registry import GauntletError, model
from .layers import Normalize, start_as_he

if TYPE_CHECKING:
    import torchvision

_REFERENCE = "He, Zhang, Ren, Sun 2015, arXiv 1512.03385"


class SmallImageResNet(nn.Module):
    """A ResNet of torchvision whose stem is one 3x3 convolution, for images of 32x32 and smaller.

    Args:
        name: torchvision's name.
        classes: Number of classes.
        channels: Channels of the images.
        mean: For the normalisation inside (one value for all channels).
        std: Likewise.
    """

    def __init__(self, name: str, *, classes: int, channels: int, mean: float = 0.5, std: float = 0.25) -> None:
        super().__init__()
        self.normalize = Normalize((mean,), (std,))
        self.network = resnet(name, channels, classes=classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] to logits (N, classes)."""
        return self.network(self.normalize(x))


def resnet(
    name: str, channels: int, *, classes: int = 1000, kernel: Literal[3, 7] = 3, pooled: bool = False
) -> torchvision.models.ResNet:
    """torchvision's ResNet of a ``name`` with another stem.

    Args:
        name: torchvision's name.
        channels: Of the images.
        classes: Outputs of the last layer.
        kernel: Side of the first convolution; that of 3 has stride 1, that of 7 stride 2.
        pooled: Whether the max-pool after it stays.
    """
    from torchvision import models

    network = models.get_model(name, weights=None, num_classes=classes)
    network.conv1 = nn.Conv2d(channels, 64, kernel, stride=1 if kernel == 3 else 2, padding=kernel // 2, bias=False)
    start_as_he(network.conv1)
    if not pooled:
        network.maxpool = nn.Identity()
    return network


def _register(name: str, summary: str) -> None:
    @model(name, summary=summary, tags=("small-images",), versions=("torchvision",), reference=_REFERENCE)
    def build(*, classes: int = 10, channels: int = 3) -> SmallImageResNet:
        return SmallImageResNet(name, classes=classes, channels=channels)


_register("resnet18", "Eight basic blocks; 11,173,962 parameters for ten classes of colour images.")
_register("resnet34", "Sixteen basic blocks.")
_register("resnet50", "Sixteen bottleneck blocks.")


class _Block(nn.Module):
    """Batch-norm and ReLU before each of two 3x3 convolutions, around a shortcut."""

    def __init__(self, before: int, after: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(before), nn.BatchNorm2d(after)
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.shortcut = None if before == after else nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Channels ``before`` to ``after``."""
        y = self.norm1(x).relu()
        shortcut = x if self.shortcut is None else self.shortcut(y)
        return shortcut + self.conv2(self.dropout(self.norm2(self.conv1(y)).relu()))


@model("wrn-28-10", tags=("small-images",), reference="Zagoruyko & Komodakis 2016, arXiv 1605.07146")
class WideResNet(nn.Module):
    """Wide residual network; 36,479,194 parameters for ten classes of colour images.

    Args:
        classes: Number of classes.
        channels: Channels of the images.
        depth: Layers, 6 n + 4.
        widen: Factor on 16, 32 and 64 channels.
        dropout: Inside the blocks.

    Raises:
        GauntletError: The depth is not 6 n + 4.
    """

    def __init__(
        self, *, classes: int = 10, channels: int = 3, depth: int = 28, widen: int = 10, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if depth < 10 or (depth - 4) % 6:
            raise GauntletError(f"wrn-28-10 needs a depth of 6 n + 4 (10, 16, 22, 28, ...), got {depth}.")
        widths = [16, *(width * widen for width in (16, 32, 64))]
        blocks: list[nn.Module] = []
        for stage, (before, after) in enumerate(pairwise(widths)):
            for number in range((depth - 4) // 6):
                first = number == 0
                blocks.append(_Block(before if first else after, after, 2 if first and stage else 1, dropout))
        self.normalize = Normalize((0.5,), (0.25,))
        self.stem = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(widths[-1])
        self.fc = nn.Linear(widths[-1], classes)
        start_as_he(self)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] to logits (N, classes)."""
        y = self.norm(self.blocks(self.stem(self.normalize(x)))).relu()
        return self.fc(torch.flatten(y.mean((2, 3)), 1))
