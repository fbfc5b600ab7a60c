"""Generator and discriminator of a small DCGAN (Radford, Metz, Chintala 2015, arXiv 1511.06434)."""

from __future__ import annotations

from torch import Tensor, nn

from ..registry import GauntletError
from .layers import scaled

#: Sides of the images that the networks are made for.
SIDES = (28, 32)


class Discriminator(nn.Module):
    """Images in [-1, 1] to one logit each; 138,625 parameters for 28x28 grey images.

    Args:
        shape: (C, H, W) of the images.
        width: Factor on 64 and 128 channels.
    """

    def __init__(self, shape: tuple[int, int, int], width: float = 1.0) -> None:
        super().__init__()
        channels, side = shape[0], checked_side(shape)
        first, second = scaled((64, 128), width, "a discriminator")
        self.body = nn.Sequential(
            nn.Conv2d(channels, first, 4, 2, 1, bias=False),
            nn.LeakyReLU(0.2),
            nn.Conv2d(first, second, 4, 2, 1, bias=False),
            nn.BatchNorm2d(second),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
        )
        self.fc = nn.Linear(second * (side // 4) ** 2, 1)
        start_as_dcgan(self)

    def features(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to what the last layer sees (N, 6272 at full width and 28x28)."""
        return self.body(x)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) in [-1, 1] to logits (N,)."""
        return self.fc(self.features(x)).squeeze(1)


class Generator(nn.Module):
    """Standard normal vectors (N, latent) to images in [-1, 1]; 1,781,504 parameters for 28x28 grey images.

    No layer has a bias: report R3 takes that from Ryu et al. as a cure for mode collapse.

    Args:
        shape: (C, H, W) of the images.
        latent: Length of the vectors.
        width: Factor on 256 and 128 channels.

    Raises:
        GauntletError: The latent has no dimension.
    """

    def __init__(self, shape: tuple[int, int, int], latent: int = 100, width: float = 1.0) -> None:
        super().__init__()
        if latent < 1:
            raise GauntletError(f"A generator needs a latent of at least 1, got {latent}.")
        side = checked_side(shape)
        first, second = scaled((256, 128), width, "a generator")
        self.shape, self.latent = tuple(shape), latent
        self.body = nn.Sequential(
            nn.ConvTranspose2d(latent, first, side // 4, bias=False),
            nn.BatchNorm2d(first),
            nn.ReLU(),
            nn.ConvTranspose2d(first, second, 4, 2, 1, bias=False),
            nn.BatchNorm2d(second),
            nn.ReLU(),
            nn.ConvTranspose2d(second, shape[0], 4, 2, 1, bias=False),
            nn.Tanh(),
        )
        start_as_dcgan(self)

    def forward(self, z: Tensor) -> Tensor:
        """Vectors (N, latent) to images (N, C, H, W) in [-1, 1]."""
        return self.body(z[:, :, None, None])


def checked_side(shape: tuple[int, int, int]) -> int:
    """The side of square images that the networks are made for.

    Raises:
        GauntletError: They are of another size.
    """
    _, height, width = shape
    if height != width or height not in SIDES:
        known = " or ".join(f"{side}x{side}" for side in SIDES)
        raise GauntletError(
            f"The generator makes {known} images and these are {height}x{width}: "
            "give the dataset `shape: [1, 28, 28]`, or choose another."
        )
    return height


def start_as_dcgan(module: nn.Module) -> None:
    """Convolutions N(0, 0.02), batch-norm weights N(1, 0.02) and no offset."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(layer.weight, 0.0, 0.02)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, 0.02)
            nn.init.zeros_(layer.bias)
