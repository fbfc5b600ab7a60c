"""Small sets of image files, made anew for each test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gauntlet.datasets import DataSource, ResolvedDataset, resolve


def _photograph(seed: int, size: tuple[int, int] = (40, 30)) -> np.ndarray:
    """(H, W, 3) uint8 with structure, of a size (W, H)."""
    small = np.random.default_rng(seed).integers(0, 255, (5, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize(size, Image.Resampling.BICUBIC))


def _save(path: Path, pixels: np.ndarray | Image.Image, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(path, **options)
    return path


@pytest.fixture
def photograph() -> Callable[..., np.ndarray]:
    """Makes (H, W, 3) uint8 of a seed and a size (W, H)."""
    return _photograph


@pytest.fixture
def save() -> Callable[..., Path]:
    """Writes an image, and the folders above it."""
    return _save


@pytest.fixture
def source(tmp_path: Path) -> DataSource:
    """Data root and cache below the test's folder."""
    return DataSource(tmp_path, tmp_path / "cache")


@pytest.fixture
def open_set(source: DataSource) -> Callable[..., ResolvedDataset]:
    """Resolves a spec there."""
    return lambda spec, **options: resolve(spec, source, **options)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Cats and dogs in several sizes and formats, in folders of the classes, six each."""
    sizes = [(40, 30), (30, 40), (50, 50), (64, 20), (33, 47), (40, 31)]
    endings = ["jpg", "png", "bmp", "webp", "JPEG", "jpeg"]
    for label, animal in enumerate(("cats", "dogs")):
        for number, (size, ending) in enumerate(zip(sizes, endings, strict=True)):
            _save(tmp_path / "photos" / animal / f"{number}.{ending}", _photograph(10 * label + number, size))
    return tmp_path / "photos"


@pytest.fixture
def by_split(tmp_path: Path) -> Callable[[Mapping[str, int]], Path]:
    """Makes folders of splits, with as many 12x10 PNGs of each of three classes."""

    def make(counts: Mapping[str, int]) -> Path:
        for split, count in counts.items():
            for label, name in enumerate(("ant", "bee", "cow")):
                for number in range(count):
                    pixels = _photograph(1000 * len(split) + 100 * label + number, (12, 10))
                    _save(tmp_path / "insects" / split / name / f"{number}.png", pixels)
        return tmp_path / "insects"

    return make
