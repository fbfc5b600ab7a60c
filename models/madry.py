"""`madry`: the MNIST network of Madry et al. 2017, the reference for adversarial training."""

from __future__ import annotations

from torch import Tensor, nn

from ..registry import model
from .layers import scaled


@model("madry", shape=(1, 28, 28), tags=("mnist",), reference="Madry et al. 2017, arXiv 1706.06083")
class Madry(nn.Module):
    """Two wide convolutions and two linear layers for 28x28 grey images; 3,274,634 parameters with ten classes.

    Args:
        classes: Number of classes.
        width: Factor on all channel counts and on the hidden layer.
    """

    def __init__(self, *, classes: int = 10, width: float = 1.0) -> None:
        super().__init__()
        first, second, hidden = scaled((32, 64, 1024), width, "madry")
        self.body = nn.Sequential(
            nn.Conv2d(1, first, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(first, second, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(second * 49, hidden),
            nn.ReLU(),
        )
        self.fc = nn.Linear(hidden, classes)
        for layer in self.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)) and layer.bias is not None:
                nn.init.trunc_normal_(layer.weight, std=0.1, a=-0.2, b=0.2)
                layer.bias.data.fill_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 1, 28, 28) in [0, 1] to logits (N, classes)."""
        return self.fc(self.body(x))
