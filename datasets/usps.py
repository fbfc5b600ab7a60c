"""USPS and QMNIST: digits of other origin than MNIST's."""

from __future__ import annotations

import string
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ..registry import dataset
from .idx import read_idx, read_images
from .imageset import ImageSet
from .mnist import check_pair
from .png_sheets import find_sheets, labels_file, read_sheets
from .source import DataSource

_CLASSES = tuple(string.digits)
_digits = partial(dataset, tags=("grey", "shifted", "file"), splits=("train", "test"), classes=_CLASSES)


def _sheets(split: str, source: DataSource) -> list[Path]:
    folder = source.root / "USPS"
    sheets = find_sheets(folder, split, train_size=7291)
    if not sheets:
        return [folder / f"usps_{split}_first{7291 if split == 'train' else 2007}.png"]
    return [*(sheet.path for sheet in sheets), labels_file(folder, sheets)]


@_digits("usps", reference="Hull 1994, TPAMI", shape=(1, 16, 16), files=_sheets)
def usps(split: str, source: DataSource) -> ImageSet:
    """Digits from envelopes, 16x16: 7,291 train and 2,007 test images, as sheets (see ``png_sheets``).

    Raises:
        GauntletError: A file is damaged.
    """
    folder = source.root / "USPS"
    sheets = find_sheets(folder, split, train_size=7291)
    images, labels, indices = map(torch.from_numpy, read_sheets(sheets, labels_file(folder, sheets), (1, 16, 16)))
    return ImageSet(images, labels, _CLASSES, indices, "usps", split)


def _qmnist_files(split: str, source: DataSource) -> list[Path]:
    raw = "QMNIST/raw/qmnist"
    names = (f"{raw}-{split}-images-idx3-ubyte", f"{raw}-{split}-labels-idx2-int")
    return [source.either(name, f"{name}.gz") for name in names]


def _download(split: str, source: DataSource) -> None:
    from torchvision import datasets

    datasets.QMNIST(source.root, what=split, download=True)


@_digits(
    "qmnist",
    reference="Yadav, Bottou 2019, arXiv:1905.10498",
    shape=(1, 28, 28),
    files=_qmnist_files,
    download=_download,
)
def qmnist(split: str, source: DataSource) -> tuple[np.ndarray, np.ndarray]:
    """MNIST made again from NIST's files, with 60,000 test images.

    Raises:
        GauntletError: A file is damaged, or the two do not hold equally many.
    """
    paths = _qmnist_files(split, source)
    images, labels = read_images(paths[0]), read_idx(paths[1])
    check_pair(paths[0], images, paths[1], labels)
    return images, labels[:, 0].astype(np.int64)
