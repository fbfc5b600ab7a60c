"""`residual-small`: a thin residual network for small images, the classifier of report R3."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from ..registry import GauntletError, model
from .layers import Normalize, conv_block, scaled, start_as_he


class _Block(nn.Module):
    """Two 3x3 convolutions around a shortcut, which is a projection where size or channels change."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        last = [nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after)]
        self.body = nn.Sequential(*conv_block(before, after, stride), *last)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        """Channels ``before`` to ``after``."""
        return (self.body(x) + self.shortcut(x)).relu()


@model(
    "residual-small",
    outputs=("logits",),
    tags=("small-images", "r3"),
    reference="He, Zhang, Ren, Sun 2015, arXiv 1512.03385",
)
class ResidualSmall(nn.Module):
    """Three stages of basic blocks with 16, 32 and 64 channels; 77,754 parameters for ten classes of grey images.

    Report R3 says "Residual Net-based" and no more: depth and widths are ours. Three blocks a stage are a ResNet-20.

    Args:
        classes: Number of classes.
        channels: Channels of the images.
        blocks: Blocks in each stage.
        width: Factor on the channels.

    Raises:
        GauntletError: A stage has no block.
    """

    def __init__(self, *, classes: int = 10, channels: int = 1, blocks: int = 1, width: float = 1.0) -> None:
        super().__init__()
        if blocks < 1:
            raise GauntletError(f"residual-small needs at least one block a stage, got blocks={blocks}.")
        widths = scaled((16, 16, 32, 64), width, "residual-small")
        stages: list[nn.Module] = []
        for stage, (before, after) in enumerate(pairwise(widths)):
            stages.append(_Block(before, after, 2 if stage else 1))
            stages += [_Block(after, after, 1) for _ in range(blocks - 1)]
        self.normalize = Normalize((0.5,), (0.5,))
        self.body = nn.Sequential(*conv_block(channels, widths[0]), *stages)
        self.fc = nn.Linear(widths[-1], classes)
        start_as_he(self)

    def features(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] to the means of the last maps (N, 64 * width)."""
        return torch.flatten(self.body(self.normalize(x)).mean((2, 3)), 1)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] to logits (N, classes)."""
        return self.fc(self.features(x))
