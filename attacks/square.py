"""Square: random search with squares that shrink, from scores alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from ..registry import GauntletError
from .budget import BudgetAttack, BudgetSearch, SearchBatch
from .losses import margin
from .native import native
from .norms import per_image
from .square_l2 import initial_tiles, move_windows
from .square_patches import random_corners, random_signs
from .steps import within

#: The share of the image that a square covers is halved at each of these shares of the queries.
_HALVINGS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)


_ORDERS = {"l2": 2, "l1": 1}

#: Squares whose places are drawn at once: one call of the generator costs as much for many as for one.
_DRAWN = 64

#: Most squares that are tried on one image in a pass.
_MOST = 8


@dataclass
class SquareState(BudgetSearch):
    """State of the search.

    Attributes:
        loss: That of the current image (M,).
        low: The darkest image of the Linf ball (M, C, H W).
        high: The brightest.
        accepted: How many squares were kept (M,).
        drawn: The query (M,) of the first of the squares that are drawn.
        corner: Upper left corners (M, 64) of that square and the next, as positions in the image.
        bright: Whether they go to the brightest image in each channel (M, 64, C), rather than to the darkest.
    """

    loss: Tensor
    low: Tensor
    high: Tensor
    accepted: Tensor
    drawn: Tensor
    corner: Tensor
    bright: Tensor


@dataclass(frozen=True)
class SquareProposal:
    """New values (N, C, P) at some places (N, P) of an image each; ``new`` tells which change anything (N,)."""

    places: Tensor
    values: Tensor
    new: Tensor

    def put(self, images: Tensor, chosen: Tensor) -> Tensor:
        """Put the values of the chosen searches into as many images (N, C, H, W), in place."""
        flat = images.flatten(2)
        flat.scatter_(2, self.places[chosen][:, None].expand(-1, images.shape[1], -1), self.values[chosen])
        return images


@native(
    "square", "linf", "l2", "l1", reference="Andriushchenko et al. 2020, arXiv 1912.00049", access="score", cost="full"
)
class Square(BudgetAttack):
    """Square attack: keep a random square of pixels at the ball's surface whenever it lowers the margin.

    Andriushchenko, Croce, Flammarion, Hein 2020, arXiv 1912.00049; in L1, where the windows of L2 are measured in L1,
    after Croce, Hein 2021, arXiv 2103.01208. No gradients; the schedule of sizes is stretched
    over the queries. Every image draws its own squares, and leaves as soon as it is fooled; the model is not
    asked about a square that changes nothing.

    Where few images are in progress, one pass asks about the next squares of each, all put into its current image. The
    first good one is kept; the answers to those after it are void, and they are asked again. The images found are
    those of one square at a time (up to the rounding of the model's batches), and so are the ``queries`` counted; the
    forwards of a result are what the model was really asked, void answers included.

    Args:
        norm: ``linf``, ``l2`` or ``l1``.
        queries: Most queries for an image.
        initial_share: Share of the image that the first squares cover.
        restarts: Searches to try on an image that resists.

    Raises:
        GauntletError: A parameter is out of range.
    """

    def __init__(
        self,
        norm: Literal["linf", "l2", "l1"] = "linf",
        queries: int = 5000,
        initial_share: float = 0.8,
        restarts: int = 1,
    ) -> None:
        if queries < 1 or restarts < 1:
            raise GauntletError(f"square needs queries >= 1 and restarts >= 1, got {queries} and {restarts}.")
        if not 0 < initial_share <= 1:
            raise GauntletError(f"square needs 0 < initial_share <= 1, got {initial_share}.")
        self.norm, self.queries, self.initial_share, self.restarts = norm, queries, initial_share, restarts

    def search(self, batch: SearchBatch, items: Tensor) -> None:
        """Search from every start; after each, go on with the items that resist."""
        height, width = batch.images.shape[2:]
        sides = self._sides(height, width).to(items.device)
        for restart in range(self.restarts):
            start, step = partial(self._start, batch, restart), partial(self._step, batch, sides, restart)
            batch.run(batch.unsolved(items), start, step, forwards=0)

    def _start(self, batch: SearchBatch, restart: int, items: Tensor) -> SquareState:
        """Start items (M,) at images of stripes in Linf, of tiles in L2, which the first query asks about."""
        state, rng = batch.start(items), batch.rng(items)
        shape, radius = state.clean.shape[1:], per_image(state.radius, state.clean)
        if self.norm == "linf":
            start = random_signs(rng.uniform((shape[0], 1, shape[2]), purpose="stripes", restart=restart))
        else:
            start = initial_tiles(rng, shape, restart)
            start = start / per_image(self._size(start), start)
        state.current = within(state.clean + radius * start, state.clean, self.norm, state.radius)
        return SquareState(
            **vars(state),
            loss=torch.full_like(state.radius, -torch.inf),
            low=(state.clean - radius).clamp(0, 1).flatten(2),
            high=(state.clean + radius).clamp(0, 1).flatten(2),
            accepted=torch.zeros_like(items),
            drawn=torch.full_like(items, -_DRAWN),
            corner=items.new_zeros(len(items), _DRAWN),
            bright=torch.zeros(len(items), _DRAWN, shape[0], dtype=torch.bool, device=items.device),
        )

    def _step(self, batch: SearchBatch, sides: Tensor, restart: int, state: SquareState) -> Tensor:
        """Try the next squares of every search on its current image, and go on from the first good one."""
        tried = self._count_ahead(state, batch.victim.batch_size)
        row = torch.arange(len(state), device=tried.device).repeat_interleave(tried)
        turn = torch.arange(len(row), device=row.device) - (tried.cumsum(0) - tried)[row]
        step = state.steps_done[row] + turn
        made = (self._squares if self.norm == "linf" else self._bumps)(batch, state, row, step, sides, restart)
        done = torch.zeros(len(state), dtype=torch.bool, device=row.device)
        # A small square often falls where it changes nothing: the answer is known.
        asked = made.new.nonzero().squeeze(1)
        if len(asked):
            source = row[asked]
            outputs, labels = batch.victim.outputs(made.put(state.current[source], asked)), state.labels[source]
            batch.count_queries(state.item, source.bincount(minlength=len(state)))
            over, loss = batch.victim.is_over(outputs, labels), margin(outputs, labels)
            better = _first(source, over | (loss > state.loss[source]))
            kept, chosen = source[better], asked[better]
            state.current[kept] = made.put(state.current[kept], chosen)
            state.loss[kept] = loss[better]
            state.accepted[kept] += 1
            done[kept] = over[better]
            tried[kept] = turn[chosen] + 1
        state.steps_done += tried - 1  # run_active_set adds the last one
        return done | (state.steps_done + 1 >= self.queries)

    def _count_ahead(self, state: SquareState, room: int) -> Tensor:
        """Squares to try on each image (M,): half as many as it took for one to be kept: few are void."""
        most = min(max(room // len(state), 1), _MOST)
        # An answer after the first good square is void, so that looking far ahead would waste queries.
        half = state.steps_done // (2 * state.accepted.clamp_min(1))
        return half.clamp(1, most).minimum(self.queries - state.steps_done)

    def _squares(
        self, batch: SearchBatch, state: SquareState, row: Tensor, step: Tensor, sides: Tensor, restart: int
    ) -> SquareProposal:
        """One square more on the current images of some searches (N,), to the surface of the Linf ball."""
        if bool((step >= state.drawn[row] + _DRAWN).any()):
            self._draw(batch, state, sides, restart)
        channels, height, width = state.clean.shape[1:]
        side, place = sides[step], step - state.drawn[row]
        # Smaller squares than the largest of this step come to their last row and column again.
        within_square = torch.arange(int(side.max()), device=side.device).minimum(side[:, None] - 1)
        corner = state.corner[row, place]
        places = (corner[:, None, None] + width * within_square[:, :, None] + within_square[:, None]).flatten(1)
        # Positions (N, C, P) in all images of all searches: their pixels are read without copies of the images.
        plane = row[:, None] * channels + torch.arange(channels, device=row.device)
        spread = plane[:, :, None] * (height * width) + places[:, None]
        bright = state.bright[row, place, :, None]
        values, now = torch.where(bright, state.high.take(spread), state.low.take(spread)), state.current.take(spread)
        first = step == 0
        values = torch.where(first[:, None, None], now, values)
        return SquareProposal(places, values, (values != now).flatten(1).any(dim=1) | first)

    def _draw(self, batch: SearchBatch, state: SquareState, sides: Tensor, restart: int) -> None:
        """Draw the next squares of those searches that have few left."""
        height, width = state.clean.shape[2:]
        due = (state.steps_done >= state.drawn + _DRAWN // 2).nonzero().squeeze(1)
        state.drawn[due] = state.steps_done[due]
        steps = (state.steps_done[due, None] + torch.arange(_DRAWN, device=due.device)).flatten()
        rng = batch.rng(state.item[due].repeat_interleave(_DRAWN))
        numbers = rng.uniform((2 + state.clean.shape[1],), purpose="square", step=steps, restart=restart)
        side = sides[steps.clamp_max(self.queries - 1)]
        down, along = random_corners(numbers[:, :2], side, height, width).unbind(dim=1)
        state.corner[due] = (down * width + along).view(-1, _DRAWN)
        state.bright[due] = (numbers[:, 2:] >= 0.5).view(len(due), _DRAWN, -1)

    def _bumps(
        self, batch: SearchBatch, state: SquareState, row: Tensor, step: Tensor, sides: Tensor, restart: int
    ) -> SquareProposal:
        """One window erased and another filled on the current images of some searches (N,), on the sphere."""
        clean, current, radius, first = state.clean[row], state.current[row], state.radius[row], step == 0
        draws, order = batch.rng(state.item[row]), _ORDERS[self.norm]
        offset = move_windows(current - clean, radius, sides[step], draws, step, restart, order)
        candidate = within(clean + per_image(radius / self._size(offset), offset) * offset, clean, self.norm, radius)
        candidate = torch.where(per_image(first, candidate), current, candidate).flatten(2)
        places = torch.arange(candidate.shape[2], device=first.device).expand(len(row), -1)
        changed = (candidate != current.flatten(2)).flatten(1).any(dim=1)
        return SquareProposal(places, candidate, changed | first)

    def _size(self, offset: Tensor) -> Tensor:
        """Size (N,) of perturbations in L2 or L1, above 0."""
        return torch.linalg.vector_norm(offset.flatten(1), ord=_ORDERS[self.norm], dim=1).clamp_min(1e-12)

    def _sides(self, height: int, width: int) -> Tensor:
        """Side of the square at each query (queries,); in L2 and L1 an odd one, at least 3."""
        done = (torch.arange(self.queries, dtype=torch.float64) - 1) / self.queries
        halvings = (done[:, None] > torch.tensor(_HALVINGS, dtype=torch.float64)).sum(dim=1)
        side = (self.initial_share * height * width * 0.5**halvings).sqrt().round().long()
        if self.norm != "linf":
            side = side.clamp_min(3) // 2 * 2 + 1
        return side.clamp(1, min(height, width))


def _first(group: Tensor, good: Tensor) -> Tensor:
    """Positions of the first good entry of each group that has one; ``group`` (N,) is in ascending order."""
    found = good.nonzero().squeeze(1)
    return found[group[found].diff(prepend=group.new_full((1,), -1)) > 0]
