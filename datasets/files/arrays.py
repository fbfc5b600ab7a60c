"""``npz``, ``npy`` and ``safetensors``: whole sets in one file, read without running anything in it."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...registry import GauntletError, dataset, digest, nearest
from ..imageset import ImageSet
from ..source import DataSource
from .hashes import content_of
from .image_folder import SPLITS
from .labels import read_labels
from .pixels import Layout, read_pixels
from .places import place

#: Names of arrays of images and of labels that are found where nobody says one.
_IMAGES = ("images", "image", "x", "data", "pixels", "arr_0", "values", "imgs")
_LABELS = ("labels", "label", "y", "targets", "target", "fine_labels", "arr_1", "classes")


@dataclass
class Arrays:
    """A :class:`~gauntlet.datasets.collection.Collection` of arrays: of each split, images and maybe labels.

    Args:
        name: For messages.
        read: Reads images and labels (or None) of a split.
        files: What each split is read from.
        cache: Where content hashes are kept.
        classes_given: Names of the classes.
        layout: Of the axes.
        scale: What values are divided by.
    """

    name: str
    read: Mapping[str, Callable[[], tuple[Any, Any]]]
    files: Mapping[str, list[Path]]
    cache: Path
    classes_given: list[str] | None = None
    layout: Layout | None = None
    scale: float | None = None

    @property
    def splits(self) -> tuple[str, ...]:
        """Those that there are arrays for."""
        return tuple(split for split in SPLITS if split in self.read)

    @cached_property
    def _labels(self) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
        """Labels of each split, numbered alike."""
        given = {split: read()[1] for split, read in self.read.items()}
        counts = {split: None if labels is None else np.asarray(labels) for split, labels in given.items()}
        known = [labels for labels in counts.values() if labels is not None]
        if not known:
            return {}, tuple(self.classes_given or ())
        try:
            joined = np.concatenate(known)
        except ValueError:
            shapes = ", ".join(str(labels.shape) for labels in known)
            raise GauntletError(f"Dataset {self.name!r}: the labels of its splits differ in shape: {shapes}.") from None
        labels, names = read_labels(joined, self.classes_given, f"Dataset {self.name!r}")
        found, start = {}, 0
        for split, own in counts.items():
            if own is not None:
                found[split], start = labels[start : start + len(own)], start + len(own)
        return found, names

    @property
    def classes(self) -> tuple[str, ...]:
        """As given, else those that occur."""
        return self._labels[1]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images of the first split."""
        return self.load(self.splits[-1]).shape

    def paths(self, split: str) -> list[Path]:
        """The files of a split."""
        return self.files[split]

    def content(self, split: str) -> Any:
        """A digest of the files' contents and of how they are read."""
        hashes = [content_of(path.parent, [path.name], self.cache)[0][1:] for path in self.files[split]]
        return digest(hashes, self.classes_given, self.layout, self.scale)

    def facts(self) -> Mapping[str, Any]:
        """Nothing beyond the parameters."""
        return {}

    def load(self, split: str) -> ImageSet:
        """The images of a split.

        Raises:
            GauntletError: Layout, range or labels are not clear.
        """
        where = f"Dataset {self.name!r} ({split})"
        pixels, note = read_pixels(self.read[split]()[0], where, layout=self.layout, scale=self.scale)
        labels, names = self._labels
        own = labels.get(split)
        if own is None:
            own = np.full(len(pixels), -1)
        if len(own) != len(pixels):
            raise GauntletError(f"{where} has {len(pixels)} images and {len(own)} labels.")
        return ImageSet(pixels, torch.from_numpy(own), names, torch.arange(len(pixels)), self.name, split, note)


