"""STL-10: colour photographs of 96x96 in the binary files of its authors, labelled and (``stl10-unlabelled``) not."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch

from ..registry import GauntletError, dataset
from .imageset import ImageSet
from .mnist import check_pair
from .source import DataSource

CLASSES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
FOLDS = 10

_SHAPE = (3, 96, 96)
_FOLDER = "stl10_binary"
_REFERENCE = "Coates, Lee, Ng 2011, AISTATS"
_UNKNOWN = -1


def _files(split: str, source: DataSource, fold: int | None = None) -> list[Path]:
    folder = source.root / _FOLDER
    files = [folder / f"{split}_X.bin", folder / f"{split}_y.bin"]
    return [*files, folder / "fold_indices.txt"] if split == "train" and fold is not None else files


def _unlabelled_files(split: str, source: DataSource) -> list[Path]:
    return [source.root / _FOLDER / "unlabeled_X.bin"]


def _download(split: str, source: DataSource) -> None:
    from torchvision import datasets

    datasets.STL10(source.root, split="train", download=True)


_stl10 = partial(
    dataset, reference=_REFERENCE, tags=("colour", "file"), classes=CLASSES, shape=_SHAPE, download=_download
)


@_stl10("stl10", splits=("train", "test"), files=_files)
def stl10(split: str, source: DataSource, *, fold: int | None = None) -> ImageSet:
    """Ten classes of animals and vehicles in 96x96: 5,000 train images, 8,000 test images.

    Args:
        split: ``train`` or ``test``.
        source: Files lie in ``stl10_binary``, as torchvision lays them out.
        fold: 0 to 9: the predefined 1,000 train images of that number instead of all; the test split stays whole.

    Raises:
        GauntletError: There is no such fold, or the files are absent or damaged.
    """
    if fold is not None and not 0 <= fold < FOLDS:
        raise GauntletError(f"Dataset 'stl10' has the folds 0 to {FOLDS - 1}, got fold {fold}.")
    files = _files(split, source, fold)
    pixels, labels = read_images(files[0]), read_labels(files[1])
    check_pair(files[0], pixels, files[1], labels)
    indices = torch.arange(len(pixels))
    images = ImageSet(torch.from_numpy(pixels), torch.from_numpy(labels), CLASSES, indices, "stl10", split)
    return images.subset(read_fold(files[2], fold, len(pixels))) if len(files) == 3 and fold is not None else images


@_stl10("stl10-unlabelled", splits=("test",), files=_unlabelled_files)
def stl10_unlabelled(split: str, source: DataSource) -> ImageSet:
    """The 100,000 images of STL-10 without labels, to train without any; also of classes that the others lack.

    One split holds them all, since none of them tests anything.
    """
    pixels = torch.from_numpy(read_images(_unlabelled_files(split, source)[0]))
    labels = torch.full((len(pixels),), _UNKNOWN)
    return ImageSet(pixels, labels, CLASSES, torch.arange(len(pixels)), "stl10-unlabelled", split)


def read_images(path: Path) -> np.ndarray:
    """Images (N, 3, 96, 96) uint8 of a file that holds them channel by channel, each column by column.

    Raises:
        GauntletError: Its length is not a whole number of images.
    """
    content = np.fromfile(path, dtype=np.uint8)
    size = int(np.prod(_SHAPE))
    if not len(content) or len(content) % size:
        raise GauntletError(f"{path} is damaged: {len(content)} bytes are not a whole number of images of {size}.")
    return np.ascontiguousarray(content.reshape(-1, *_SHAPE).swapaxes(2, 3))


def read_labels(path: Path) -> np.ndarray:
    """Labels (N,) int64 from 0 to 9; the file has 1 to 10.

    Raises:
        GauntletError: It has other ones.
    """
    labels = np.fromfile(path, dtype=np.uint8).astype(np.int64) - 1
    if len(labels) and not (labels.min() >= 0 and labels.max() < len(CLASSES)):
        raise GauntletError(
            f"{path} is damaged: its labels go from {labels.min() + 1} to {labels.max() + 1}, not 1-10."
        )
    return labels


def read_fold(path: Path, fold: int, count: int) -> list[int]:
    """Positions of the images of a fold: the numbers in that line of the file.

    Raises:
        GauntletError: There is no such line, or it holds something else.
    """
    lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    try:
        positions = [int(word) for word in lines[fold].split()]
    except (IndexError, ValueError):
        positions = []
    if not positions or min(positions) < 0 or max(positions) >= count:
        raise GauntletError(f"{path} is damaged: line {fold + 1} does not hold positions among {count} images.")
    return positions
