"""`simclr`: an encoder with a projection head, to be trained without labels."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ..registry import GauntletError, model
from .layers import Normalize, conv_block
from .resnets import resnet

#: Images from this side on keep torchvision's max-pool after the stem.
_LARGE = 64


@model(
    "simclr",
    outputs=("embedding", "features", "projection"),
    recipe="simclr",
    tags=("self-supervised", "r4"),
    versions=("torchvision",),
    reference="Chen, Kornblith, Norouzi, Hinton 2020, arXiv 2002.05709",
)
class SimCLR(nn.Module):
    """An encoder h = f(x) and a head z = g(h) that only the contrastive loss sees; the embedding is h.

    The trunk of a ResNet-18 has 11,168,832 parameters (3x3 stem, colour images, h in R^512) and its head 328,320; the
    tiny one has four convolution blocks (h in R^64) and serves a CPU.

    Args:
        shape: (C, H, W) of the images. The max-pool after the stem is kept from a side of 64 on.
        trunk: ``resnet18`` or ``tiny``.
        stem: First convolution of the ResNet: ``3x3`` with stride 1 or ``7x7`` with stride 2.
        embedding: What the embedding is: the ``encoder``'s h, or z = g(h), the ``projection``.
        projection: Dimensions of z.
        head_norm: Batch-norm after the first layer of the head, as in the code of Chen et al.

    Raises:
        GauntletError: The projection has no dimension.
    """

    def __init__(
        self,
        *,
        shape: tuple[int, int, int] = (3, 96, 96),
        trunk: Literal["resnet18", "tiny"] = "resnet18",
        stem: Literal["3x3", "7x7"] = "3x3",
        embedding: Literal["encoder", "projection"] = "encoder",
        projection: int = 128,
        head_norm: bool = False,
    ) -> None:
        super().__init__()
        if projection < 2:
            raise GauntletError(f"model 'simclr' needs a projection of at least 2 dimensions, got {projection}.")
        channels, height, width = shape
        self.normalize = Normalize((0.5,), (0.25,))
        self.trunk = _resnet18(channels, stem, min(height, width)) if trunk == "resnet18" else _tiny(channels)
        size = 512 if trunk == "resnet18" else 64
        norm = [nn.BatchNorm1d(size)] if head_norm else []
        self.head = nn.Sequential(nn.Linear(size, size), *norm, nn.ReLU(), nn.Linear(size, projection))
        self.embedding = embedding

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] to embeddings (N, D)."""
        features = self.trunk(self.normalize(x))
        return features if self.embedding == "encoder" else self.head(features)

    def forward_outputs(self, x: Tensor) -> dict[str, Tensor]:
        """``features`` h (N, D), ``projection`` z (N, P), and ``embedding``, which is one of them."""
        features = self.trunk(self.normalize(x))
        projection = self.head(features)
        embedding = features if self.embedding == "encoder" else projection
        return {"embedding": embedding, "features": features, "projection": projection}


def _resnet18(channels: int, stem: str, side: int) -> nn.Module:
    network = resnet("resnet18", channels, kernel=3 if stem == "3x3" else 7, pooled=side >= _LARGE)
    network.fc = nn.Identity()
    return network


def _tiny(channels: int) -> nn.Module:
    blocks = [*conv_block(channels, 16), *conv_block(16, 32, 2), *conv_block(32, 64, 2), *conv_block(64, 64, 2)]
    return nn.Sequential(*blocks, _GlobalMean())


class _GlobalMean(nn.Module):
    """Mean over rows and columns."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, D, H, W) to (N, D)."""
        return torch.flatten(x.mean((2, 3)), 1)
