"""The active set: many searches advance together, each leaves when it is done, and another takes its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Self, TypeVar

import torch
from torch import Tensor


@dataclass
class Rows:
    """Searches in progress; every field has one row for each of them.

    Attributes:
        item: Number of the search (M,).
        taken: Steps taken so far (M,), int64.
    """

    item: Tensor
    taken: Tensor

    def __len__(self) -> int:
        return len(self.item)

    def keep(self, rows: Tensor) -> Self:
        """Those rows (a mask) alone."""
        return type(self)(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def join(self, other: Self) -> Self:
        """These rows, then the other's."""
        names = [field.name for field in fields(self)]
        return type(self)(**{name: torch.cat([getattr(self, name), getattr(other, name)]) for name in names})


@dataclass
class Paths(Rows):
    """Searches that go from image to image.

    Attributes:
        clean: The original image (M, C, H, W).
        current: The image now.
        labels: Its label (M,).
    """

    clean: Tensor
    current: Tensor
    labels: Tensor


R = TypeVar("R", bound=Rows)


def drive(
    items: Tensor,
    *,
    room: int,
    load: Callable[[Tensor], R],
    step: Callable[[R], Tensor],
    leave: Callable[[R], None],
) -> None:
    """Advance searches until each is done.

    At most ``room`` of them are in progress; places that become free are filled from the queue, so that batches stay
    full while there are items left, and memory does not grow with their number.

    Args:
        items: Numbers of the searches (M,).
        room: Most searches in progress at once.
        load: Starts some of them.
        step: Advances every row in place by one step, and tells which rows are done (a mask).
        leave: Takes the rows that are done.
    """
    waiting = items
    rows = load(waiting[:room])
    waiting = waiting[room:]
    while len(rows):
        done = step(rows)
        rows.taken += 1
        if not done.any():
            continue
        leave(rows.keep(done))
        rows = rows.keep(~done)
        if len(waiting):
            free = room - len(rows)
            rows, waiting = rows.join(load(waiting[:free])), waiting[free:]
