"""Drawn images without content, harder than independent noise: smooth, faint or binary noise, blobs, plain colours."""

from __future__ import annotations

import numpy as np

from ..registry import GauntletError, dataset
from .noise import stream

_REFERENCE = "Hendrycks, Mazeika, Dietterich 2018, arXiv:1812.04606"


@dataset(
    "smooth-noise", tags=("noise", "embedded"), splits=("test",), classes=(), wraps=("scipy",), reference=_REFERENCE
)
def smooth_noise(
    *, shape: tuple[int, int, int] = (1, 28, 28), count: int = 1000, seed: int = 0, sigma: float = 2.0
) -> np.ndarray:
    """Normal noise blurred by ``sigma`` pixels, each image stretched to [0, 1]."""
    _check_sigma("smooth-noise", sigma)
    blurred = _blurred(stream("smooth-noise", shape, count, seed).randn(count, *shape), sigma)
    low, high = (edge(blurred, axis=(1, 2, 3), keepdims=True) for edge in (np.min, np.max))
    return (blurred - low) / np.maximum(high - low, 1e-12)


@dataset("blobs", tags=("noise", "embedded"), splits=("test",), classes=(), wraps=("scipy",), reference=_REFERENCE)
def blobs(
    *, shape: tuple[int, int, int] = (1, 28, 28), count: int = 1000, seed: int = 0, sigma: float = 1.5
) -> np.ndarray:
    """Shapes without form: sparse random points, blurred by ``sigma`` pixels and cut off at the image's mean."""
    _check_sigma("blobs", sigma)
    points = stream("blobs", shape, count, seed).rand(count, *shape) < 0.3
    blurred = _blurred(points.astype(float), sigma)
    inside = blurred > blurred.mean(axis=(1, 2, 3), keepdims=True)
    return np.where(inside, blurred / np.maximum(blurred.max(axis=(1, 2, 3), keepdims=True), 1e-12), 0.0)


@dataset("rademacher", tags=("noise", "embedded"), splits=("test",), classes=(), reference=_REFERENCE)
def rademacher(*, shape: tuple[int, int, int] = (1, 28, 28), count: int = 1000, seed: int = 0) -> np.ndarray:
    """Independent pixels, 0 or 1 with equal probability."""
    return (stream("rademacher", shape, count, seed).rand(count, *shape) < 0.5).astype(np.float32)


@dataset("plain", aliases=("grey",), tags=("noise", "embedded"), splits=("test",), classes=())
def plain(*, shape: tuple[int, int, int] = (1, 28, 28), count: int = 1000, seed: int = 0) -> np.ndarray:
    """Images of one grey, or one colour, uniform in [0, 1]."""
    colours = stream("plain", shape, count, seed).rand(count, shape[0], 1, 1)
    return np.broadcast_to(colours, (count, *shape)).copy()


@dataset("low-contrast", tags=("noise", "embedded"), splits=("test",), classes=())
def low_contrast(
    *,
    shape: tuple[int, int, int] = (1, 28, 28),
    count: int = 1000,
    seed: int = 0,
    contrast: float = 0.1,
    level: float | None = None,
) -> np.ndarray:
    """Faint noise: independent uniform pixels in a band of width ``contrast`` above one grey or colour.

    The band starts at (1 - contrast) * ``level``: 0 is black, 1 as bright as can be, None drawn as in `plain`.
    """
    for name, value in {"contrast": contrast, "level": level}.items():
        if value is not None and not 0 <= value <= 1:
            raise GauntletError(f"Dataset 'low-contrast': {name} must lie in [0, 1], got {value}.")
    noise = stream("low-contrast", shape, count, seed).rand(count, *shape)
    base = plain(shape=shape, count=count, seed=seed) if level is None else level
    return (1 - contrast) * base + contrast * noise


def _blurred(images: np.ndarray, sigma: float) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(images, sigma=(0, 0, sigma, sigma), mode="wrap")


def _check_sigma(name: str, sigma: float) -> None:
    if not 0 < sigma < 100:
        raise GauntletError(f"Dataset {name!r}: sigma must be above 0 and below 100 pixels, got {sigma}.")
