"""Square: random search with squares that shrink, from scores alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..registry import GauntletError, attack
from .budget import BudgetAttack, Tries, Work
from .draws import Draws
from .losses import margin
from .norms import per_image
from .square_l2 import moved, tiles
from .steps import within
from .windows import corners, signs, window

#: The share of the image that a square covers is halved at each of these shares of the queries.
_HALVINGS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)


@dataclass
class Squares(Tries):
    """``loss`` (M,) is that of the current image."""

    loss: Tensor


@attack(
    "square",
    norm="linf",
    norms=("linf", "l2"),
    kind="fixed",
    access="score",
    cost="full",
    tags=("native", "black-box"),
    reference="Andriushchenko et al. 2020, arXiv 1912.00049",
)
class Square(BudgetAttack):
    """Square attack: keep a random square of pixels at the ball's surface whenever it lowers the margin.

    Andriushchenko, Croce, Flammarion, Hein 2020, arXiv 1912.00049. No gradients; the schedule of sizes is stretched
    over the queries. Every image draws its own squares, and leaves as soon as it is fooled; the model is not
    asked about a square that changes nothing.

    Args:
        norm: ``linf`` or ``l2``.
        queries: Most queries for an image.
        initial_share: Share of the image that the first squares cover.
        restarts: Searches to try on an image that resists.
    """

    def __init__(
        self,
        norm: Literal["linf", "l2"] = "linf",
        queries: int = 5000,
        initial_share: float = 0.8,
        restarts: int = 1,
    ) -> None:
        if queries < 1 or restarts < 1:
            raise GauntletError(f"square needs queries >= 1 and restarts >= 1, got {queries} and {restarts}.")
        if not 0 < initial_share <= 1:
            raise GauntletError(f"square needs 0 < initial_share <= 1, got {initial_share}.")
        self.norm, self.queries, self.initial_share, self.restarts = norm, queries, initial_share, restarts

    def pursue(self, work: Work, items: Tensor) -> None:
        """Search from every start; after each, go on with the items that resist."""
        height, width = work.images.shape[2:]
        sides = self._sides(height, width).to(items.device)
        for restart in range(self.restarts):
            work.search(
                work.resisting(items),
                load=lambda some: self._load(work, some),
                step=lambda rows, restart=restart: self._step(work, rows, sides, restart),  # type: ignore[misc]
                forwards=0,
            )

    def _load(self, work: Work, items: Tensor) -> Squares:
        fields = work.start(items)
        return Squares(**fields, loss=torch.full_like(fields["radius"], -torch.inf))

    def _step(self, work: Work, rows: Squares, sides: Tensor, restart: int) -> Tensor:
        candidate = self._propose(work, rows, sides[rows.taken], restart)
        # A small square often falls where it changes nothing: the answer is known.
        new = (candidate != rows.current).flatten(1).any(dim=1) | (rows.taken == 0)
        fooled = torch.zeros_like(new)
        if new.any():
            outputs, labels = work.victim.outputs(candidate[new]), rows.labels[new]
            work.spend(rows.item[new], 1)
            fooled[new] = work.victim.judge(outputs, labels)
            loss = rows.loss.masked_fill(new, -torch.inf).masked_scatter(new, margin(outputs, labels))
            better = new & ((loss > rows.loss) | fooled)
            rows.current = torch.where(per_image(better, candidate), candidate, rows.current)
            rows.loss = torch.where(better, loss, rows.loss)
        return fooled | (rows.taken + 1 >= self.queries)

    def _propose(self, work: Work, rows: Squares, side: Tensor, restart: int) -> Tensor:
        """Stripes or tiles at first, then one square more."""
        draws, shape = work.draws(rows.item), rows.clean.shape[1:]
        first = per_image(rows.taken == 0, rows.clean)
        if self.norm == "l2":
            offset = moved(rows.current - rows.clean, rows.radius, side, draws, rows.taken, restart)
            if bool(first.any()):
                offset = torch.where(first, tiles(draws, shape, restart), offset)
            size = offset.flatten(1).norm(dim=1).clamp_min(1e-12)
            return within(rows.clean + per_image(rows.radius / size, offset) * offset, rows.clean, "l2", rows.radius)
        inside, sign = self._square(rows, side, draws, restart)
        jump = 2 * per_image(rows.radius, rows.clean) * sign * inside
        if bool(first.any()):
            stripes = signs(draws.uniform((shape[0], 1, shape[2]), purpose="stripes", restart=restart))
            jump = torch.where(first, per_image(rows.radius, rows.clean) * stripes, jump)
        return within(rows.current + jump, rows.clean, "linf", rows.radius)

    def _square(self, rows: Squares, side: Tensor, draws: Draws, restart: int) -> tuple[Tensor, Tensor]:
        """One square for each row: where it is (M, 1, H, W), and its sign in each channel (M, C, 1, 1)."""
        channels, height, width = rows.clean.shape[1:]
        numbers = draws.uniform((2 + channels,), purpose="square", step=rows.taken, restart=restart)
        inside = window(corners(numbers[:, :2], side, height, width), side, height, width)
        return inside, signs(numbers[:, 2:])[:, :, None, None]

    def _sides(self, height: int, width: int) -> Tensor:
        """Side of the square at each query (queries,); in L2 an odd one, at least 3."""
        done = (torch.arange(self.queries, dtype=torch.float64) - 1) / self.queries
        halvings = (done[:, None] > torch.tensor(_HALVINGS, dtype=torch.float64)).sum(dim=1)
        side = (self.initial_share * height * width * 0.5**halvings).sqrt().round().long()
        if self.norm == "l2":
            side = side.clamp_min(3) // 2 * 2 + 1
        return side.clamp(1, min(height, width))
