"""A plug-in: `cnn-small` behind a rounding of its input, whose robustness against gradient attacks is an illusion.

gauntlet run tests/examples/honest-and-masked.yaml --plugin tests/examples/masked_cnn.py
"""

from __future__ import annotations

from torch import Tensor, nn

from gauntlet import model
from gauntlet.models.cnn_small import CNNSmall


@model("masked-cnn", shape=(1, 28, 28))
class MaskedCNN(nn.Module):
    """The small CNN, which sees 16 grey levels; rounding has a gradient of zero, so that gradient attacks are blind."""

    def __init__(self, *, classes: int = 10) -> None:
        super().__init__()
        self.inner = CNNSmall(classes=classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.inner((images * 15).round() / 15)
