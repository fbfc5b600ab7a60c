"""What searches for the nearest adversarial image have in common: the best found, and one active set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from .active import Paths, drive
from .norms import per_image, perturbation_norms
from .victim import Victim


@dataclass
class Search(Paths):
    """Searches for the nearest adversarial image.

    Attributes:
        best: The nearest adversarial image so far; the original where there is none.
        size: The size of that perturbation (M,), infinite where there is none.
    """

    best: Tensor
    size: Tensor

    def note(self, fooled: Tensor, norm: str) -> Tensor:
        """Remember the current images where they fool (a mask) and are nearer; returns where that was so."""
        size = perturbation_norms(self.current, self.clean, norm)
        nearer = fooled & (size < self.size)
        self.best = torch.where(per_image(nearer, self.best), self.current, self.best)
        self.size = torch.where(nearer, size, self.size)
        return nearer


S = TypeVar("S", bound=Search)


def start(images: Tensor, labels: Tensor, items: Tensor) -> dict[str, Any]:
    """The fields of :class:`Search` for some images, at the originals."""
    clean = images[items]
    return {
        "item": items,
        "taken": torch.zeros_like(items),
        "clean": clean,
        "current": clean.clone(),
        "labels": labels[items],
        "best": clean.clone(),
        "size": torch.full((len(items),), torch.inf, dtype=images.dtype, device=images.device),
    }


def nearest(victim: Victim, images: Tensor, load: Callable[[Tensor], S], step: Callable[[S], Tensor]) -> Tensor:
    """Drive one search for each image; returns what each found (N, C, H, W)."""
    best = torch.empty_like(images)

    def leave(rows: S) -> None:
        best[rows.item] = rows.best

    items = torch.arange(len(images), device=images.device)
    drive(items, room=victim.batch_size, load=load, step=step, leave=leave)
    return best
