"""`cnn` and `cnn-plus`: the CIFAR-10 networks of report R1."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ..registry import model
from .layers import Normalize, conv_block, scaled

#: As report R1 has them; the deviations are the mean of each image's own.
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


@model("cnn", shape=(3, 32, 32), tags=("cifar", "r1"), reference="LeCun, Bottou, Bengio, Haffner 1998 (LeNet-5)")
class CNN(nn.Module):
    """Two convolutions and three linear layers for 32x32 colour images; 62,006 parameters with ten classes.

    Args:
        classes: Number of classes.
    """

    def __init__(self, *, classes: int = 10) -> None:
        super().__init__()
        self.body = nn.Sequential(
            Normalize(MEAN, STD),
            nn.Conv2d(3, 6, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(400, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
        )
        self.fc = nn.Linear(84, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 3, 32, 32) in [0, 1] to logits (N, classes)."""
        return self.fc(self.body(x))


class Staged(nn.Module):
    """Three stages of two 3x3 convolutions with batch-norm, each pooled by two, then two linear layers.

    Args:
        widths: Channels of the stages.
        hidden: Features of the layer before the last.
        classes: Number of classes.
        stage_dropout: After each stage.
        dropout: Before the last layer.
        mean: For the normalisation inside.
        std: Likewise.
    """

    def __init__(
        self,
        widths: Sequence[int],
        hidden: int,
        *,
        classes: int,
        stage_dropout: float,
        dropout: float,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [Normalize(mean, std)]
        for before, after in zip((3, *widths), widths, strict=False):
            layers += [*conv_block(before, after), *conv_block(after, after)]
            layers += [nn.MaxPool2d(2), nn.Dropout(stage_dropout)]
        layers += [nn.Flatten(), nn.Linear(widths[2] * 16, hidden), nn.ReLU(), nn.Dropout(dropout)]
        self.body = nn.Sequential(*layers)
        self.fc = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 3, 32, 32) in [0, 1] to logits (N, classes)."""
        return self.fc(self.body(x))


@model(
    "cnn-plus", shape=(3, 32, 32), tags=("cifar", "r1"), reference="Simonyan & Zisserman 2014, arXiv 1409.1556 (VGG)"
)
def cnn_plus(*, classes: int = 10, width: float = 1.0) -> Staged:
    """Six convolutions in three stages for 32x32 colour images; 2,197,706 parameters with ten classes."""
    return Staged(
        scaled((64, 128, 256), width), scaled((256,), width)[0],
        classes=classes, stage_dropout=0.1, dropout=0.3, mean=MEAN, std=STD,
    )  # fmt: skip


@model("svhn-cnn", shape=(3, 32, 32), tags=("svhn", "r4"), reference="Simonyan & Zisserman 2014, arXiv 1409.1556 (VGG)")
def svhn_cnn(*, classes: int = 10, width: float = 1.0) -> Staged:
    """Six convolutions in three stages for house numbers; 814,570 parameters with ten classes."""
    return Staged(
        scaled((32, 64, 128), width), scaled((256,), width)[0],
        classes=classes, stage_dropout=0.25, dropout=0.5, mean=(0.4377, 0.4438, 0.4728), std=(0.198, 0.201, 0.197),
    )  # fmt: skip
