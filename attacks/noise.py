"""Noise of a fixed size: what any attack has to beat."""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from torch import Tensor

from ..datasets.per_image_rng import PerImageRNG
from ..registry import GauntletError
from .budget import BudgetAttack, BudgetSearch, SearchBatch
from .native import native
from .norms import lengths, per_image

_RAUBER = "Rauber, Bethge 2020, arXiv 2007.07677"


class Noise(BudgetAttack):
    """Random noise, scaled to the budget; a subclass draws it.

    Args:
        norm: ``linf`` or ``l2``.
        repeats: Draws to try; an image leaves at the first that fools.
        clipping_aware: In L2, scale the noise so that it has the size of the budget after clipping to [0, 1] rather
            than before.

    Raises:
        GauntletError: A parameter is out of range.
    """

    def __init__(self, norm: str, repeats: int, clipping_aware: bool) -> None:
        if repeats < 1:
            raise GauntletError(f"Noise needs repeats >= 1, got {repeats}.")
        if clipping_aware and norm != "l2":
            raise GauntletError(f"Noise knows clipping_aware in l2 only, got norm {norm!r}.")
        self.norm, self.repeats, self.clipping_aware = norm, repeats, clipping_aware

    def draw(self, rng: PerImageRNG, shape: torch.Size, step: Tensor) -> Tensor:
        """Noise (N, *shape) of any size, or in Linf within [-1, 1]; ``step`` is the number of the draw (N,)."""
        raise NotImplementedError

    def search(self, batch: SearchBatch, items: Tensor) -> None:
        """Try one draw after the other."""
        batch.run(items, batch.start, partial(self._step, batch), forwards=0)

    def _step(self, batch: SearchBatch, state: BudgetSearch) -> Tensor:
        noise = self._noise(batch, state)
        size = state.radius
        if self.norm == "l2":
            size = clipped_scale(noise, state.clean, size) if self.clipping_aware else size / lengths(noise)
        state.current = (state.clean + per_image(size, noise) * noise).clamp(0, 1)
        done = state.steps_done + 1 >= self.repeats
        more = ~done  # the last draw is judged when the search has ended
        if more.any():
            batch.count_queries(state.item[more], 1)
            done[more] = batch.victim.is_over(batch.victim.outputs(state.current[more]), state.labels[more])
        return done

    def _noise(self, batch: SearchBatch, state: BudgetSearch) -> Tensor:
        """Noise (M, C, H, W) of the draws that are due; the epsilons of an image share each draw."""
        count = len(batch.images)
        draw, place = (state.steps_done * count + state.item % count).unique(return_inverse=True)
        return self.draw(batch.rng(draw % count), state.clean.shape[1:], draw // count)[place]


def clipped_scale(noise: Tensor, clean: Tensor, radius: Tensor) -> Tensor:
    """The factor (N,) at which noise has L2 norm ``radius`` (N,) after clipping (Rauber, Bethge 2020).

    Where the box is too small for that, the factor at which every pixel meets it.
    """
    speed = noise.flatten(1).double().abs()
    room = torch.where(noise > 0, 1 - clean, clean).flatten(1).double()
    full, order = (room / speed.clamp_min(1e-30)).sort(dim=1)  # the factor at which a pixel meets the box
    stopped = room.square().gather(1, order).cumsum(dim=1)
    squares = speed.square().gather(1, order)
    moving = (squares.flip(1).cumsum(dim=1).flip(1) - squares).clamp_min(0)
    bend = (stopped + full.square() * moving < radius.double().square()[:, None]).sum(dim=1, keepdim=True)
    before = (bend - 1).clamp_min(0)
    start = torch.where(bend > 0, stopped.gather(1, before), 0.0)
    rest = torch.where(bend > 0, moving.gather(1, before), squares.sum(dim=1, keepdim=True))
    scale = ((radius.double().square()[:, None] - start).clamp_min(0) / rest.clamp_min(1e-30)).sqrt()
    most = full[:, -1:]
    return torch.where(bend < speed.shape[1], scale, most).squeeze(1).to(noise.dtype)


@native("gaussian-noise", "l2", reference=_RAUBER, access="none", loss="any", tags=("noise",))
class GaussianNoise(Noise):
    """Gaussian noise of L2 size epsilon.

    Rauber, Bethge 2020, arXiv 2007.07677.

    Args:
        repeats: Draws to try; an image leaves at the first that fools.
        clipping_aware: Scale the noise so that it has size epsilon after clipping to [0, 1] rather than before.
    """

    def __init__(self, repeats: int = 1, clipping_aware: bool = False) -> None:
        super().__init__("l2", repeats, clipping_aware)

    def draw(self, rng: PerImageRNG, shape: torch.Size, step: Tensor) -> Tensor:
        """Standard normal (N, *shape)."""
        return rng.normal(shape, purpose="noise", step=step)


@native("uniform-noise", "linf", "l2", reference=_RAUBER, access="none", loss="any", tags=("noise",))
class UniformNoise(Noise):
    """Uniform noise of size epsilon.

    Rauber, Bethge 2020, arXiv 2007.07677.

    Args:
        norm: ``linf`` (each pixel uniform in [-epsilon, epsilon]) or ``l2`` (scaled to that size).
        repeats: Draws to try; an image leaves at the first that fools.
        clipping_aware: In L2, scale the noise so that it has size epsilon after clipping to [0, 1] rather than before.
    """

    def __init__(self, norm: Literal["linf", "l2"] = "linf", repeats: int = 1, clipping_aware: bool = False) -> None:
        super().__init__(norm, repeats, clipping_aware)

    def draw(self, rng: PerImageRNG, shape: torch.Size, step: Tensor) -> Tensor:
        """Uniform in [-1, 1] (N, *shape)."""
        return 2 * rng.uniform(shape, purpose="noise", step=step) - 1
