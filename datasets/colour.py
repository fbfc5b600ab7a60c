"""CIFAR-10, CIFAR-100 and SVHN: torchvision's files, or sheets (see :mod:`.sheets`), one table row each.

The official test split is ``test``. Where it is absent, or must stay untouched, ``test: held-out`` takes a fixed part
of the official train images instead (by official index, so whatever else is here) and leaves it out of ``train``.
Of sheets, those that are here count: ``train`` and ``test`` may be parts of the official splits. Sheets that reach no
further than the held-out part are split themselves: their last fifth is ``test``, and result rows say so.
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ..registry import GauntletError, dataset
from .imageset import ImageSet
from .png_sheets import Sheet, find_sheets, held_out, labels_file, reaches_no_further, read_sheets
from .source import DataSource

Test = Literal["official", "held-out"]

_SHAPE = (3, 32, 32)
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CIFAR100 = (
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle", "bowl", "boy",
    "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle", "chair", "chimpanzee", "clock",
    "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish",
    "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion",
    "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom", "oak_tree", "orange",
    "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree", "plain", "plate", "poppy", "porcupine",
    "possum", "rabbit", "raccoon", "ray", "road", "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk",
    "skyscraper", "snail", "snake", "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank",
    "telephone", "television", "tiger", "tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale",
    "willow_tree", "wolf", "woman", "worm",
)  # fmt: skip
_CIFAR10_FILES = tuple(f"cifar-10-batches-py/data_batch_{number}" for number in range(1, 6))


@dataclass(frozen=True)
class ColourSet:
    """One data set of 32x32 colour images.

    Attributes:
        name: Name in the registry.
        torchvision: Name of torchvision's class.
        folder: Folder of the sheets, below the data root.
        summary: One line.
        reference: Paper.
        classes: Class names.
        train: Files of the train split below the data root, as torchvision lays them out.
        test: Files of the test split.
        train_size: Images of the official train split.
        held_out: First and past-the-last official train index of the held-out part.
    """

    name: str
    torchvision: str
    folder: str
    summary: str
    reference: str
    classes: tuple[str, ...]
    train: tuple[str, ...]
    test: tuple[str, ...]
    train_size: int
    held_out: tuple[int, int]

    @property
    def is_cifar(self) -> bool:
        """Whether torchvision checks and needs the files of both splits for either."""
        return self.torchvision.startswith("CIFAR")

    def files(self, split: str, source: DataSource, test: Test = "official") -> list[Path]:
        """The files that ``split`` is read from: torchvision's where they are here or nothing is, else the sheets."""
        official = self._official(_stored_in(split, test), source)
        sheets = self._sheets(split, test, source)
        if not sheets or all(path.exists() for path in official):
            return official
        return [*(sheet.path for sheet in sheets), labels_file(source.root / self.folder, sheets)]

    def read(self, split: str, source: DataSource, *, test: Test = "official") -> ImageSet:
        """The images of ``split``; the factory of the registry.

        Raises:
            GauntletError: A file is damaged.
        """
        stored = _stored_in(split, test)
        if all(path.exists() for path in self._official(stored, source)):
            images, labels = self._read_official(stored, source)
            present = indices = np.arange(len(images))
        else:
            sheets, present = self._sheets(split, test, source), self._present(stored, source)
            images, labels, indices = read_sheets(sheets, labels_file(source.root / self.folder, sheets), _SHAPE)
        kept = self._kept(split, test, indices, present)
        pixels, kept_labels, kept_indices = (torch.from_numpy(array[kept]) for array in (images, labels, indices))
        return ImageSet(pixels, kept_labels, self.classes, kept_indices, self.name, split)

    def download(self, split: str, source: DataSource, test: Test = "official") -> None:
        """Let torchvision fetch the files of ``split``."""
        self._torchvision(_stored_in(split, test), source, download=True)

    def describe(self, source: DataSource, test: Test = "official") -> dict[str, str]:
        """What result rows say of a held-out part that is not the official one."""
        if test == "official" or all(path.exists() for path in self._official("train", source)):
            return {}
        present = self._present("train", source)
        if not len(present) or not reaches_no_further(present, self.held_out):
            return {}
        count = held_out(present, self.held_out).sum()
        return {"held_out": f"the last {count} of the {len(present)} train images that are here"}

    def _official(self, split: str, source: DataSource) -> list[Path]:
        names = (*self.train, *self.test) if self.is_cifar else (self.train if split == "train" else self.test)
        return [source.root / name for name in names]

    def _read_official(self, split: str, source: DataSource) -> tuple[np.ndarray, np.ndarray]:
        """Images (N, C, H, W) and labels (N,) by torchvision, which checks md5 sums before it opens a file."""
        try:
            made = self._torchvision(split, source, download=False)
        except RuntimeError:
            files = ", ".join(map(str, self._official(split, source)))
            raise GauntletError(
                f"A file of dataset {self.name!r} is damaged: the md5 sums that torchvision knows do not fit {files}."
            ) from None
        labels = np.asarray(made.targets if self.is_cifar else made.labels, dtype=np.int64)
        return made.data.transpose(0, 3, 1, 2) if self.is_cifar else made.data, labels

    def _torchvision(self, split: str, source: DataSource, *, download: bool) -> Any:
        from torchvision import datasets

        made = getattr(datasets, self.torchvision)
        if self.is_cifar:
            return made(source.root, train=split == "train", download=download)
        return made(source.root / self.folder, split=split, download=download)

    def _sheets(self, split: str, test: Test, source: DataSource) -> list[Sheet]:
        """The sheets that hold images of ``split``."""
        stored = _stored_in(split, test)
        present, sheets = self._present(stored, source), self._all_sheets(stored, source)
        return [sheet for sheet in sheets if self._kept(split, test, sheet.indices, present).any()]

    def _all_sheets(self, stored: str, source: DataSource) -> list[Sheet]:
        return find_sheets(source.root / self.folder, stored, train_size=self.train_size)

    def _present(self, stored: str, source: DataSource) -> np.ndarray:
        """(N,) official indices of the images in all sheets of an official split."""
        return np.concatenate([np.arange(0), *(sheet.indices for sheet in self._all_sheets(stored, source))])

    def _kept(self, split: str, test: Test, indices: np.ndarray, present: np.ndarray) -> np.ndarray:
        """Which official indices belong to ``split``, where the stored split has the images ``present``."""
        if test == "official":
            return np.ones(len(indices), dtype=bool)
        kept = np.isin(indices, present[held_out(present, self.held_out)])
        return kept if split == "test" else ~kept


