"""The active set: gradient steps on many (image, epsilon) pairs, of which each leaves as soon as it is fooled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from .victim import Victim


@dataclass
class Batch:
    """The work items in progress; every field has one row for each of them.

    Attributes:
        item: Number of the work item (M,).
        current: Its image now (M, C, H, W).
        clean: Its original image.
        labels: Its label (M,).
        radius: Its epsilon (M,).
        stride: Its step length (M,).
        taken: Gradients taken so far (M,).
    """

    item: Tensor
    current: Tensor
    clean: Tensor
    labels: Tensor
    radius: Tensor
    stride: Tensor
    taken: Tensor

    def __len__(self) -> int:
        return len(self.item)

    def keep(self, rows: Tensor) -> Batch:
        """Those rows (a mask) alone."""
        return Batch(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def join(self, other: Batch) -> Batch:
        """These rows, then the other's."""
        return Batch(
            **{field.name: torch.cat([getattr(self, field.name), getattr(other, field.name)]) for field in fields(self)}
        )


def climb(
    victim: Victim,
    items: Tensor,
    *,
    load: Callable[[Tensor], Batch],
    step: Callable[[Batch, Tensor], Tensor],
    steps: int,
    stop_when_fooled: bool,
    leave: Callable[[Batch], None],
) -> None:
    """Take gradient steps on work items until each is fooled or has taken ``steps`` of them.

    One batch of at most ``victim.batch_size`` items is in progress; places that become free are filled from the
    queue, so that it stays full while there are items left, and memory does not grow with their number.

    Args:
        victim: Gives gradients, and tells from the same pass who is fooled.
        items: Numbers of the work items (M,).
        load: Makes the batch for some of them.
        step: From a batch and its gradient to its next images.
        steps: Most gradients for one item.
        stop_when_fooled: Whether an item leaves when it is fooled; its image then is the one that did it.
        leave: Takes the rows that are finished.
    """
    waiting = items
    batch = load(waiting[:0])
    while len(batch) or len(waiting):
        room = victim.batch_size - len(batch)
        if room and len(waiting):
            batch, waiting = batch.join(load(waiting[:room])), waiting[room:]
        gradient, outputs = victim.gradient(batch.current, batch.labels)
        moved = step(batch, gradient)
        batch.taken += 1
        done = batch.taken >= steps
        if stop_when_fooled:
            fooled = victim.judge(outputs, batch.labels)
            moved[fooled] = batch.current[fooled]
            done |= fooled
        batch.current = moved
        if done.any():
            leave(batch.keep(done))
            batch = batch.keep(~done)
