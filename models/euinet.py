"""`euinet`: report R3's classifier that has a discriminator beside it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..registry import model
from .gan import Discriminator, Generator
from .residual_small import ResidualSmall


@model(
    "euinet",
    outputs=("logits", "h"),
    recipe="euinet",
    tags=("small-images", "gan", "r3"),
    reference="Report R3; after Ryu, Koo, Yu, Lee 2018, EMNLP, D18-1077 (a GAN's discriminator for OOD)",
)
class EuiNet(nn.Module):
    """A residual classifier and a discriminator that share an objective, and the GAN that makes their fakes.

    Outputs are the logits of the known classes and ``h`` in (0, 1), which the model's discriminator wants to be 0 for
    real images and 1 for generated ones. The generator and its own discriminator only take part in training; they
    are kept so that its pictures can be looked at. 2,136,443 parameters for nine classes of 28x28 grey images, of
    which 216,314 (classifier 77,689 and discriminator 138,625) predict. Report R3 publishes no layer sizes: these are
    ours.

    Args:
        classes: Number of known classes.
        shape: (C, H, W) of the images: 28x28 or 32x32.
        blocks: Residual blocks in each stage of the classifier.
        width: Factor on the channels of all four networks.
        latent: Length of the generator's random vectors.
    """

    def __init__(
        self,
        *,
        classes: int = 9,
        shape: tuple[int, int, int] = (1, 28, 28),
        blocks: int = 1,
        width: float = 1.0,
        latent: int = 100,
    ) -> None:
        super().__init__()
        self.classifier = ResidualSmall(classes=classes, channels=shape[0], blocks=blocks, width=width)
        self.discriminator = Discriminator(shape, width)
        self.gan_discriminator = Discriminator(shape, width)
        self.generator = Generator(shape, latent, width)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] to logits (N, classes)."""
        return self.classifier(x)

    def forward_outputs(self, x: Tensor) -> dict[str, Tensor]:
        """``logits`` (N, classes), ``features`` (N, D) and ``h`` (N,)."""
        features = self.classifier.features(x)
        return {
            "logits": self.classifier.fc(features),
            "features": features,
            "h": self.discriminator(2 * x - 1).sigmoid(),
        }

    def head(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the classifier's last layer."""
        return self.classifier.fc.weight, self.classifier.fc.bias

    @torch.no_grad()
    def generate(self, n: int, generator: torch.Generator) -> Tensor:
        """Images (n, C, H, W) in [0, 1] of the generator, from draws of ``generator`` (on the CPU)."""
        z = torch.randn(n, self.generator.latent, generator=generator)
        weight = next(self.generator.parameters())
        return (self.generator(z.to(weight)) + 1) / 2
