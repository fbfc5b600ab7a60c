"""The ``sheets`` format: lossless PNGs that hold many small images, with labels in npy files.

A sheet is a PNG with one image per row: a row has H * W pixels and is an image of height H and width W in raster
order, so a sheet of N images is N pixels high and H * W wide. Mode RGB means three channels. To look at one:
``np.asarray(Image.open(file)).reshape(-1, H, W, 3)``.

In the folder of a data set lie

- ``sheets/NAME_K.png``: sheet K = 0, 1, ... with 1,000 images each: images 1000 K to 1000 K + 999 of the train split
  followed by the test split, in the official order (CIFAR-10: K < 50 is train, K >= 50 is test); any K may be absent;
- or ``NAME_SPLIT_firstN.png``: the first N images of a split, in the official order;
- labels, as uint8 in a one-dimensional npy file in the order of the split: ``SPLIT_labels.npy``,
  ``SPLIT_fine_labels.npy`` or ``SPLIT_firstN_labels.npy``, at least as long as the images reach; 255 says that an
  image is absent: where a sheet has a row for it all the same (lossy, say), that row is skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from ..registry import GauntletError
from ..registry.safe_files import reading
from .png import read_png

SHEET_SIZE = 1000
ABSENT = 255

_NUMBERED = re.compile(r".*_(\d+)\.png")
_FIRST = re.compile(r".*_(train|test)_first(\d+)\.png")


@dataclass(frozen=True)
class Sheet:
    """One PNG: images ``start`` to ``start + count - 1`` of a split."""

    path: Path
    split: str
    start: int
    count: int

    @property
    def indices(self) -> np.ndarray:
        """(count,) official indices of its images."""
        return np.arange(self.start, self.start + self.count)


def find_sheets(folder: Path, split: str, *, train_size: int) -> list[Sheet]:
    """The sheets of a split in the folder of a data set, in order.

    Args:
        folder: Folder of the data set; may be absent.
        split: ``train`` or ``test``.
        train_size: Images of the official train split, after which numbered sheets go on with the test split.

    Raises:
        GauntletError: Two sheets hold the same images, which would count twice.
    """
    numbered = (_numbered(path, train_size) for path in folder.glob("sheets/*.png"))
    first = (_first(path) for path in folder.glob("*.png"))
    found = [sheet for sheet in (*numbered, *first) if sheet is not None and sheet.split == split]
    found.sort(key=lambda sheet: sheet.start)
    for before, after in pairwise(found):
        if after.start < before.start + before.count:
            raise GauntletError(
                f"{after.path} holds images of the {split} split that {before.path} holds too (from {after.start} on): "
                "delete one of them."
            )
    return found


def labels_file(folder: Path, sheets: Iterable[Sheet]) -> Path:
    """The file with the labels of sheets of one split: the first of the three names that exists, else the first."""
    sheets = list(sheets)
    split, end = sheets[0].split, max(sheet.start + sheet.count for sheet in sheets)
    names = (f"{split}_labels.npy", f"{split}_fine_labels.npy", f"{split}_first{end}_labels.npy")
    paths = [folder / name for name in names]
    return next((path for path in paths if path.exists()), paths[0])


def read_sheets(sheets: Iterable[Sheet], labels: Path, shape: tuple[int, int, int]) -> tuple[np.ndarray, ...]:
    """Images, labels and official indices of all images but those that the labels call absent.

    Args:
        sheets: Of one split.
        labels: The npy file.
        shape: (C, H, W) of an image.

    Returns:
        (N, C, H, W) uint8, (N,) int64 and (N,) int64.

    Raises:
        GauntletError: A file is damaged, or has another size than it should; the message names it.
    """
    sheets = list(sheets)
    images = np.concatenate([_read_sheet(sheet, shape) for sheet in sheets])
    indices = np.concatenate([sheet.indices for sheet in sheets])
    found = _read_labels(labels, indices)
    present = found != ABSENT
    return images[present], found[present], indices[present]


def held_out(present: np.ndarray, official: tuple[int, int]) -> np.ndarray:
    """Which of the train images that are here are held out.

    Args:
        present: (N,) official indices of the images that are here, in ascending order.
        official: First and past-the-last official index of the held-out part of the whole split.

    Returns:
        (N,) bool: the official part, or, of a split that reaches no further, the last fifth of the images present.
    """
    if reaches_no_further(present, official):
        return np.arange(len(present)) >= len(present) - len(present) // 5
    return (present >= official[0]) & (present < official[1])


def reaches_no_further(present: np.ndarray, official: tuple[int, int]) -> bool:
    """Whether all images that are here belong to the official held-out part, which leaves none to train on."""
    return bool(((present >= official[0]) & (present < official[1])).all())


def _numbered(path: Path, train_size: int) -> Sheet | None:
    if (match := _NUMBERED.fullmatch(path.name)) is None:
        return None
    start = int(match[1]) * SHEET_SIZE
    return Sheet(path, *(("train", start) if start < train_size else ("test", start - train_size)), SHEET_SIZE)


def _first(path: Path) -> Sheet | None:
    match = _FIRST.fullmatch(path.name)
    return None if match is None else Sheet(path, match[1], 0, int(match[2]))


def _read_sheet(sheet: Sheet, shape: tuple[int, int, int]) -> np.ndarray:
    channels, height, width = shape
    pixels = read_png(sheet.path, "RGB" if channels == 3 else "L")
    if pixels.shape[:2] != (sheet.count, height * width):
        raise GauntletError(
            f"{sheet.path} must be {height * width} pixels wide and {sheet.count} high (one image per row), got "
            f"{pixels.shape[1]} and {pixels.shape[0]}."
        )
    return np.ascontiguousarray(pixels.reshape(-1, height, width, channels).transpose(0, 3, 1, 2))


def _read_labels(path: Path, indices: np.ndarray) -> np.ndarray:
    with reading(path, "is damaged or no npy file ({error})"):
        labels = np.load(path, mmap_mode="r", allow_pickle=False)  # mapped: no more than the file holds
    if not isinstance(labels, np.ndarray) or labels.ndim != 1 or labels.dtype != np.uint8:
        raise GauntletError(f"{path} must hold one-dimensional uint8 labels.")
    if len(labels) <= indices.max():
        raise GauntletError(f"{path} has {len(labels)} labels, but the sheets hold image {indices.max()}.")
    return labels[indices].astype(np.int64)
