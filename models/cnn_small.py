"""`cnn-small`: the small MNIST network of report R2."""

from __future__ import annotations

from torch import Tensor, nn

from ..registry import model
from .layers import Activation, Normalize, activation_layer


@model(
    "cnn-small", shape=(1, 28, 28), tags=("mnist", "r2"), reference="Hendrycks, Mazeika, Dietterich 2018, 1812.04606"
)
class CNNSmall(nn.Module):
    """Two convolutions and two linear layers for 28x28 grey images; 21,840 parameters with ten classes.

    Args:
        classes: Number of classes.
        activation: ``relu``, ``gelu`` (exact) or ``quick-gelu``.
        dropout: Probability for both dropout layers.
    """

    def __init__(self, *, classes: int = 10, activation: Activation = "relu", dropout: float = 0.5) -> None:
        super().__init__()
        self.body = nn.Sequential(
            Normalize((0.1307,), (0.3081,)),
            nn.Conv2d(1, 10, 5),
            nn.MaxPool2d(2),
            activation_layer(activation),
            nn.Conv2d(10, 20, 5),
            nn.Dropout2d(dropout),
            nn.MaxPool2d(2),
            activation_layer(activation),
            nn.Flatten(),
            nn.Linear(320, 50),
            activation_layer(activation),
            nn.Dropout(dropout),
        )
        self.fc = nn.Linear(50, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 1, 28, 28) in [0, 1] to logits (N, classes)."""
        return self.fc(self.body(x))
