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
    over the queries. Every image draws its own squares, and leaves as soon as it is fooled.

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
        for restart in range(self.restarts):
            work.search(
                work.resisting(items),
                load=lambda some, restart=restart: self._load(work, some, restart),  # type: ignore[misc]
                step=lambda rows, restart=restart: self._step(work, rows, restart),  # type: ignore[misc]
            )

    def _load(self, work: Work, items: Tensor, restart: int) -> Squares:
        fields = work.start(items)
        return Squares(**fields, loss=torch.full_like(fields["radius"], -torch.inf))

    def _step(self, work: Work, rows: Squares, restart: int) -> Tensor:
        candidate = self._propose(work, rows, restart)
        outputs = work.victim.outputs(candidate)
        loss, fooled = margin(outputs, rows.labels), work.victim.judge(outputs, rows.labels)
        better = (loss > rows.loss) | fooled
        rows.current = torch.where(per_image(better, candidate), candidate, rows.current)
        rows.loss = torch.where(better, loss, rows.loss)
        return fooled | (rows.taken + 1 >= self.queries)

    def _propose(self, work: Work, rows: Squares, restart: int) -> Tensor:
        """Stripes or tiles at first, then one square more."""
        draws, shape = work.draws(rows.item), rows.clean.shape[1:]
        first = per_image(rows.taken == 0, rows.clean)
        if self.norm == "l2":
            offset = moved(
                rows.current - rows.clean, rows.radius, self._sides(rows, odd=True), draws, rows.taken, restart
            )
            if bool(first.any()):
                offset = torch.where(first, tiles(draws, shape, restart), offset)
            size = offset.flatten(1).norm(dim=1).clamp_min(1e-12)
            return within(rows.clean + per_image(rows.radius / size, offset) * offset, rows.clean, "l2", rows.radius)
        inside, sign = self._square(rows, draws, restart)
        jump = 2 * per_image(rows.radius, rows.clean) * sign * inside
        if bool(first.any()):
            stripes = signs(draws.uniform((shape[0], 1, shape[2]), purpose="stripes", restart=restart))
            jump = torch.where(first, per_image(rows.radius, rows.clean) * stripes, jump)
        return within(rows.current + jump, rows.clean, "linf", rows.radius)

    def _square(self, rows: Squares, draws: Draws, restart: int) -> tuple[Tensor, Tensor]:
        """One square for each row: where it is (M, 1, H, W), and its sign in each channel (M, C, 1, 1)."""
        channels, height, width = rows.clean.shape[1:]
        numbers = draws.uniform((2 + channels,), purpose="square", step=rows.taken, restart=restart)
        side = self._sides(rows)
        inside = window(corners(numbers[:, :2], side, height, width), side, height, width)
        return inside, signs(numbers[:, 2:])[:, :, None, None]

    def _sides(self, rows: Squares, *, odd: bool = False) -> Tensor:
        """Side (M,) of the square at each row's query; in L2 an odd one, at least 3."""
        height, width = rows.clean.shape[2:]
        ends = torch.tensor(_HALVINGS, device=rows.taken.device)
        halvings = (((rows.taken - 1) / self.queries)[:, None] > ends).sum(dim=1)
        side = (self.initial_share * height * width * 0.5**halvings).sqrt().round().long()
        if odd:
            side = side.clamp_min(3) // 2 * 2 + 1
        return side.clamp(1, min(height, width))
