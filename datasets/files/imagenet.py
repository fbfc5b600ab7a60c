"""Sets of photographs whose archives need more than a folder: ImageNet, Tiny ImageNet, ImageNet-C, GTSRB."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...registry import GauntletError, dataset
from ..source import DataSource
from .image_files import Files, ImageFiles, Reading, Shape, checked_parts
from .image_folder import image_folder
from .named import found
from .scan import scan

_photographs = partial(dataset, tags=("colour", "file", "photographs"), opens=True)

_IMAGENET = ("imagenet", "ImageNet", "ILSVRC/Data/CLS-LOC", "imagenet_1k", "images_largescale/imagenet_1k")
_TABLES = ("LOC_val_solution.csv", "../LOC_val_solution.csv", "../../../LOC_val_solution.csv", "val_labels.csv")


@_photographs(
    "imagenet",
    reference="Russakovsky et al. 2015, arXiv:1409.0575",
    splits=("train", "test"),
    home=" (image-net.org, or Kaggle)",
)
def imagenet(source: DataSource, *, transform: Any = "imagenet-256-224", shape: Shape | None = None) -> ImageFiles:
    """ImageNet: 1,000 classes; the official validation images, flat or in class folders, are the test split.

    Args:
        source: The folder with ``train`` and ``val`` lies below its root.
        transform: Preprocessing.
        shape: (C, H, W) to bring the images into.

    Raises:
        NotAvailable: The folder is absent.
        GauntletError: Flat validation images come without Kaggle's LOC_val_solution.csv.
    """
    root = found("imagenet", source, _IMAGENET, "image-net.org, or Kaggle")
    reading = Reading(transform, shape, channels=3, upright=False)
    flat = not any(path.is_dir() for path in (root / "val").iterdir()) if (root / "val").is_dir() else False
    if not flat:
        splits = {split: name for split, name in (("train", "train"), ("test", "val")) if (root / name).is_dir()}
        return image_folder(
            source, path=str(root), splits=splits, transform=transform, shape=shape, channels=3, upright=False
        )
    labels = _kaggle(root)
    parts = {"test": _labelled(root / "val", {f"{name}.JPEG": wnid for name, wnid in labels.items()})}
    if (root / "train").is_dir():
        parts = {"train": _by_folder(root / "train"), **parts}
    return _numbered("imagenet", parts, reading, source)


def _kaggle(root: Path) -> dict[str, str]:
    """The class of each validation image, by Kaggle's table."""
    table = next((root / name for name in _TABLES if (root / name).is_file()), None)
    if table is None:
        raise GauntletError(
            f"Dataset 'imagenet': the images in {root / 'val'} lie in no class folders, and their labels are not here: "
            f"put Kaggle's LOC_val_solution.csv into {root}."
        )
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))[1:]
    return {row[0].removesuffix(".JPEG"): row[1].split()[0] for row in rows if len(row) > 1 and row[1].strip()}


