"""Crops of scikit-learn's two photographs."""

from __future__ import annotations

import numpy as np

from ..registry import dataset
from .checks import Shape, check_draw, check_shape

_CLASSES = ("china", "flower")
_LARGEST = 4.0


@dataset(
    "patches",
    reference="scikit-learn's sample images: china.jpg, flower.jpg (CC BY)",
    tags=("natural", "embedded"),
    splits=("test",),
    classes=_CLASSES,
    versions=("scikit-learn", "pillow"),
)
def patches(*, shape: Shape = (1, 28, 28), count: int = 1000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random crops of scikit-learn's two photographs (a temple, a flower), one to four times reduced.

    One channel gives grey crops, three channels colour.
    """
    from PIL import Image
    from sklearn.datasets import load_sample_image

    check_draw("patches", count, seed)
    check_shape("patches", shape)
    mode = "L" if shape[0] == 1 else "RGB"
    photographs = [Image.fromarray(load_sample_image(f"{name}.jpg")).convert(mode) for name in _CLASSES]
    labels = np.arange(count) % len(_CLASSES)
    crops = [
        photographs[label].resize(
            (shape[2], shape[1]), Image.Resampling.BILINEAR, box=_box(photographs[label].size, shape, rng)
        )
        for index, label in enumerate(labels)
        for rng in [np.random.RandomState([seed, index])]
    ]
    images = np.stack([np.asarray(crop).reshape(*shape[1:], shape[0]) for crop in crops])
    return images.transpose(0, 3, 1, 2), labels


def _box(size: tuple[int, int], shape: Shape, rng: np.random.RandomState) -> tuple[int, int, int, int]:
    """A random (left, upper, right, lower) with the aspect of ``shape``, inside the photograph."""
    fits = min(size[0] / shape[2], size[1] / shape[1])
    scale = min(rng.uniform(1, _LARGEST), fits)
    width, height = max(int(shape[2] * scale), 1), max(int(shape[1] * scale), 1)
    left, upper = rng.randint(size[0] - width + 1), rng.randint(size[1] - height + 1)
    return left, upper, left + width, upper + height
