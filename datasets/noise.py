"""Drawn images without content: noise (independent, smooth, faint, binary), blobs and plain colours."""

from __future__ import annotations

from functools import partial

import numpy as np

from ..registry import GauntletError, dataset
from .checks import Shape, check_draw, check_shape

_REFERENCE = "Hendrycks, Mazeika, Dietterich 2018, arXiv:1812.04606"
_drawn = partial(dataset, tags=("noise", "embedded"), splits=("test",), classes=())


@_drawn("gaussian-noise", reference=_REFERENCE)
def gaussian_noise(*, shape: Shape = (1, 28, 28), count: int = 1000, seed: int = 0) -> np.ndarray:
    """Independent normal pixels with mean 0.5 and standard deviation 0.5, clipped to [0, 1]."""
    return (0.5 + 0.5 * stream("gaussian-noise", shape, count, seed).randn(count, *shape)).clip(0, 1)


@_drawn("uniform-noise")
def uniform_noise(*, shape: Shape = (1, 28, 28), count: int = 1000, seed: int = 0) -> np.ndarray:
    """Independent pixels, uniform in [0, 1]."""
    return stream("uniform-noise", shape, count, seed).rand(count, *shape)


@_drawn("smooth-noise", versions=("scipy",), reference=_REFERENCE)
def smooth_noise(*, shape: Shape = (1, 28, 28), count: int = 1000, seed: int = 0, sigma: float = 2.0) -> np.ndarray:
    """Normal noise blurred by ``sigma`` pixels, each image stretched to [0, 1]."""
    blurred = _blurred("smooth-noise", stream("smooth-noise", shape, count, seed).randn(count, *shape), sigma)
    low, high = (edge(blurred, axis=(1, 2, 3), keepdims=True) for edge in (np.min, np.max))
    return (blurred - low) / np.maximum(high - low, 1e-12)


@_drawn("blobs", versions=("scipy",), reference=_REFERENCE)
def blobs(*, shape: Shape = (1, 28, 28), count: int = 1000, seed: int = 0, sigma: float = 1.5) -> np.ndarray:
    """Shapes without form: sparse random points, blurred by ``sigma`` pixels and cut off at the image's mean."""
    points = stream("blobs", shape, count, seed).rand(count, *shape) < 0.3
    blurred = _blurred("blobs", points.astype(float), sigma)
    inside = blurred > blurred.mean(axis=(1, 2, 3), keepdims=True)
    return np.where(inside, blurred / np.maximum(blurred.max(axis=(1, 2, 3), keepdims=True), 1e-12), 0.0)


@_drawn("rademacher", reference=_REFERENCE)
def rademacher(*, shape: Shape = (1, 28, 28), count: int = 1000, seed: int = 0) -> np.ndarray:
    """Independent pixels, 0 or 1 with equal probability."""
    return (stream("rademacher", shape, count, seed).rand(count, *shape) < 0.5).astype(np.float32)


@_drawn("plain", aliases=("grey",))
def plain(*, shape: Shape = (1, 28, 28), count: int = 1000, seed: int = 0) -> np.ndarray:
    """Images of one grey, or one colour, uniform in [0, 1]."""
    colours = stream("plain", shape, count, seed).rand(count, shape[0], 1, 1)
    return np.broadcast_to(colours, (count, *shape)).copy()


@_drawn("low-contrast")
def low_contrast(
    *, shape: Shape = (1, 28, 28), count: int = 1000, seed: int = 0, contrast: float = 0.1, level: float | None = None
) -> np.ndarray:
    """Faint noise: independent uniform pixels in a band of width ``contrast`` above one grey or colour.

    The band starts at (1 - contrast) * ``level``: 0 is black, 1 as bright as can be, None drawn as in `plain`.

    Raises:
        GauntletError: One of the two is not in [0, 1].
    """
    for name, value in {"contrast": contrast, "level": level}.items():
        if value is not None and not 0 <= value <= 1:
            raise GauntletError(f"Dataset 'low-contrast': {name} must lie in [0, 1], got {value}.")
    noise = stream("low-contrast", shape, count, seed).rand(count, *shape)
    base = plain(shape=shape, count=count, seed=seed) if level is None else level
    return (1 - contrast) * base + contrast * noise


def stream(name: str, shape: Shape, count: int, seed: int) -> np.random.RandomState:
    """Frozen for all time, and drawn image by image: a larger set starts with the smaller one.

    Raises:
        GauntletError: Shape, count or seed is out of range.
    """
    check_draw(name, count, seed)
    check_shape(name, shape)
    return np.random.RandomState([seed, *name.encode()])


def _blurred(name: str, images: np.ndarray, sigma: float) -> np.ndarray:
    """Images (N, C, H, W) blurred by ``sigma`` pixels, continued round their borders."""
    from scipy.ndimage import gaussian_filter

    if not 0 < sigma < 100:
        raise GauntletError(f"Dataset {name!r}: sigma must be above 0 and below 100 pixels, got {sigma}.")
    return gaussian_filter(images, sigma=(0, 0, sigma, sigma), mode="wrap")