@dataset("npz", tags=("file", "kind"), opens=True, places=("path", "train", "val"))
def npz(
    source: DataSource,
    *,
    path: str,
    train: str = "",
    val: str = "",
    images: str = "",
    labels: str = "",
    classes: list[str] | None = None,
    layout: Layout | None = None,
    scale: float | None = None,
) -> Arrays:
    """Images and labels as named arrays of an npz file; names with train, val and test make splits, as MedMNIST has.

    Args:
        source: Paths that do not exist start at its root.
        path: The file of the test split, or of all.
        train: That of the train split, if there is one of its own.
        val: That of the val split, if there is one of its own.
        images: Name of the array of images; by default the first of the usual ones.
        labels: Name of the labels; by default the first of the usual ones, ``none`` for none.
        classes: Names of the classes, in order.
        layout: Order of the axes, where it is not clear.
        scale: What the values are divided by, where their type does not say it.

    Raises:
        GauntletError: A file is absent or damaged, or has no such array.
    """
    return _named(source, (train, val, path), _of_npz, images, labels, classes, layout, scale)


@dataset("safetensors", tags=("file", "kind"), opens=True, places=("path", "train", "val"))
def safetensors(
    source: DataSource,
    *,
    path: str,
    train: str = "",
    val: str = "",
    images: str = "",
    labels: str = "",
    classes: list[str] | None = None,
    layout: Layout | None = None,
    scale: float | None = None,
) -> Arrays:
    """Images and labels as named tensors of a safetensors file; parameters as of ``npz``.

    Raises:
        GauntletError: A file is absent or damaged, or has no such tensor.
    """
    return _named(source, (train, val, path), _of_safetensors, images, labels, classes, layout, scale)


@dataset(
    "npy", tags=("file", "kind"), opens=True, places=("path", "train", "val", "labels", "train_labels", "val_labels")
)
def npy(
    source: DataSource,
    *,
    path: str,
    labels: str = "",
    train: str = "",
    train_labels: str = "",
    val: str = "",
    val_labels: str = "",
    rows: list[int] | None = None,
    classes: list[str] | None = None,
    layout: Layout | None = None,
    scale: float | None = None,
) -> Arrays:
    """Images of one npy file, labels of another; mapped, so that a large file stays on the disk.

    Args:
        source: Paths that do not exist start at its root.
        path: Images of the test split.
        labels: Their labels.
        train: Images of the train split.
        train_labels: Their labels.
        val: Images of the val split.
        val_labels: Their labels.
        rows: First and past-the-last row of images and labels (``[40000, 50000]`` is severity 5 of CIFAR-10-C).
        classes: Names of the classes, in order.
        layout: Order of the axes, where it is not clear.
        scale: What the values are divided by, where their type does not say it.

    Raises:
        GauntletError: A file is absent or damaged.
    """
    given = {"train": (train, train_labels), "val": (val, val_labels), "test": (path, labels)}
    files = {split: [place(one, source) for one in pair if one] for split, pair in given.items() if pair[0]}
    part = slice(None) if rows is None else _slice(rows)
    read = {split: (lambda paths=paths: _npy_pair(paths, part)) for split, paths in files.items()}
    name = next(iter(files.values()))[0].stem
    return Arrays(name, read, files, source.cache, classes, layout, scale)


def _slice(rows: list[int]) -> slice:
    if len(rows) != 2 or not 0 <= rows[0] < rows[1]:
        raise GauntletError(f"Dataset 'npy': rows must be [first, past the last], got {rows}.")
    return slice(*rows)


def _npy_pair(paths: list[Path], rows: slice) -> tuple[Any, Any]:
    images = _npy(paths[0])[rows]
    return images, _npy(paths[1])[rows] if len(paths) > 1 else None


def _npy(path: Path) -> np.ndarray:
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise _damaged(path, "npy", error) from None
    if not isinstance(found, np.ndarray):
        raise GauntletError(f"{path} holds several arrays: read it as npz.")
    return found


def _damaged(path: Path, kind: str, error: Exception) -> GauntletError:
    text = " ".join(str(error).split()).rstrip(".")
    if any(word in text.lower() for word in ("pickle", "python objects", "object arrays")):
        return GauntletError(f"{path} holds Python objects, which are not read: save the arrays as numbers.")
    return GauntletError(f"{path} is damaged or no {kind} file: {text}.")


