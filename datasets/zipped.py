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
from ..registry.safe_files import reading
from .colour import CIFAR10_CLASSES
from .source import DataSource

_MNIST_M = ("MNIST-M/test_first2000.zip", "MNIST-M/test.zip")
_MAX_BYTES = 2**24  # of a file in the zip; small images and a list of labels
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
    with reading(path, "is damaged or no zip ({error})"), zipfile.ZipFile(path) as archive:
        rows = [line.split() for line in _content(archive, "labels.txt", path).decode().splitlines() if line.strip()]
        images = [_pixels(archive, _member(archive, name), path) for name, _ in rows]
        return np.stack(images), np.array([int(label) for _, label in rows])


@_zipped("cifar10-jpeg", reference="Krizhevsky 2009", classes=CIFAR10_CLASSES, files=_files(_JPEG))
def cifar10_jpeg(split: str, source: DataSource) -> tuple[np.ndarray, np.ndarray]:
    """CIFAR-10's test images after lossy compression: a zip of `NUMBER_CLASS.jpg`.

    Raises:
        GauntletError: The archive is damaged, or a file in it is not named NUMBER_CLASS.jpg.
    """
    (path,) = _files(_JPEG)(split, source)
    with reading(path, "is damaged or no zip ({error})"), zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        labels = [Path(name).stem.partition("_")[2] for name in names]
        unknown = sorted(set(labels) - set(CIFAR10_CLASSES))
        if unknown or not names:
            raise GauntletError(f"{path} must hold files NUMBER_CLASS.jpg of CIFAR-10's classes, got {unknown[:3]}.")
        images = [_pixels(archive, name, path) for name in names]
    return np.stack(images), np.array([CIFAR10_CLASSES.index(label) for label in labels])


def _member(archive: zipfile.ZipFile, name: str) -> str:
    return next((full for full in (name, f"images/{name}") if full in archive.NameToInfo), name)


def _content(archive: zipfile.ZipFile, name: str, path: Path) -> bytes:
    """The bytes of a file in a zip, which unpacks to no more than the zip says."""
    with reading(path, f"does not hold a whole {name} ({{error}})"):
        if (size := archive.getinfo(name).file_size) > _MAX_BYTES:
            raise ValueError(f"it unpacks to {size} bytes")
        return archive.read(name)


def _pixels(archive: zipfile.ZipFile, name: str, path: Path) -> np.ndarray:
    """The pixels (3, 32, 32) of a file in a zip."""
    from PIL import Image

    data = _content(archive, name, path)
    with reading(path, f"holds a damaged {name} ({{error}})"):
        image = Image.open(io.BytesIO(data), formats=["PNG", "JPEG"])
        if image.size != (32, 32):  # before anything is unpacked
            raise GauntletError(f"{path}: {name} must be 32x32, got {image.width}x{image.height}.")
        return np.ascontiguousarray(np.asarray(image.convert("RGB")).transpose(2, 0, 1))
