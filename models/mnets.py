"""`m3`, `m5`, `m7`: the plain MNIST networks of An et al. 2020 (arXiv 2008.10400), one for each kernel size."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..registry import GauntletError, model
from .layers import Activation, activation_layer, scaled

_REFERENCE = "An, Lee, Park, Yang, So 2020, arXiv 2008.10400"
_CHANNELS = {
    3: (32, 48, 64, 80, 96, 112, 128, 144, 160, 176),
    5: (32, 64, 96, 128, 160),
    7: (48, 96, 144, 192),
}


class MNet(nn.Module):
    """Unpadded convolutions of one kernel size, each with batch-norm, then a linear layer with batch-norm.

    Args:
        kernel: Side of every convolution: 3, 5 or 7.
        classes: Number of classes.
        layers: Keep only the first so many convolutions (None: all).
        width: Factor on all channel counts.
        conv_bias: Whether the convolutions have a bias (the paper: no; report R2: yes).
        activation: ``relu`` (the paper) or ``gelu`` (most of R2).

    Raises:
        GauntletError: There are fewer layers than asked for, or the width is not positive.
    """

    def __init__(
        self,
        kernel: int,
        *,
        classes: int = 10,
        layers: int | None = None,
        width: float = 1.0,
        conv_bias: bool = False,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        depth = len(_CHANNELS[kernel])
        if layers is not None and not 1 <= layers <= depth:
            raise GauntletError(f"m{kernel} has 1 to {depth} layers, got layers={layers}.")
        channels = scaled(_CHANNELS[kernel][:layers], width, f"m{kernel}")
        blocks: list[nn.Module] = []
        for before, after in zip([1, *channels], channels, strict=False):
            blocks += [
                nn.Conv2d(before, after, kernel, bias=conv_bias),
                nn.BatchNorm2d(after),
                activation_layer(activation),
            ]
        side = 28 - len(channels) * (kernel - 1)
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(channels[-1] * side * side, classes, bias=False)
        self.logit_norm = nn.BatchNorm1d(classes)

    def features(self, x: Tensor) -> Tensor:
        """Images (N, 1, 28, 28) in [0, 1] to the flattened last feature map (N, D)."""
        return torch.flatten(self.blocks(2 * x - 1), 1)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 1, 28, 28) in [0, 1] to logits (N, classes)."""
        return self.logit_norm(self.fc(self.features(x)))

    def forward_outputs(self, x: Tensor) -> dict[str, Tensor]:
        """Logits and features of one pass."""
        features = self.features(x)
        return {"logits": self.logit_norm(self.fc(features)), "features": features}

    def head(self) -> tuple[Tensor, Tensor]:
        """Weight (classes, D) and bias (classes,) with the logits' batch-norm (in eval mode) folded in."""
        norm = self.logit_norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        return scale[:, None] * self.fc.weight, norm.bias - scale * norm.running_mean


def _register(kernel: int, summary: str) -> None:
    @model(f"m{kernel}", summary=summary, shape=(1, 28, 28), tags=("mnist", "r2"), reference=_REFERENCE)
    def build(
        *,
        classes: int = 10,
        layers: int | None = None,
        width: float = 1.0,
        conv_bias: bool = False,
        activation: Activation = "relu",
    ) -> MNet:
        return MNet(kernel, classes=classes, layers=layers, width=width, conv_bias=conv_bias, activation=activation)


_register(3, "Ten 3x3 convolutions; 1,124,180 parameters (1,125,220 with convolution bias).")
_register(5, "Five 5x5 convolutions; 1,128,180 parameters (1,128,660 with convolution bias).")
_register(7, "Four 7x7 convolutions; 2,291,972 parameters (2,292,452 with convolution bias).")
