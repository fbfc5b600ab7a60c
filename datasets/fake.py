"""torchvision's FakeData."""

from __future__ import annotations

import string

import numpy as np

from ..registry import dataset
from .checks import Shape, check_draw, check_shape


@dataset(
    "fake",
    reference="torchvision.datasets.FakeData",
    tags=("noise", "embedded"),
    splits=("test",),
    classes=tuple(string.digits),
    versions=("torchvision",),
)
def fake(*, shape: Shape = (3, 32, 32), count: int = 1000, offset: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """torchvision's FakeData: normal values wrapped around to bytes, close to uniform noise; random labels."""
    from torchvision.datasets import FakeData

    check_draw("fake", count, offset)
    check_shape("fake", shape)
    # The class seeds torch's global generator for each image and puts it back.
    made = FakeData(count, shape, num_classes=10, random_offset=offset)
    pairs = [made[index] for index in range(count)]
    images = np.stack([np.asarray(image).reshape(shape[1], shape[2], shape[0]) for image, _ in pairs])
    return images.transpose(0, 3, 1, 2), np.array([label for _, label in pairs])
