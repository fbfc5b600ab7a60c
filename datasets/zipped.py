"""Sets that lie as small image files in one zip: MNIST-M, and CIFAR-10's test images as JPEG."""

from __future__ import annotations

import io
import string
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from ..registry import GauntletError, dataset
from .colour import CIFAR10_CLASSES
from .source import DataSource

_MNIST_M = ("MNIST-M/test_first2000.zip", "MNIST-M/test.zip")
_JPEG = ("CIFAR10/test_jpeg.zip",)


def _files(names: tuple[str, ...]) -> Callable[[str, DataSource], list[Path]]:
    return lambda split, source: [source.either(*names) if len(names) > 1 else source.root / names[0]]


_zipped = partial(dataset, tags=("colour", "shifted", "file"), splits=("test",), shape=(3, 32, 32))


@_zipped(
    "mnist-m", reference="Ganin et al. 2016, arXiv:1505.07818", classes=tuple(string.digits), files=_files(_MNIST_M)
)
def mnist_m(split: str, source: DataSource) -> tuple[np.ndarray, np.ndarray]:
    """MNIST digits blended over photographs: a zip of PNGs in `images`, with lines of `NAME LABEL` in `labels.txt`."""
    (path,) = _files(_MNIST_M)(split, source)
    with _opened(path) as archive:
        rows = [line.split() for line in archive.read("labels.txt").decode().splitlines() if line.strip()]
        images = [_pixels(archive, _member(archive, name), path) for name, _ in rows]
    return np.stack(images), np.array([int(label) for _, label in rows])


@_zipped("cifar10-jpeg", reference="Krizhevsky 2009", classes=CIFAR10_CLASSES, files=_files(_JPEG))
def cifar10_jpeg(split: str, source: DataSource) -> tuple[np.ndarray, np.ndarray]:
    """CIFAR-10's test images after lossy compression: a zip of `NUMBER_CLASS.jpg`.

    Raises:
        GauntletError: The archive is damaged, or a file in it is not named NUMBER_CLASS.jpg.
    """
    (path,) = _files(_JPEG)(split, source)
    with _opened(path) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        labels = [Path(name).stem.partition("_")[2] for name in names]
        unknown = sorted(set(labels) - set(CIFAR10_CLASSES))
        if unknown or not names:
            raise GauntletError(f"{path} must hold files NUMBER_CLASS.jpg of CIFAR-10's classes, got {unknown[:3]}.")
        images = [_pixels(archive, name, path) for name in names]
    return np.stack(images), np.array([CIFAR10_CLASSES.index(label) for label in labels])


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise GauntletError(f"{path} is damaged or no zip: {error}.") from None


def _member(archive: zipfile.ZipFile, name: str) -> str:
    return next((full for full in (name, f"images/{name}") if full in archive.NameToInfo), name)


def _pixels(archive: zipfile.ZipFile, name: str, path: Path) -> np.ndarray:
    """The pixels (3, 32, 32) of a file in a zip."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(archive.read(name)), formats=["PNG", "JPEG"]) as image:
            pixels = np.asarray(image.convert("RGB"))
    except (KeyError, OSError, zipfile.BadZipFile) as error:
        raise GauntletError(f"{path}: {name} is absent or damaged: {error}.") from None
    if pixels.shape != (32, 32, 3):
        raise GauntletError(f"{path}: {name} must be 32x32, got {pixels.shape[1]}x{pixels.shape[0]}.")
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))
