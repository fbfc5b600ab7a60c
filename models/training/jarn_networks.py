"""The networks beside the classifier in JARN: the adapter of its Jacobians, and the discriminator that judges them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...registry import GauntletError

#: Below this length a Jacobian counts as zero.
_FLOOR = 1e-12


def standardise(images: Tensor) -> Tensor:
    """Each image (N, C, H, W) less its mean over all entries, divided by its L2 norm; one without contrast is zero."""
    centred = images - images.mean((1, 2, 3), keepdim=True)
    return centred / torch.linalg.vector_norm(centred, dim=(1, 2, 3), keepdim=True).clamp_min(_FLOOR)


class Adapter(nn.Sequential):
    """A 1x1 convolution and tanh: Jacobians of ``channels`` channels to images; 12 parameters with three channels."""

    def __init__(self, channels: int) -> None:
        super().__init__(nn.Conv2d(channels, channels, 1), nn.Tanh())


class Discriminator(nn.Module):
    """Tells images from adapted Jacobians: up to five 4x4 convolutions with stride 2, then one logit (> 0: an image).

    Each block is a convolution, batch-norm and a leaky ReLU of slope 0.1; the channels double from ``width`` on. There
    are as many as halve the smaller side to one pixel, five at most: four for 28x28, five for 32x32, where a width of
    16 makes 698,833 parameters and 32 makes 2,790,305. Batch-norm takes the statistics of the batch at hand always, so
    that the network has no state beside its weights, and images and Jacobians go through in batches of their own.

    Args:
        shape: (C, H, W) of an image.
        width: Channels of the first block.

    Raises:
        GauntletError: The images are too small to be halved.
    """

    def __init__(self, shape: tuple[int, int, int], width: int = 16) -> None:
        super().__init__()
        before, height, side = shape
        if min(height, side) < 2:
            raise GauntletError(f"JARN's discriminator needs images of at least 2x2 pixels, got {height}x{side}.")
        layers: list[nn.Module] = []
        for block in range(5):
            if min(height, side) < 2:
                break
            after = width * 2**block
            layers += [nn.Conv2d(before, after, 4, stride=2, padding=1)]
            layers += [nn.BatchNorm2d(after, track_running_stats=False), nn.LeakyReLU(0.1)]
            before, height, side = after, height // 2, side // 2
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(before * height * side, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N,) of images or Jacobians (N, C, H, W), which are standardised here."""
        return self.body(standardise(images)).squeeze(1)
