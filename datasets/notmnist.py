"""notMNIST: idx files, or the folders of PNGs in which it is distributed."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch

from ..registry import GauntletError, dataset
from .imageset import ImageSet
from .mnist import idx_files, read_pair
from .png import read_png
from .source import DataSource

_LETTERS = tuple("ABCDEFGHIJ")
_FOLDERS = {"train": ("notMNIST_large",), "test": ("notMNIST_small", "notMNIST")}
_PREFIXES = {"train": "train", "test": "t10k"}


def _files(split: str, source: DataSource) -> list[Path]:
    pair = idx_files("notMNIST", _PREFIXES[split], source)
    if all(path.exists() for path in pair):
        return pair
    return _pngs(split, source) or pair


def _pngs(split: str, source: DataSource) -> list[Path]:
    """The PNGs of the first folder that has any, by letter and name."""
    for folder in _FOLDERS[split]:
        found = [path for letter in _LETTERS for path in sorted((source.root / folder / letter).glob("*.png"))]
        if found:
            return found
    return []


@dataset(
    "notmnist",
    reference="Bulatov 2011, yaroslavvb.blogspot.com/2011/09/notmnist-dataset.html",
    tags=("grey", "letters", "file"),
    splits=("train", "test"),
    classes=_LETTERS,
    shape=(1, 28, 28),
    files=_files,
    home=" (yaroslavvb.blogspot.com/2011/09/notmnist-dataset.html; its folder notMNIST_small of PNGs will also do)",
)
def notmnist(split: str, source: DataSource) -> ImageSet:
    """Letters A-J in many typefaces, light on dark; about 2 % are repeated and some labels are wrong.

    Read from ``notMNIST/raw`` (idx files, also .gz) or from folders A to J of 28x28 PNGs in ``notMNIST_small`` or
    ``notMNIST`` (test) and ``notMNIST_large`` (train). Unreadable PNGs, of which the original has some, are left out
    and counted, in a warning and in ``conversion``.
    """
    files = _files(split, source)
    if files[0].suffix == ".png":
        return _read_pngs(files, split)
    images, labels = read_pair(*files)
    positions = torch.arange(len(images))
    return ImageSet(
        torch.from_numpy(images)[:, None], torch.from_numpy(labels).long(), _LETTERS, positions, "notmnist", split
    )


def _read_pngs(files: list[Path], split: str) -> ImageSet:
    read = [(index, image) for index, path in enumerate(files) if (image := _read(path)) is not None]
    if not read:
        raise GauntletError(
            f"None of the {len(files)} PNGs in {files[0].parent.parent} is a readable 28x28 grey image."
        )
    note = ""
    if len(read) < len(files):
        note = f"{len(files) - len(read)} of {len(files)} PNGs unreadable, left out"
        warnings.warn(f"Dataset 'notmnist' ({split}): {note}.", stacklevel=2)
    indices = torch.tensor([index for index, _ in read])
    labels = torch.tensor([_LETTERS.index(files[index].parent.name) for index, _ in read])
    pixels = torch.from_numpy(np.stack([image for _, image in read]))[:, None]
    return ImageSet(pixels, labels, _LETTERS, indices, "notmnist", split, note)


def _read(path: Path) -> np.ndarray | None:
    try:
        pixels = read_png(path, "L")
    except GauntletError:
        return None
    return pixels if pixels.shape == (28, 28) else None
