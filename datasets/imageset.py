"""The one format of all datasets: pixels, labels, class names and where each image came from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..registry import GauntletError
from .streamed import StreamedPixels

#: Numbers of channels by which images with channels last are recognised.
_CHANNELS = (1, 3, 4)
_CHUNK = 1024


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one split with their labels.

    Attributes:
        pixels: (N, C, H, W), uint8 or float32 in [0, 1]; of a large set :class:`~.streamed.StreamedPixels`, which are
            decoded when they are looked at.
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
                self._fail(f"{what} must be ({len(self.pixels)},) int64, got {tuple(values.shape)} {type_of(values)}")
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
            self._fail(f"images must be uint8 or float32, got {type_of(pixels)}")
        if pixels.dtype == torch.float32 and len(pixels) and not self.streams:
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
    def streams(self) -> bool:
        """Whether the pixels stay in their files."""
        return isinstance(self.pixels, StreamedPixels)

    @property
    def images(self) -> Tensor:
        """The whole set as (N, C, H, W) float32 in [0, 1]."""
        return as_float(self.pixels[:] if self.streams else self.pixels)

    def to(self, device: torch.device | str) -> ImageSet:
        """The same set on another device."""
        return replace(
            self, pixels=self.pixels.to(device), labels=self.labels.to(device), indices=self.indices.to(device)
        )

    def subset(self, positions: Tensor | Sequence[int]) -> ImageSet:
        """The images at ``positions`` (integers, or a boolean mask), in that order; they keep their ``indices``."""
        where = torch.as_tensor(positions, device=self.labels.device)
        if where.dtype != torch.bool:
            where = where.long()
        pixels: Any = self.pixels.at(where) if isinstance(self.pixels, StreamedPixels) else self.pixels[where]
        return replace(self, pixels=pixels, labels=self.labels[where], indices=self.indices[where])

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Consecutive batches of (images float32, labels, indices), each with at most ``size`` images.

        Raises:
            GauntletError: The size is below one.
        """
        if size < 1:
            raise GauntletError(f"A batch size must be at least 1, got {size}.")
        for part in zip(self.pixels.split(size), self.labels.split(size), self.indices.split(size), strict=True):
            if len(part[1]):
                yield as_float(part[0]), *part[1:]


def content_hashes(images: ImageSet) -> np.ndarray:
    """A hash (N,) uint64 of the pixels of each image in 256 levels: equal for equal pictures, wherever they lie."""
    parts = ((as_float(part) * 255).round().byte().flatten(1).cpu().numpy() for part in images.pixels.split(_CHUNK))
    digests = b"".join(hashlib.blake2b(row.tobytes(), digest_size=8).digest() for part in parts for row in part)
    return np.frombuffer(digests, dtype=np.uint64)


def hashed(tensor: Tensor) -> str:
    """Digest of all values, some at a time."""
    digest = hashlib.sha256()
    for part in tensor.split(_CHUNK):
        digest.update(part.contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()


def as_float(pixels: Tensor) -> Tensor:
    """Pixels as float32 in [0, 1]."""
    return pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels


def type_of(tensor: Tensor) -> str:
    """The type of its values, without `torch.`."""
    return str(tensor.dtype).removeprefix("torch.")
