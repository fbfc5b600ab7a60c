"""The one format of all datasets: pixels, labels, class names and where each image came from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..registry import GauntletError, nearest

#: Numbers of channels by which images with channels last are recognised.
_CHANNELS = (1, 3, 4)


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one split with their labels.

    Attributes:
        pixels: (N, C, H, W), uint8 or float32 in [0, 1].
        labels: (N,) int64, an index into ``classes``; -1 where unknown.
        classes: Class names.
        indices: (N,) int64, the index of each image in its source split; random streams are derived from it.
        name: The dataset, for messages and random streams.
        split: ``train``, ``val`` or ``test``.
        conversion: What was done to size and colour, such as ``3x32x32 -> 1x28x28: luma (ITU-R 601), bilinear``.

    Raises:
        GauntletError: A shape, type, length or value is not as above; the message names the dataset.
    """

    pixels: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    indices: Tensor
    name: str
    split: str
    conversion: str = ""

    def __post_init__(self) -> None:
        self._check_pixels()
        for what, values in (("labels", self.labels), ("indices", self.indices)):
            if values.dtype != torch.int64 or values.shape != (len(self.pixels),):
                self._fail(f"{what} must be ({len(self.pixels)},) int64, got {tuple(values.shape)} {_type(values)}")
        self._check_labels()

    def _check_pixels(self) -> None:
        pixels = self.pixels
        if pixels.ndim != 4 or 0 in pixels.shape[1:]:
            self._fail(f"images must be (N, C, H, W), got {tuple(pixels.shape)}")
        if pixels.shape[3] in _CHANNELS and pixels.shape[1] > max(_CHANNELS):
            self._fail(
                f"images must be (N, C, H, W), and {tuple(pixels.shape)} looks like (N, H, W, C): put channels first, "
                "with images.transpose(0, 3, 1, 2) in numpy or images.permute(0, 3, 1, 2) in torch"
            )
        if pixels.dtype not in (torch.uint8, torch.float32):
            self._fail(f"images must be uint8 or float32, got {_type(pixels)}")
        if pixels.dtype == torch.float32 and len(pixels):
            low, high = (float(value) for value in pixels.aminmax())
            if not (low >= 0 and high <= 1):  # a NaN fails both comparisons
                self._fail(f"float images must be finite and in [0, 1], got values from {low:g} to {high:g}")

    def _check_labels(self) -> None:
        if not len(self):
            return
        low, high = (int(value) for value in self.labels.aminmax())
        if low < -1 or high >= len(self.classes):
            self._fail(
                f"labels must be -1 (unknown) or below {len(self.classes)}, the number of classes, got {low} to {high}"
            )

    def _fail(self, problem: str) -> None:
        raise GauntletError(f"Dataset {self.name!r} ({self.split}): {problem}.")

    def __len__(self) -> int:
        return len(self.pixels)

    def __repr__(self) -> str:
        size = "x".join(map(str, self.shape))
        return f"<ImageSet {self.name} {self.split}: {len(self)} images {size}, {len(self.classes)} classes>"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width

    @property
    def images(self) -> Tensor:
        """The whole set as (N, C, H, W) float32 in [0, 1]."""
        return as_float(self.pixels)

    def to(self, device: torch.device | str) -> ImageSet:
        """The same set on another device."""
        return replace(
            self, pixels=self.pixels.to(device), labels=self.labels.to(device), indices=self.indices.to(device)
        )

    def subset(self, positions: Tensor | Sequence[int]) -> ImageSet:
        """The images at ``positions`` (integers, or a boolean mask), in that order; they keep their ``indices``."""
        where = torch.as_tensor(positions, device=self.pixels.device)
        if where.dtype != torch.bool:
            where = where.long()
        return replace(self, pixels=self.pixels[where], labels=self.labels[where], indices=self.indices[where])

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Consecutive batches of (images float32, labels, indices), each with at most ``size`` images.

        Raises:
            GauntletError: The size is below one.
        """
        if size < 1:
            raise GauntletError(f"A batch size must be at least 1, got {size}.")
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            yield as_float(self.pixels[part]), self.labels[part], self.indices[part]


def content_hashes(images: ImageSet) -> np.ndarray:
    """A hash (N,) uint64 of the pixels of each image in 256 levels: equal for equal pictures, wherever they lie."""
    levels = (as_float(images.pixels) * 255).round().byte().flatten(1).cpu().numpy()
    digests = b"".join(hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in levels)
    return np.frombuffer(digests, dtype=np.uint64)


def as_float(pixels: Tensor) -> Tensor:
    """Pixels as float32 in [0, 1]."""
    return pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels


def as_image_set(value: Any, *, name: str, split: str, classes: Sequence[str] | None) -> ImageSet:
    """What a dataset function returned, as an :class:`ImageSet`.

    Args:
        value: An ``ImageSet``, images alone, ``(images, labels)`` or ``(images, labels, class_names)``. Labels may be
            names of classes: of declared ones, else their sorted names become the classes.
        name: The dataset's name.
        split: The split that was asked for.
        classes: Declared class names; without any, the names are the numbers up to the largest label.

    Raises:
        GauntletError: It is none of these, or its contents do not fit together.
    """
    if isinstance(value, ImageSet):
        return replace(value, name=name, split=split)
    parts = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    if not 1 <= len(parts) <= 3:
        raise GauntletError(
            f"Dataset {name!r} ({split}) must return images, (images, labels), (images, labels, class_names) or an "
            f"ImageSet, got {len(parts)} values."
        )
    pixels = _pixels(_tensor(parts[0], name, "images"))
    if len(parts) == 3:
        classes = parts[2]
    texts = _texts(parts[1]) if len(parts) > 1 else None
    if texts is not None:
        classes = sorted(set(texts)) if classes is None else list(map(str, classes))
        parts = (parts[0], [_class_index(text, classes, name) for text in texts])
    labels = _tensor(parts[1], name, "labels") if len(parts) > 1 else torch.full((len(pixels),), -1)
    if labels.is_floating_point():
        raise GauntletError(f"Dataset {name!r} ({split}): labels must be integers, got {_type(labels)}.")
    labels = labels.long()
    if classes is None:
        classes = [str(label) for label in range(int(labels.max()) + 1)] if labels.numel() else []
    names = tuple(str(class_name) for class_name in classes)
    return ImageSet(pixels, labels, names, torch.arange(len(pixels)), name, split)


def _texts(labels: Any) -> list[str] | None:
    """Labels that are texts, as a CSV file gives them; None where they are something else."""
    listed = labels.tolist() if hasattr(labels, "tolist") else labels
    if isinstance(listed, (list, tuple)) and listed and all(isinstance(label, str) for label in listed):
        return list(listed)
    return None


def _class_index(text: str, classes: Sequence[str], name: str) -> int:
    if text in classes:
        return list(classes).index(text)
    raise GauntletError(
        f"Dataset {name!r} has a label {text!r}, which is none of its classes; {nearest(text, classes)}"
    )


def _tensor(value: Any, name: str, what: str) -> Tensor:
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        raise GauntletError(
            f"Dataset {name!r}: its {what} must be an array or a tensor, got {type(value).__name__}."
        ) from None


def _pixels(images: Tensor) -> Tensor:
    if images.ndim == 3:  # (N, H, W): grey
        images = images[:, None]
    return images.float() if images.is_floating_point() else images


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
