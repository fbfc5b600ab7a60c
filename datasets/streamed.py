"""Pixels that stay in their files until somebody looks at them: what large sets have in place of a tensor."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

#: Threads that decode; Pillow lets go of the interpreter's lock while it decodes and resizes.
WORKERS = min(os.cpu_count() or 1, 32)
#: Batches that are decoded ahead of the one that is looked at.
_AHEAD = 2

#: From a batch (B, C, H, W) and the positions (B,) of its images to a changed batch.
Change = Callable[[Tensor, Tensor], Tensor]
Shape = tuple[int, int, int]
_Batch = tuple[Tensor, Tensor, list["Future[None]"]]


@dataclass(frozen=True, eq=False)
class StreamedPixels:
    """Images (N, C, H, W), decoded by threads when they are asked for; a tensor to those who only read it.

    Attributes:
        read: Decodes the image at a position: (C, H, W), uint8.
        positions: (N,) what ``read`` is given.
        decoded: (C, H, W) of what ``read`` gives.
        image: (C, H, W) of the images.
        change: What is done to each batch after decoding.
        device: Where batches are wanted.
        dtype: Of the images.
    """

    read: Callable[[int], np.ndarray]
    positions: Tensor
    decoded: Shape
    image: Shape
    change: Change | None = None
    device: torch.device | str = "cpu"
    dtype: torch.dtype = torch.uint8
    ndim = 4

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def shape(self) -> torch.Size:
        """(N, C, H, W)."""
        return torch.Size((len(self), *self.image))

    def numel(self) -> int:
        """Values of all images."""
        return self.shape.numel()

    def element_size(self) -> int:
        """Bytes of a value."""
        return self.dtype.itemsize

    def at(self, where: Any) -> StreamedPixels:
        """The images at positions, a mask or a slice, still in their files."""
        return replace(self, positions=self.positions[where.cpu() if isinstance(where, Tensor) else where])

    def to(self, device: torch.device | str) -> StreamedPixels:
        """The same images, whose batches come to another device."""
        return replace(self, device=device)

    def changed(self, change: Change, *, image: Shape | None = None, dtype: torch.dtype | None = None) -> Any:
        """The images after a change of each batch, made when the batch is; it may give another shape or type."""
        before = self.change
        both = change if before is None else lambda batch, at: change(before(batch, at), at)
        return replace(self, change=both, image=image or self.image, dtype=dtype or self.dtype)

    def __getitem__(self, where: Any) -> Tensor:
        """Decoded images (B, C, H, W), or (C, H, W) of one, on the device."""
        if isinstance(where, int):
            return self[torch.tensor([where])][0]
        chosen = self.at(where)
        return next(chosen.split(max(len(chosen), 1)))

    def split(self, size: int) -> Iterator[Tensor]:
        """Batches (B, C, H, W) of at most ``size`` images in order, decoded ahead of their use."""
        waiting: deque[_Batch] = deque()
        with ThreadPoolExecutor(WORKERS) as pool:
            try:
                for group in self.positions.split(size):
                    waiting.append(self._start(pool, group))
                    if len(waiting) > _AHEAD:
                        yield self._finish(*waiting.popleft())
                while waiting:
                    yield self._finish(*waiting.popleft())
            finally:
                for future in (one for *_, futures in waiting for one in futures):
                    future.cancel()

    def _start(self, pool: ThreadPoolExecutor, group: Tensor) -> _Batch:
        pinned = torch.device(self.device).type == "cuda" and torch.cuda.is_available()
        batch = torch.empty((len(group), *self.decoded), dtype=torch.uint8, pin_memory=pinned)
        into = batch.numpy()

        def decode(start: int, end: int) -> None:
            for place in range(start, end):
                into[place] = self.read(int(group[place]))

        step = max(1, -(-len(group) // (4 * WORKERS)))
        starts = range(0, len(group), step)
        return batch, group, [pool.submit(decode, start, min(start + step, len(group))) for start in starts]

    def _finish(self, batch: Tensor, group: Tensor, futures: list[Future[None]]) -> Tensor:
        for future in futures:
            future.result()
        batch = batch.to(self.device, non_blocking=True)
        return batch if self.change is None else self.change(batch, group.to(self.device))


def joined(parts: Sequence[Any]) -> Any:
    """Pixels of several sets (tensors or streamed) one after the other, in their files where one of them is there."""
    if all(isinstance(part, Tensor) for part in parts):
        return torch.cat(list(parts))
    starts = np.cumsum([0, *(len(part) for part in parts)])

    def read(position: int) -> np.ndarray:
        which = int(np.searchsorted(starts, position, side="right")) - 1
        return parts[which][int(position - starts[which])].numpy()

    image = tuple(parts[0].shape[1:])
    return StreamedPixels(read, torch.arange(int(starts[-1])), image, image)
