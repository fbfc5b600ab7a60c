"""`pixels` and `pca`: the baselines that a learnt embedding has to beat."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..registry import model


@model("pixels", outputs=("embedding",), trained=True, tags=("baseline",), reference="Coates, Lee, Ng 2011, AISTATS")
class Pixels(nn.Module):
    """The pixels of an image are its embedding."""

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to embeddings (N, C * H * W)."""
        return torch.flatten(x, 1)

    def forward_outputs(self, x: Tensor) -> dict[str, Tensor]:
        """The ``embedding``."""
        return {"embedding": self(x)}


@model("pca", outputs=("embedding",), recipe="pca", tags=("baseline",), reference="Pearson 1901")
class PCA(nn.Module):
    """The pixels projected to their first principal components, which the recipe `pca` finds.

    Args:
        components: How many.
        shape: (C, H, W) of the images.
    """

    mean: Tensor
    axes: Tensor

    def __init__(self, *, components: int = 64, shape: tuple[int, int, int] = (1, 28, 28)) -> None:
        super().__init__()
        size = shape[0] * shape[1] * shape[2]
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("axes", torch.eye(min(components, size), size))

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to embeddings (N, components)."""
        return (torch.flatten(x, 1) - self.mean) @ self.axes.T

    def forward_outputs(self, x: Tensor) -> dict[str, Tensor]:
        """The ``embedding``."""
        return {"embedding": self(x)}
