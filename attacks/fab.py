"""FAB: steps to the linearised boundary that stay near the original image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..datasets.per_image_rng import PerImageRNG
from ..registry import GauntletError, attack
from .apgd import wrong_classes
from .base import MinimisationAttack
from .budget import Tries, Work
from .hyperplane import onto_hyperplane
from .minimum_norm import Search, nearest, start
from .norms import per_image, project
from .victim import Victim

_OVERSHOOT = 1.05
_MOST_BIAS = 0.1  # largest weight of the original image in a step
_RETREAT = 0.9  # share of the way that is kept after crossing the boundary
_SIZES = {"linf": torch.inf, "l2": 2, "l1": 1}


@dataclass
class _Walk(Search):
    """``targets`` are the classes it goes for (M, targets); ``radius`` is the size that suffices (M,)."""

    targets: Tensor
    radius: Tensor


@attack(
    "fab-t",
    norm="linf",
    norms=("linf", "l2", "l1"),
    kind="minimisation",
    access="gradient",
    cost="standard",
    tags=("native", "white-box"),
    reference="Croce, Hein 2020, arXiv 1907.02044",
)
class FABT(MinimisationAttack):
    """Fast adaptive boundary attack towards each of the likeliest wrong classes in turn.

    Croce, Hein 2020, arXiv 1907.02044 (targeted as in arXiv 2003.01690). Each step projects image and original onto
    the linearised boundary, goes to a mixture of the two, and retreats once it is across.

    Args:
        norm: ``linf``, ``l2`` or ``l1``: the size that is made small.
        steps: Steps for each target and restart.
        targets: Classes to aim at, likeliest first; at most all wrong ones.
        restarts: Walks for each target; those after the first start at a random point near the image.
    """

    def __init__(
        self, norm: Literal["linf", "l2", "l1"] = "linf", steps: int = 100, targets: int = 9, restarts: int = 1
    ) -> None:
        if min(steps, targets, restarts) < 1:
            raise GauntletError(f"fab-t needs steps, targets, restarts >= 1, got {steps}, {targets} and {restarts}.")
        self.norm, self.steps, self.most_targets, self.restarts = norm, steps, targets, restarts

    def closest(
        self, victim: Victim, images: Tensor, labels: Tensor, epsilons: Sequence[float], rng: PerImageRNG
    ) -> Tensor:
        """One walk for each image, target after target."""

        def load(items: Tensor) -> _Walk:
            fields = start(images, labels, items)
            return self._load(victim, fields, torch.zeros_like(fields["size"]))

        return nearest(victim, images, load, lambda rows: self._step(victim, rows, rng.select(rows.item)))

    def pursue(self, work: Work, items: Tensor) -> None:
        """As part of a cascade: walks that end as soon as they are inside the ball."""

        def load(some: Tensor) -> _Walk:
            tries = Tries(**work.start(some))
            fields = start(tries.clean, tries.labels, torch.arange(len(some), device=some.device))
            work.spend(some, 1)
            return self._load(work.victim, {**fields, "item": some}, tries.radius)

        def step(rows: _Walk) -> Tensor:
            done = self._step(work.victim, rows, work.draws(rows.item))
            # As on its own: the nearest image found, shrunk into the ball where it lies outside, may fool there too.
            inside = per_image(rows.size <= rows.radius, rows.best)
            shrunk = rows.clean + project(rows.best - rows.clean, self.norm, rows.radius)
            found = torch.where(inside, rows.best, shrunk)
            rows.current = torch.where(per_image(done, found), found, rows.current)
            return done

        work.search(work.resisting(items), load=load, step=step, forwards=2, backwards=1)

    def _load(self, victim: Victim, fields: dict[str, Tensor], radius: Tensor) -> _Walk:
        classes = wrong_classes(victim.outputs(fields["clean"]), fields["labels"])[:, : self.most_targets]
        return _Walk(**fields, targets=classes, radius=radius)

    def _step(self, victim: Victim, rows: _Walk, draws: PerImageRNG) -> Tensor:
        trial = rows.taken // self.steps
        self._begin(rows, trial, draws)
        target = rows.targets.gather(1, (trial % rows.targets.shape[1])[:, None]).squeeze(1)
        gradient, outputs = victim.gradient(rows.current, torch.stack([rows.labels, target], dim=1), _towards)
        gap = _towards(outputs, torch.stack([rows.labels, target], dim=1))
        rows.current = self._advance(rows, gradient, gap)
        fooled = victim.fooled(rows.current, rows.labels)
        rows.note(fooled, self.norm)
        retreat = rows.clean + _RETREAT * (rows.current - rows.clean)
        rows.current = torch.where(per_image(fooled, retreat), retreat, rows.current)
        return (rows.taken + 1 >= self.steps * self.restarts * rows.targets.shape[1]) | (rows.size <= rows.radius)

    def _begin(self, rows: _Walk, trial: Tensor, draws: PerImageRNG) -> None:
        """Put rows that turn to another target back to the start."""
        fresh = (rows.taken % self.steps == 0) & (rows.taken > 0)
        if not fresh.any():
            return
        begin = rows.clean
        again = trial >= rows.targets.shape[1]
        if bool((fresh & again).any()):
            noise = 2 * draws.uniform(rows.clean.shape[1:], purpose="start", step=trial) - 1
            reach = torch.where(again, rows.size.clamp_max(1.0) / 2, 0.0) / self._length(noise)
            begin = (rows.clean + per_image(reach, noise) * noise).clamp(0, 1)
        rows.current = torch.where(per_image(fresh, begin), begin, rows.current)

    def _advance(self, rows: _Walk, gradient: Tensor, gap: Tensor) -> Tensor:
        """Project both image and original onto the plane where the gap closes, and mix the two."""
        gradient = gradient.nan_to_num(0)
        count = len(rows)
        gain_here = -gap
        gain_there = gain_here + (gradient * (rows.current - rows.clean)).flatten(1).sum(dim=1)
        moves = onto_hyperplane(
            torch.cat([rows.current, rows.clean]),
            torch.cat([gradient, gradient]),
            torch.cat([gain_here, gain_there]).nan_to_num(0),
            self.norm,
        )
        here, there = moves[:count], moves[count:]
        size = self._length(moves).clamp_min(1e-8)
        bias = per_image((size[:count] / (size[:count] + size[count:])).clamp_max(_MOST_BIAS), here)
        mixed = (rows.current + _OVERSHOOT * here) * (1 - bias) + (rows.clean + _OVERSHOOT * there) * bias
        return mixed.clamp(0, 1)

    def _length(self, moves: Tensor) -> Tensor:
        return torch.linalg.vector_norm(moves.flatten(1), ord=_SIZES[self.norm], dim=1)


def _towards(outputs: Tensor, pair: Tensor) -> Tensor:
    """Logit of the target minus the label's (N,), for pairs (label, target) (N, 2)."""
    logits = outputs.gather(1, pair)
    return logits[:, 1] - logits[:, 0]
