"""Noise: the easiest out-of-distribution images there are."""

from __future__ import annotations

import numpy as np

from ..registry import dataset
from .checks import check_draw, check_shape


@dataset(
    "gaussian-noise",
    reference="Hendrycks, Mazeika, Dietterich 2018, arXiv:1812.04606",
    tags=("noise", "embedded"),
    splits=("test",),
    classes=(),
)
def gaussian_noise(*, shape: tuple[int, int, int] = (1, 28, 28), count: int = 1000, seed: int = 0) -> np.ndarray:
    """Independent normal pixels with mean 0.5 and standard deviation 0.5, clipped to [0, 1]."""
    return (0.5 + 0.5 * stream("gaussian-noise", shape, count, seed).randn(count, *shape)).clip(0, 1)


@dataset("uniform-noise", tags=("noise", "embedded"), splits=("test",), classes=())
def uniform_noise(*, shape: tuple[int, int, int] = (1, 28, 28), count: int = 1000, seed: int = 0) -> np.ndarray:
    """Independent pixels, uniform in [0, 1]."""
    return stream("uniform-noise", shape, count, seed).rand(count, *shape)


def stream(name: str, shape: tuple[int, int, int], count: int, seed: int) -> np.random.RandomState:
    """Frozen for all time, and drawn image by image: a larger set starts with the smaller one."""
    check_draw(name, count, seed)
    check_shape(name, shape)
    return np.random.RandomState([seed, *name.encode()])
