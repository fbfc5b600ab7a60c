"""Images where models look at them: whole splits, corrupted ones, and batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..datasets import ImageSet, ResolvedDataset
from ..datasets.corruptions import corrupted
from ..datasets.imageset import content_hashes
from ..registry import Selected, digest

_KEEP_ON_DEVICE = 2**30  # bytes of one split, and of all corrupted ones together


class DeviceImages:
    """Splits of datasets on a device, each moved there once.

    Args:
        device: Where models and images live.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._splits: dict[tuple[str, str], ImageSet] = {}
        self._corrupted: dict[tuple[str, str, int], ImageSet] = {}
        self._hashes: dict[tuple[str, str], np.ndarray] = {}
        self._room = _KEEP_ON_DEVICE

    def split(self, dataset: ResolvedDataset, split: str) -> ImageSet:
        """One split, on the device if it is at most a gigabyte."""
        key = (dataset.fingerprint(split), split)
        if key not in self._splits:
            loaded = dataset.load(split)
            size = loaded.pixels.numel() * loaded.pixels.element_size()
            self._splits[key] = loaded.to(self.device) if size <= _KEEP_ON_DEVICE else loaded
        return self._splits[key]

    def hashes(self, dataset: ResolvedDataset, split: str) -> np.ndarray:
        """Content hashes (N,) of one split, computed once."""
        key = (dataset.fingerprint(split), split)
        if key not in self._hashes:
            self._hashes[key] = content_hashes(dataset.load(split))
        return self._hashes[key]

    def corrupted(self, dataset: ResolvedDataset, chosen: Selected, severity: int, *, keep: bool) -> ImageSet:
        """Test images after a corruption; the first gigabyte of those to ``keep`` is made only once."""
        key = (dataset.fingerprint("test"), chosen.label, severity)
        if key in self._corrupted:
            return self._corrupted[key]
        made = corrupted(self.split(dataset, "test"), chosen.entry, severity, chosen.parameters)
        if keep and (size := made.pixels.numel()) <= self._room:
            self._room -= size
            self._corrupted[key] = made
        return made

    def batches(self, images: ImageSet, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of at most ``size`` images (B, C, H, W), channels last, and their indices (B,), on the device."""
        for batch, _, indices in images.batches(size):
            yield self.lay_out(batch), indices.to(self.device)

    def lay_out(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) on the device, channels last."""
        return images.to(self.device).to(memory_format=torch.channels_last)


def drawn_positions(total: int, size: int, *stream: Any) -> Tensor:
    """Positions of a random subset that depends on nothing but its arguments, in ascending order."""
    generator = torch.Generator().manual_seed(int(digest("subset", *stream)[:15], 16))
    return torch.randperm(total, generator=generator)[:size].sort().values
