"""Sets made from the images of another set, which thereby lose their class: outliers to tune and to train on.

They are the synthetic validation outliers of Hendrycks, Mazeika, Dietterich 2018 (arXiv:1812.04606). ``of`` is the set
that they are made from; as outliers or OOD sets of a suite, by default the in-distribution set.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..registry import GauntletError, dataset
from .checks import check_draw
from .source import DataSource

#: From images (N, C, H, W) float64 in [0, 1] and draws to images of the same shape.
Change = Callable[[np.ndarray, np.random.RandomState], np.ndarray]


def permuted(images: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """The pixels of each image in a random order of its own."""
    count, channels, height, width = images.shape
    order = np.argsort(rng.rand(count, 1, height * width), axis=2)
    return np.take_along_axis(images.reshape(count, channels, -1), order, axis=2).reshape(images.shape)


def jigsaw(images: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """Sixteen tiles of each image in a random order."""
    count, channels, height, width = images.shape
    tall, wide = height // 4, width // 4
    inside = images[:, :, : 4 * tall, : 4 * wide].reshape(count, channels, 4, tall, 4, wide)
    tiles = inside.transpose(0, 2, 4, 1, 3, 5).reshape(count, 16, channels, tall, wide)
    order = np.argsort(rng.rand(count, 16), axis=1)
    mixed = np.take_along_axis(tiles, order[:, :, None, None, None], axis=1)
    mixed = mixed.reshape(count, 4, 4, channels, tall, wide).transpose(0, 3, 1, 4, 2, 5)
    result = images.copy()
    result[:, :, : 4 * tall, : 4 * wide] = mixed.reshape(count, channels, 4 * tall, 4 * wide)
    return result


def pair_mean(images: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """The arithmetic mean of each image and another."""
    return (images + images[_partners(len(images), rng)]) / 2


def pair_geometric_mean(images: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """The geometric mean of each image and another."""
    return np.sqrt(images * images[_partners(len(images), rng)])


def speckled(images: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """Each pixel multiplied by normal noise around one with standard deviation 0.6; clipped."""
    return np.clip(images * (1 + 0.6 * rng.randn(*images.shape)), 0, 1)


def pixelated(images: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """Blocks of 4x4 pixels (less at the border) replaced by their means."""
    rows, columns = (np.minimum(np.arange(size) // 4 * 4, size - 1) for size in images.shape[2:])
    starts = [np.unique(edges) for edges in (rows, columns)]
    sums = np.add.reduceat(np.add.reduceat(images, starts[0], axis=2), starts[1], axis=3)
    ones = np.add.reduceat(np.add.reduceat(np.ones_like(images[:1]), starts[0], axis=2), starts[1], axis=3)
    return (sums / ones)[:, :, rows // 4][:, :, :, columns // 4]


def mirrored(images: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """Each image mirrored left to right."""
    return images[:, :, :, ::-1]


def inverted(images: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """Each image as its negative."""
    return 1 - images


def _partners(count: int, rng: np.random.RandomState) -> np.ndarray:
    """For each image another one: the next on a random circle."""
    circle = rng.permutation(count)
    partners = np.empty(count, dtype=np.int64)
    partners[circle] = np.roll(circle, 1)
    return partners


_CHANGES = (permuted, jigsaw, pair_mean, pair_geometric_mean, speckled, pixelated, mirrored, inverted)
TABLE: dict[str, Change] = {change.__name__.replace("_", "-"): change for change in _CHANGES}


def _reader(name: str, change: Change) -> Callable[..., np.ndarray]:
    def read(split: str, source: DataSource, *, of: str = "digits", seed: int = 0) -> np.ndarray:
        check_draw(name, 1, seed)
        images = _base(of, source).load(split)
        pixels = images.images.numpy().astype(np.float64)
        made = change(pixels, np.random.RandomState([seed, *f"{name} {split}".encode()]))
        return np.ascontiguousarray(made, dtype=np.float32)

    return read


def _files(split: str, source: DataSource, of: str = "digits") -> list[Path]:
    return _base(of, source).files(split)


def _base(of: str, source: DataSource) -> Any:
    from .resolve import resolve

    if of in TABLE:
        raise GauntletError(f"A derived dataset needs `of:` a dataset that is none itself, got {of!r}.")
    return resolve(of, source)


for _name, _change in TABLE.items():
    dataset(
        _name,
        summary=f"From another set: {(_change.__doc__ or '').strip()}",
        reference="Hendrycks, Mazeika, Dietterich 2018, arXiv:1812.04606",
        tags=("derived",),
        row=_name,
        splits=("train", "test"),
        classes=(),
        files=_files,
        versions=("scikit-learn",),
    )(_reader(_name, _change))
