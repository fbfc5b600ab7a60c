"""Square: random search with squares that shrink, from scores alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..registry import GauntletError, attack
from .budget import BudgetAttack, Tries, Work
from .losses import margin
from .norms import per_image
from .square_l2 import moved, tiles
from .steps import within
from .windows import corners, signs

#: The share of the image that a square covers is halved at each of these shares of the queries.
_HALVINGS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)


#: Squares whose places are drawn at once.
_AHEAD = 64


@dataclass
class Squares(Tries):
    """State of the search.

    Attributes:
        loss: That of the current image (M,).
        low: The darkest image of the Linf ball (M, C, H W).
        high: The brightest.
        corner: Upper left corners (M, 64) of the squares of this step and the next, as positions in the image.
        bright: Whether they go to the brightest image in each channel (M, 64, C), rather than to the darkest.
    """

    loss: Tensor
    low: Tensor
    high: Tensor
    corner: Tensor
    bright: Tensor


@dataclass(frozen=True)
class Proposal:
    """New values (M, C, K) at some places (M, K) of each image; ``new`` tells where they change anything (M,)."""

    places: Tensor
    values: Tensor
    new: Tensor

    def put(self, images: Tensor, chosen: Tensor) -> Tensor:
        """Put the values of the chosen rows into as many images (N, C, H, W), in place."""
        flat = images.flatten(2)
        flat.scatter_(2, self.places[chosen][:, None].expand(-1, images.shape[1], -1), self.values[chosen])
        return images


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
                load=lambda some, restart=restart: self._load(work, some, restart),  # type: ignore[misc]
                step=lambda rows, restart=restart: self._step(work, rows, sides, restart),  # type: ignore[misc]
                forwards=0,
            )

    def _load(self, work: Work, items: Tensor, restart: int) -> Squares:
        """At an image of stripes in Linf, of tiles in L2, which the first query asks about."""
        tries, draws = Tries(**work.start(items)), work.draws(items)
        shape, radius = tries.clean.shape[1:], per_image(tries.radius, tries.clean)
        if self.norm == "linf":
            start = signs(draws.uniform((shape[0], 1, shape[2]), purpose="stripes", restart=restart))
        else:
            start = tiles(draws, shape, restart)
            start = start / per_image(start.flatten(1).norm(dim=1).clamp_min(1e-12), start)
        tries.current = within(tries.clean + radius * start, tries.clean, self.norm, tries.radius)
        return Squares(
            **vars(tries),
            loss=torch.full_like(tries.radius, -torch.inf),
            low=(tries.clean - radius).clamp(0, 1).flatten(2),
            high=(tries.clean + radius).clamp(0, 1).flatten(2),
            corner=items.new_zeros(len(items), _AHEAD),
            bright=torch.zeros(len(items), _AHEAD, shape[0], dtype=torch.bool, device=items.device),
        )

    def _step(self, work: Work, rows: Squares, sides: Tensor, restart: int) -> Tensor:
        made = (self._square if self.norm == "linf" else self._bumps)(work, rows, sides, restart)
        # A small square often falls where it changes nothing: the answer is known.
        asked = made.new.nonzero().squeeze(1)
        fooled = torch.zeros_like(made.new)
        if len(asked):
            outputs, labels = work.victim.outputs(made.put(rows.current[asked], asked)), rows.labels[asked]
            work.spend(rows.item[asked], 1)
            through, loss = work.victim.judge(outputs, labels), margin(outputs, labels)
            better = (through | (loss > rows.loss[asked])).nonzero().squeeze(1)
            kept = asked[better]
            rows.current[kept] = made.put(rows.current[kept], kept)
            rows.loss[kept] = loss[better]
            fooled[asked] = through
        return fooled | (rows.taken + 1 >= self.queries)

    def _square(self, work: Work, rows: Squares, sides: Tensor, restart: int) -> Proposal:
        """One square more, to the surface of the Linf ball."""
        place = rows.taken % _AHEAD
        if not bool(place.all()):
            self._draw(work, rows, sides, restart)
        width, side = rows.clean.shape[3], sides[rows.taken]
        # Smaller squares than the largest of this step come to their last row and column again.
        within_square = torch.arange(int(side.max()), device=side.device).minimum(side[:, None] - 1)
        corner = rows.corner.gather(1, place[:, None])
        places = (corner[:, :, None] + width * within_square[:, :, None] + within_square[:, None]).flatten(1)
        bright = rows.bright[torch.arange(len(place), device=place.device), place, :, None]
        spread = places[:, None].expand(-1, bright.shape[1], -1)
        values = torch.where(bright, rows.high.gather(2, spread), rows.low.gather(2, spread))
        now = rows.current.flatten(2).gather(2, spread)
        first = rows.taken == 0
        values = torch.where(first[:, None, None], now, values)
        return Proposal(places, values, (values != now).flatten(1).any(dim=1) | first)

    def _draw(self, work: Work, rows: Squares, sides: Tensor, restart: int) -> None:
        """The next squares of those rows that have none left."""
        height, width = rows.clean.shape[2:]
        due = (rows.taken % _AHEAD == 0).nonzero().squeeze(1)
        steps = (rows.taken[due, None] + torch.arange(_AHEAD, device=due.device)).flatten()
        draws = work.draws(rows.item[due].repeat_interleave(_AHEAD))
        numbers = draws.uniform((2 + rows.clean.shape[1],), purpose="square", step=steps, restart=restart)
        side = sides[steps.clamp_max(self.queries - 1)]
        down, along = corners(numbers[:, :2], side, height, width).unbind(dim=1)
        rows.corner[due] = (down * width + along).view(-1, _AHEAD)
        rows.bright[due] = (numbers[:, 2:] >= 0.5).view(len(due), _AHEAD, -1)

    def _bumps(self, work: Work, rows: Squares, sides: Tensor, restart: int) -> Proposal:
        """One window erased and another filled, on the surface of the L2 ball."""
        first = rows.taken == 0
        offset, draws = rows.current - rows.clean, work.draws(rows.item)
        offset = moved(offset, rows.radius, sides[rows.taken], draws, rows.taken, restart)
        size = offset.flatten(1).norm(dim=1).clamp_min(1e-12)
        candidate = rows.clean + per_image(rows.radius / size, offset) * offset
        candidate = within(candidate, rows.clean, "l2", rows.radius)
        candidate = torch.where(per_image(first, candidate), rows.current, candidate).flatten(2)
        places = torch.arange(candidate.shape[2], device=first.device).expand(len(rows), -1)
        changed = (candidate != rows.current.flatten(2)).flatten(1).any(dim=1)
        return Proposal(places, candidate, changed | first)

    def _sides(self, height: int, width: int) -> Tensor:
        """Side of the square at each query (queries,); in L2 an odd one, at least 3."""
        done = (torch.arange(self.queries, dtype=torch.float64) - 1) / self.queries
        halvings = (done[:, None] > torch.tensor(_HALVINGS, dtype=torch.float64)).sum(dim=1)
        side = (self.initial_share * height * width * 0.5**halvings).sqrt().round().long()
        if self.norm == "l2":
            side = side.clamp_min(3) // 2 * 2 + 1
        return side.clamp(1, min(height, width))