# -- named arrays ---------------------------------------------------------------------------------------------

#: Gives the names in a file, and reads one of its arrays.
Open = Callable[[Path], tuple[list[str], Callable[[str], Any]]]


def _of_npz(path: Path) -> tuple[list[str], Callable[[str], Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            if isinstance(file, np.ndarray):
                raise GauntletError(f"{path} holds one array: read it as npy.")
            names = list(file.files)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise _damaged(path, "npz", error) from None

    def read(name: str) -> Any:
        try:
            with np.load(path, allow_pickle=False) as file:
                return file[name]
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zipfile.LargeZipFile) as error:
            raise _damaged(path, "npz", error) from None

    return names, read


def _of_safetensors(path: Path) -> tuple[list[str], Callable[[str], Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            names = list(file.keys())
    except (OSError, SafetensorError) as error:
        raise _damaged(path, "safetensors", error) from None

    def read(name: str) -> Any:
        with safe_open(path, framework="np") as file:
            return file.get_tensor(name)

    return names, read


def _named(
    source: DataSource,
    given: tuple[str, str, str],
    opened: Open,
    images: str,
    labels: str,
    classes: list[str] | None,
    layout: Layout | None,
    scale: float | None,
) -> Arrays:
    files = {split: place(path, source) for split, path in zip(SPLITS, given, strict=True) if path}
    found: dict[str, tuple[Path, str, str | None, Callable[[str], Any]]] = {}
    for split, path in files.items():
        names, read = opened(path)
        pairs = _pairs(names, images, labels, path)
        chosen = pairs if len(files) == 1 else {split: pairs.get(split) or next(iter(pairs.values()))}
        found |= {own: (path, *pair, read) for own, pair in chosen.items()}

    def reader(split: str) -> Callable[[], tuple[Any, Any]]:
        _, image, label, read = found[split]
        return lambda: (read(image), None if label is None else read(label))

    stem = next(iter(files.values())).stem
    paths = {split: [entry[0]] for split, entry in found.items()}
    return Arrays(stem, {split: reader(split) for split in found}, paths, source.cache, classes, layout, scale)


def _pairs(names: list[str], images: str, labels: str, path: Path) -> dict[str, tuple[str, str | None]]:
    """The names of images and labels of each split in a file; of ``test`` alone where the names say no split."""
    if images:
        _known(images, names, path)
        return {"test": (images, _label_of(names, labels, "", path))}
    found: dict[str, tuple[str, str | None]] = {}
    for split, aliases in SPLITS.items():
        for name in names:
            word = next((alias for alias in aliases if alias in _words(name)), None)
            if word and _rest(name, word) in _IMAGES and split not in found:
                found[split] = (name, _label_of(names, labels, word, path))
    if found:
        return found
    by_lower = {name.lower(): name for name in names}
    image = next((by_lower[name] for name in _IMAGES if name in by_lower), None)
    image = image or (names[0] if len(names) == 1 else None)
    if image is None:
        raise GauntletError(f"{path} has the arrays {', '.join(names) or 'none'}: say `images:` and `labels:`.")
    return {"test": (image, _label_of(names, labels, "", path))}


def _label_of(names: list[str], given: str, word: str, path: Path) -> str | None:
    if given.lower() == "none":
        return None
    if given:
        return _known(given, names, path)
    return next((name for name in names if (word in _words(name) or not word) and _rest(name, word) in _LABELS), None)


def _words(name: str) -> list[str]:
    return name.lower().replace("-", "_").replace("/", "_").replace(".", "_").split("_")


def _rest(name: str, word: str) -> str:
    """A name without the word for its split."""
    return "_".join(part for part in _words(name) if part != word) if word else name.lower()


def _known(name: str, names: list[str], path: Path) -> str:
    if name not in names:
        raise GauntletError(f"{path} has no array {name!r}; {nearest(name, names)}")
    return name
