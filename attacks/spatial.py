"""Spatial: rotations and translations, from a grid."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from ..datasets.per_image_rng import PerImageRNG
from ..registry import GauntletError
from .base import AttackResult, Kind
from .budget import BudgetAttack, BudgetSearch, SearchBatch
from .native import native
from .norms import per_image
from .victim import Victim


@native("spatial", "none", reference="Engstrom et al. 2019, arXiv 1712.02779", kind="other", access="decision")
class Spatial(BudgetAttack):
    """Rotates and translates, through a grid from the smallest change to the largest, until an image fools.

    Engstrom, Tran, Tsipras, Schmidt, Madry 2019, arXiv 1712.02779. It has no budget: every positive epsilon gives the
    same images, at epsilon 0 they stay as they are. Pixels are interpolated linearly; what comes from outside is 0.

    Args:
        max_rotation: Largest rotation, in degrees.
        max_translation: Largest translation in each direction, in pixels.
        rotations: Rotations of the grid.
        translations: Translations of the grid, in each direction.

    Raises:
        GauntletError: A parameter is out of range.
    """

    norm = "none"
    kind: Kind = "other"

    def __init__(
        self, max_rotation: float = 30.0, max_translation: float = 3.0, rotations: int = 7, translations: int = 5
    ) -> None:
        if min(rotations, translations) < 1 or not min(max_rotation, max_translation) >= 0:
            raise GauntletError(
                "spatial needs rotations, translations >= 1 and max_rotation, max_translation >= 0, got "
                f"{rotations}, {translations}, {max_rotation} and {max_translation}."
            )
        turns = torch.linspace(-max_rotation, max_rotation, rotations) if rotations > 1 else torch.zeros(1)
        shifts = torch.linspace(-max_translation, max_translation, translations) if translations > 1 else torch.zeros(1)
        scale = (max(max_rotation, 1e-9), max(max_translation, 1e-9))
        grid = list(product(turns.tolist(), shifts.tolist(), shifts.tolist()))
        # From the smallest change to the largest: an image leaves with the mildest move that fools.
        grid.sort(key=lambda move: (abs(move[0]) / scale[0]) + (abs(move[1]) + abs(move[2])) / scale[1])
        self.grid = torch.tensor(grid)

    def attack(
        self, victim: Victim, images: Tensor, labels: Tensor, epsilons: Sequence[float], rng: PerImageRNG
    ) -> Iterable[AttackResult]:
        """Search once for all epsilons."""
        (result,) = super().attack(victim, images, labels, epsilons[:1], rng)
        return [replace(result, epsilon=epsilon) for epsilon in epsilons]

    def search(self, batch: SearchBatch, items: Tensor) -> None:
        """Go through the grid; the image that resists keeps its last place."""
        grid = self.grid.to(items.device)

        def step(state: BudgetSearch) -> Tensor:
            state.current = transformed(state.clean, *grid[state.steps_done].unbind(dim=1))
            over = batch.victim.is_over(batch.victim.outputs(state.current), state.labels)
            return over | (state.steps_done + 1 >= len(grid))

        batch.run(items, batch.start, step)


def transformed(images: Tensor, degrees: Tensor, right: Tensor, down: Tensor) -> Tensor:
    """Images (N, C, H, W) rotated about their centre by degrees (N,), then moved by pixels (N,).

    An image that is not moved at all comes back bit for bit.
    """
    height, width = images.shape[2:]
    cos, sin = (degrees * math.pi / 180).cos(), (degrees * math.pi / 180).sin()
    across, along = 2 * right / width, 2 * down / height
    # From places in the result to places in the original: undo the move, then the rotation.
    first = torch.stack([cos, sin * height / width, -cos * across - sin * height / width * along], dim=1)
    second = torch.stack([-sin * width / height, cos, sin * width / height * across - cos * along], dim=1)
    field = F.affine_grid(torch.stack([first, second], dim=1), list(images.shape), align_corners=False)
    still = per_image((degrees == 0) & (right == 0) & (down == 0), images)
    return torch.where(still, images, F.grid_sample(images, field, align_corners=False).clamp(0, 1))
