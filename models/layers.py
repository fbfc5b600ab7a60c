"""Small layers that several networks share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from ..registry import GauntletError

Activation = Literal["relu", "gelu", "quick-gelu"]


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), the cheap form of GELU (Hendrycks & Gimpel 2016, arXiv 1606.08415)."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to every element."""
        return x * torch.sigmoid(1.702 * x)


def activation_layer(name: Activation) -> nn.Module:
    """The activation called ``name``; ``gelu`` is the exact form."""
    return {"relu": nn.ReLU, "gelu": nn.GELU, "quick-gelu": QuickGELU}[name]()


class Normalize(nn.Module):
    """(x - mean) / std per channel: models take images in [0, 1] and normalise inside.

    Args:
        mean: One value a channel (or one for all).
        std: Likewise, positive.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        # Not in the state dict: they are part of the architecture, not of what training finds.
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise images (N, C, H, W)."""
        return (x - self.mean) / self.std


def conv_block(before: int, after: int, stride: int = 1) -> list[nn.Module]:
    """3x3 convolution without bias, batch-norm, ReLU."""
    return [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]


def start_as_he(module: nn.Module) -> None:
    """Convolutions as He et al. 2015 (arXiv 1502.01852), for ReLUs, by their outputs."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")


def scaled(channels: Sequence[int], width: float, name: str = "A network") -> list[int]:
    """Channel counts times ``width``, at least one each.

    >>> scaled((32, 64), 0.5)
    [16, 32]

    Raises:
        GauntletError: The width is not positive; the message names the network.
    """
    if not 0 < width < float("inf"):
        raise GauntletError(f"{name} needs a positive width, got {width}.")
    return [max(1, round(width * count)) for count in channels]


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Every part of a module in eval mode meanwhile, and in its own mode again afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