def _stored_in(split: str, test: Test) -> str:
    """The official split that holds the images of ``split``."""
    return "train" if test == "held-out" else split


TABLE = (
    ColourSet(
        "cifar10", "CIFAR10", "CIFAR10", "Ten classes of animals and vehicles.", "Krizhevsky 2009", CIFAR10_CLASSES,
        _CIFAR10_FILES, ("cifar-10-batches-py/test_batch", "cifar-10-batches-py/batches.meta"), 50_000,
        (40_000, 50_000),
    ),
    ColourSet(
        "cifar100", "CIFAR100", "CIFAR100", "A hundred fine classes of animals, plants and things.", "Krizhevsky 2009",
        _CIFAR100, ("cifar-100-python/train",), ("cifar-100-python/test", "cifar-100-python/meta"), 50_000,
        (40_000, 50_000),
    ),
    ColourSet(
        "svhn", "SVHN", "SVHN", "House numbers from street photographs.", "Netzer, Wang, Coates et al. 2011",
        tuple(string.digits), ("SVHN/train_32x32.mat",), ("SVHN/test_32x32.mat",), 73_257, (0, 10_000),
    ),
)  # fmt: skip

for _row in TABLE:
    dataset(
        _row.name,
        summary=_row.summary,
        reference=_row.reference,
        tags=("colour", "file"),
        row=repr(_row),
        splits=("train", "test"),
        classes=_row.classes,
        shape=_SHAPE,
        files=_row.files,
        download=_row.download,
        describe=_row.describe,
    )(_row.read)
