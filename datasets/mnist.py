"""MNIST and the sets in its format, one table row each, in torchvision's folder layout."""

from __future__ import annotations

import string
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..registry import GauntletError, dataset
from .idx import read_images, read_labels
from .source import DataSource

Images = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class IdxSet:
    """One data set of idx files below ``FOLDER/raw``.

    Attributes:
        name: Name in the registry.
        folder: Folder below the data root.
        summary: One line.
        reference: Paper.
        classes: Class names.
        train: File name prefix of the train split.
        test: File name prefix of the test split.
        first_label: The label of the first class in the files.
        transposed: Whether the files hold rows and columns exchanged.
        options: Arguments of torchvision's class, beside ``root``, for the download.
    """

    name: str
    folder: str
    summary: str
    reference: str
    classes: tuple[str, ...]
    train: str = "train"
    test: str = "t10k"
    first_label: int = 0
    transposed: bool = False
    options: tuple[tuple[str, str], ...] = ()

    def files(self, split: str, source: DataSource) -> list[Path]:
        """The image file and the label file of ``split``."""
        return idx_files(self.folder, self.train if split == "train" else self.test, source)

    def read(self, split: str, source: DataSource) -> Images:
        """Images (N, H, W) and labels (N,) of ``split``; the factory of the registry."""
        images, labels = read_pair(*self.files(split, source))
        labels = labels.astype(np.int64) - self.first_label
        return np.ascontiguousarray(images.swapaxes(1, 2)) if self.transposed else images, labels

    def download(self, split: str, source: DataSource) -> None:
        """Let torchvision fetch the files of ``split``."""
        from torchvision import datasets

        getattr(datasets, self.folder)(source.root, **dict(self.options), train=split == "train", download=True)


_CLOTHES = (
    "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot",
)  # fmt: skip
_HIRAGANA = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
#: Upper and lower case of the other letters look alike.
_MERGED = tuple(string.digits + string.ascii_uppercase + "abdefghnqrt")

TABLE = (
    IdxSet("mnist", "MNIST", "Handwritten digits.", "LeCun, Bottou, Bengio, Haffner 1998", tuple(string.digits)),
    IdxSet(
        "fashion-mnist", "FashionMNIST", "Clothes.", "Xiao, Rasul, Vollgraf 2017, arXiv:1708.07747", _CLOTHES
    ),
    IdxSet(
        "kmnist", "KMNIST", "Cursive Japanese characters.", "Clanuwat et al. 2018, arXiv:1812.01718", _HIRAGANA
    ),
    IdxSet(
        "emnist-letters",
        "EMNIST",
        "Handwritten letters, upper and lower case as one class, upright.",
        "Cohen, Afshar, Tapson, van Schaik 2017, arXiv:1702.05373",
        tuple(string.ascii_lowercase),
        train="emnist-letters-train",
        test="emnist-letters-test",
        first_label=1,
        transposed=True,
        options=(("split", "letters"),),
    ),
    *(
        IdxSet(
            f"emnist-{split}", "EMNIST", f"Handwritten {what}, upright.", "Cohen, Afshar, Tapson, van Schaik 2017, "
            "arXiv:1702.05373", classes, train=f"emnist-{split}-train", test=f"emnist-{split}-test", transposed=True,
            options=(("split", split),),
        )
        for split, what, classes in (
            ("digits", "digits", tuple(string.digits)),
            ("mnist", "digits in MNIST's splits", tuple(string.digits)),
            ("balanced", "digits and letters, equally many of each", _MERGED),
            ("bymerge", "digits and letters, alike cases merged", _MERGED),
            ("byclass", "digits and letters", tuple(string.digits + string.ascii_uppercase + string.ascii_lowercase)),
        )
    ),
)  # fmt: skip


def idx_files(folder: str, prefix: str, source: DataSource) -> list[Path]:
    """The image file and the label file with a prefix, unpacked or, failing that, compressed."""
    stems = (f"{folder}/raw/{prefix}-images-idx3-ubyte", f"{folder}/raw/{prefix}-labels-idx1-ubyte")
    return [source.either(stem, f"{stem}.gz") for stem in stems]


def read_pair(images_file: Path, labels_file: Path) -> Images:
    """Images (N, H, W) and labels (N,) of two idx files.

    Raises:
        GauntletError: A file is damaged, or the two do not hold equally many.
    """
    images, labels = read_images(images_file), read_labels(labels_file)
    check_pair(images_file, images, labels_file, labels)
    return images, labels


def check_pair(images_file: Path, images: np.ndarray, labels_file: Path, labels: np.ndarray) -> None:
    """Refuse files of images (N, ...) and labels (N,) of different lengths.

    Raises:
        GauntletError: The two do not hold equally many.
    """
    if len(images) != len(labels):
        raise GauntletError(
            f"{images_file} has {len(images)} images but {labels_file} has {len(labels)} labels: they do not belong "
            "together."
        )


for _row in TABLE:
    dataset(
        _row.name,
        summary=_row.summary,
        reference=_row.reference,
        tags=("grey", "file"),
        row=repr(_row),
        splits=("train", "test"),
        classes=_row.classes,
        shape=(1, 28, 28),
        files=_row.files,
        download=_row.download,
    )(_row.read)