@_photographs(
    "tiny-imagenet",
    reference="Le, Yang 2015, CS 231N",
    splits=("train", "test"),
    home=" (cs231n.stanford.edu/tiny-imagenet-200.zip)",
    shape=(3, 64, 64),
)
def tiny_imagenet(source: DataSource) -> ImageFiles:
    """Tiny ImageNet: 200 classes in 64x64; the official validation images are the test split.

    Raises:
        NotAvailable: The folder is absent.
    """
    home = "cs231n.stanford.edu/tiny-imagenet-200.zip"
    usual = tuple(f"{folder}/val/val_annotations.txt" for folder in ("tiny-imagenet-200", "TinyImageNet"))
    root = found("tiny-imagenet", source, usual, home).parents[1]
    lines = (root / "val" / "val_annotations.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split()[:2] for line in lines if line.strip()]
    parts = {
        "train": _by_folder(root / "train"),
        "test": _labelled(root / "val" / "images", dict(pairs)),
    }
    return _numbered("tiny-imagenet", parts, Reading(channels=3, upright=False), source)


@_photographs(
    "imagenet-c",
    reference="Hendrycks, Dietterich 2019, arXiv:1903.12261",
    splits=("test",),
    shape=(3, 224, 224),
    home=" (zenodo.org/records/2235448)",
)
def imagenet_c(source: DataSource, *, corruption: str = "fog", severity: int = 5) -> ImageFiles:
    """ImageNet-C: validation images of 224x224 after a published corruption of severity 1 to 5.

    Raises:
        NotAvailable: The folder is absent.
        GauntletError: There is no such corruption or severity.
    """
    root = found(
        "imagenet-c", source, ("ImageNet-C", "imagenet-c", "images_largescale/imagenet_c"), "zenodo.org/records/2235448"
    )
    places = [path.parent for path in root.glob(f"**/{corruption}/{severity}")] if 1 <= severity <= 5 else []
    if not places:
        raise GauntletError(f"Dataset 'imagenet-c': {root} has no folder {corruption}/{severity}.")
    return image_folder(source, path=str(places[0] / str(severity)), channels=3, upright=False)


@_photographs(
    "gtsrb",
    reference="Stallkamp et al. 2012, Neural Networks",
    splits=("train", "test"),
    classes=tuple(map(str, range(43))),
    home=" (torchvision's GTSRB, or sid.erda.dk)",
)
def gtsrb(source: DataSource, *, transform: Any = "small-32", shape: Shape | None = None) -> ImageFiles:
    """German traffic signs: 43 classes, in torchvision's layout.

    Args:
        source: ``gtsrb/GTSRB`` lies below its root.
        transform: Preprocessing.
        shape: (C, H, W) to bring the images into.

    Raises:
        NotAvailable: The folders are absent.
    """
    root = found("gtsrb", source, ("gtsrb", "GTSRB"), "torchvision's GTSRB, or sid.erda.dk")
    inside = DataSource(root, source.cache)
    train = found("gtsrb", inside, ("GTSRB/Training", "Training", "GTSRB/Final_Training/Images"), "sid.erda.dk")
    test = found("gtsrb", inside, ("GTSRB/Final_Test/Images", "Final_Test/Images"), "sid.erda.dk")
    table = found("gtsrb", inside, ("GT-final_test.csv", "GTSRB/GT-final_test.csv"), "sid.erda.dk")
    with table.open(encoding="utf-8-sig", newline="") as file:
        labels = {row["Filename"]: str(int(row["ClassId"])) for row in csv.DictReader(file, delimiter=";")}
    parts = {"train": _by_folder(train, lambda folder: str(int(folder))), "test": _labelled(test, labels)}
    reading = Reading(transform, shape, channels=3, upright=False)
    return _numbered("gtsrb", parts, reading, source, tuple(map(str, range(43))))


# -- names and classes ----------------------------------------------------------------------------------------

Named = tuple[Path, list[str], list[str]]


def _labelled(root: Path, labels: Mapping[str, str]) -> Named:
    """The files in a folder, with the class that a table says; files that it lacks are unknown."""
    names = scan(root, follow_links=True).names
    return root, names, [labels.get(name, "") for name in names]


def _by_folder(root: Path, class_of: Any = str) -> Named:
    """The files below a folder, whose first folder is the class."""
    names = scan(root, follow_links=True).names
    return root, names, [class_of(name.partition("/")[0]) for name in names]


def _numbered(
    name: str, parts: Mapping[str, Named], reading: Reading, source: DataSource, classes: Iterable[str] = ()
) -> ImageFiles:
    """One set of all parts, with classes in alphabetical order unless they are given."""
    known = tuple(classes) or tuple(sorted({one for _, _, labels in parts.values() for one in labels} - {""}))
    place = {one: number for number, one in enumerate(known)}
    files = {
        split: Files(root, names, np.array([place.get(one, -1) for one in labels], dtype=np.int64))
        for split, (root, names, labels) in parts.items()
    }
    return ImageFiles(name, checked_parts(name, files), known, reading, source.cache)
