"""`autoencoder`: the convolutional autoencoder of report R1."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ..registry import GauntletError, model
from .cifar import MEAN, STD
from .layers import Normalize, scaled

#: Channels to the mean and deviation that normalised targets are made with: MNIST's, and R1's for CIFAR-10.
_STATISTICS = {1: ((0.1307,), (0.3081,)), 3: (MEAN, STD)}
_WIDTHS = (12, 24, 48)


def reconstruction_errors(images: Tensor, reconstruction: Tensor) -> Tensor:
    """Mean squared error of each image (N,), over channels and pixels."""
    return (images - reconstruction).square().flatten(1).mean(dim=1)


@model(
    "autoencoder",
    outputs=("reconstruction", "reconstruction_error", "embedding"),
    recipe="autoencoder",
    tags=("cifar", "r1", "reconstruction"),
    reference="Hinton, Salakhutdinov 2006, doi:10.1126/science.1127647",
)
class Autoencoder(nn.Module):
    """Three strided convolutions and their transposes; 47,355 parameters for three channels.

    Kernels of 4x4, stride 2, padding 1, with 12, 24 and 48 channels: an image of 32x32 becomes a code of 48x4x4.
    A convolution halves the height and width, rounding down; its transpose gets the one row or column of output
    padding that an odd size needs, so that any size from 8x8 on comes back as it was (28, 14, 7, 3, then 7, 14, 28).

    Args:
        channels: Of the images.
        width: Factor on the channels of all layers.
        normalized_target: As report R1: images are normalised by mean and deviation, the last layer is linear, and
            training compares it with the normalised images. By default images are in [0, 1] and so is the output, of a
            sigmoid, which could not reach normalised pixels.

    Raises:
        GauntletError: Normalised targets are wanted of images with neither one nor three channels.
    """

    def __init__(self, *, channels: int = 3, width: float = 1.0, normalized_target: bool = False) -> None:
        super().__init__()
        if normalized_target and channels not in _STATISTICS:
            raise GauntletError(
                f"Model 'autoencoder' knows mean and deviation of images with one or three channels, got {channels}: "
                "leave normalized_target out."
            )
        mean, std = _STATISTICS[channels] if normalized_target else ((0.0,), (1.0,))
        self.normalized_target = normalized_target
        self.normalize = Normalize(mean, std)
        sizes = (channels, *scaled(_WIDTHS, width))
        pairs = list(pairwise(sizes))
        self.encoder = nn.ModuleList(nn.Conv2d(before, after, 4, 2, 1) for before, after in pairs)
        self.decoder = nn.ModuleList(nn.ConvTranspose2d(after, before, 4, 2, 1) for before, after in reversed(pairs))
        self._initialise()

    def _initialise(self) -> None:
        """As He et al. 2015, arXiv 1502.01852; a pixel of a transposed convolution sees 2x2 of the 4x4 kernel.

        From torch's smaller start the sigmoid saturates on images that are mostly black, and all come back black.
        """
        for layer in (*self.encoder, *self.decoder):
            inputs = layer.in_channels * (16 if isinstance(layer, nn.Conv2d) else 4)
            nn.init.normal_(layer.weight, std=(2 / inputs) ** 0.5)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] to their reconstructions, likewise."""
        return self._pixels(self._decode(*self._encode(x)))

    def forward_outputs(self, x: Tensor) -> dict[str, Tensor]:
        """The ``reconstruction`` (N, C, H, W), its error (N,) on pixels in [0, 1], and the code (N, D).

        The code is both the ``embedding`` and the ``features``.
        """
        code, sizes = self._encode(x)
        made = self._pixels(self._decode(code, sizes))
        flat = code.flatten(1)
        return {
            "reconstruction": made,
            "reconstruction_error": reconstruction_errors(x, made),
            "embedding": flat,
            "features": flat,
        }

    def losses(self, images: Tensor, targets: Tensor) -> Tensor:
        """What training drives down (N,): the squared error from the decoder's output to the (normalised) targets."""
        decoded = self._decode(*self._encode(images))
        return reconstruction_errors(self.normalize(targets), decoded if self.normalized_target else decoded.sigmoid())

    def _encode(self, x: Tensor) -> tuple[Tensor, list[Any]]:
        """The code, and the sizes that the decoder has to find back to, last one first."""
        x = self.normalize(x)
        sizes: list[Any] = []
        if min(x.shape[2:]) < 2 ** len(self.encoder):
            raise GauntletError(
                f"Model 'autoencoder' needs images of at least 8x8 pixels, got {x.shape[2]}x{x.shape[3]}."
            )
        for layer in self.encoder:
            sizes.insert(0, x.shape[2:])
            x = layer(x).relu()
        return x, sizes

    def _decode(self, x: Tensor, sizes: list[Any]) -> Tensor:
        """The last layer's output, before sigmoid or clamp."""
        for number, (layer, size) in enumerate(zip(self.decoder, sizes, strict=True)):
            x = layer(x.relu() if number else x, output_size=size)
        return x

    def _pixels(self, decoded: Tensor) -> Tensor:
        if not self.normalized_target:
            return torch.sigmoid(decoded)
        return (decoded * self.normalize.std + self.normalize.mean).clamp(0, 1)
