"""Sets that give their images one by one: torch's ``Dataset``, Hugging Face's, or any other with items and a length."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..registry import GauntletError
from .imageset import ImageSet
from .streamed import StreamedPixels

#: Keys under which the items of a mapping are found.
_IMAGES = ("image", "img", "pixel_values", "images", "x")
_LABELS = ("label", "labels", "fine_label", "target", "class", "y")


def is_items(value: Any) -> bool:
    """Whether a value gives images one by one."""
    plain = isinstance(value, (torch.Tensor, np.ndarray, str, bytes, Mapping, ImageSet))
    return not plain and hasattr(value, "__getitem__") and hasattr(value, "__len__")


def image_set_of(items: Any, name: str, split: str, classes: Sequence[str] | None) -> ImageSet:
    """The images and labels of a set that gives them one by one: Pillow images, arrays (H, W, C) or tensors (C, H, W).

    Raises:
        GauntletError: It is empty, or its items are no images, or differ in size.
    """
    from .files.image_files import STREAM_ABOVE
    from .files.labels import read_labels

    where = f"Dataset {name!r} ({split})"
    if not len(items):
        raise GauntletError(f"{where} has no items.")
    one = _Items(items, where)
    raw = one.all_labels()
    labels, names = read_labels(raw, classes or _names(items), where)
    shape = tuple(one.pixels(0).shape)
    streamed = StreamedPixels(one.pixels_like(shape), torch.arange(len(items)), shape, shape)
    pixels: Any = streamed if streamed.numel() > STREAM_ABOVE else streamed[:]
    return ImageSet(pixels, torch.from_numpy(labels), names, torch.arange(len(items)), name, split, one.note)


def _names(items: Any) -> list[str] | None:
    """Names of classes that torchvision's and Hugging Face's sets have."""
    names = getattr(items, "classes", None)
    if names is None:
        features = getattr(items, "features", None) or {}
        feature = next((features[key] for key in _LABELS if key in features), None)
        names = getattr(feature, "names", None)
    return None if names is None else [one[0] if isinstance(one, tuple) else str(one) for one in names]


class _Items:
    """Access to the items, by one thread at a time: a set may keep a file open."""

    def __init__(self, items: Any, where: str) -> None:
        self._items, self._where, self._lock = items, where, threading.Lock()
        self.note = ""
        self._fit: Any = None

    def _item(self, position: int) -> tuple[Any, Any]:
        with self._lock:
            item = self._items[position]
        if isinstance(item, Mapping):
            image = next((item[key] for key in _IMAGES if key in item), None)
            label = next((item[key] for key in _LABELS if key in item), None)
            if image is None:
                raise GauntletError(f"{self._where}: its items have the keys {', '.join(item)}, none of them an image.")
            return image, label
        if isinstance(item, (tuple, list)):
            return item[0], item[1] if len(item) > 1 else None
        return item, None

    def all_labels(self) -> list[Any]:
        """Of all items, -1 where they have none; from an attribute ``targets`` or a column where there is one."""
        known = getattr(self._items, "targets", None)
        if known is not None and len(known) == len(self._items):
            return [_plain(label) for label in known]
        columns = getattr(self._items, "column_names", None)
        if isinstance(columns, Sequence):
            column = next((key for key in _LABELS if key in columns), None)
            return list(self._items[column]) if column else [-1] * len(self._items)
        labels = [_plain(self._item(position)[1]) for position in range(len(self._items))]
        return [-1 if label is None else label for label in labels]

    def pixels(self, position: int) -> np.ndarray:
        """One image (C, H, W), uint8."""
        image = self._item(position)[0]
        if hasattr(image, "convert"):
            return self._of_pillow(image, position)
        array = image.numpy() if isinstance(image, torch.Tensor) else np.asarray(image)
        if array.ndim == 2:
            array = array[None]
        if array.ndim != 3 or array.dtype.kind not in "uif":
            raise GauntletError(
                f"{self._where}: item {position} must begin with an image (Pillow, an array or a tensor), got "
                f"{type(image).__name__} of shape {array.shape}."
            )
        if array.shape[0] not in (1, 3) and array.shape[2] in (1, 3):
            array = array.transpose(2, 0, 1)
        if array.dtype == np.uint8:
            return array
        low, high = float(array.min()), float(array.max())
        if not (low >= 0 and high <= 1):
            raise GauntletError(
                f"{self._where}: item {position} holds values from {low:g} to {high:g}, expected 8 bits or floats in "
                "[0, 1]: take normalisation out of its transform, it belongs into the model."
            )
        return (array * 255).round().astype(np.uint8)

    def _of_pillow(self, image: Any, position: int) -> np.ndarray:
        from .files.decoding import Decoding, is_grey
        from .files.image_files import Reading, how_to_fit

        if self._fit is None:
            some = [self._item(one)[0] for one in range(0, len(self._items), max(1, len(self._items) // 16))]
            how = how_to_fit(Reading(), {(one.height, one.width) for one in some}, self._where)
            self._fit = Decoding(1 if all(is_grey(one) for one in some) else 3, drops_colour=False), how
            self.note = how.note
        decoding, how = self._fit
        array = np.asarray(how.apply(decoding.convert(image, f"{self._where}: item {position}")))
        return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)

    def pixels_like(self, shape: tuple[int, ...]) -> Any:
        """Reads images of one shape."""

        def read(position: int) -> np.ndarray:
            made = self.pixels(position)
            if made.shape != shape:
                raise GauntletError(
                    f"{self._where}: item {position} is {made.shape} where item 0 is {shape}; resize and crop in its "
                    "transform."
                )
            return made

        return read


def _plain(label: Any) -> Any:
    return label.tolist() if hasattr(label, "tolist") else label
