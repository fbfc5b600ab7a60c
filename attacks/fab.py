"""FAB: steps to the linearised boundary that stay near the original image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from ..datasets.per_image_rng import PerImageRNG
from ..registry import GauntletError
from .apgd import wrong_classes
from .budget import SearchBatch
from .hyperplane import project_onto_hyperplane
from .minimum_norm import IterativeMinimumNormAttack, MinimumNormSearch, initial_fields
from .native import native
from .norms import per_image
from .steps import within
from .victim import Victim

_OVERSHOOT = 1.05
_MOST_BIAS = 0.1  # largest weight of the original image in a step
_RETREAT = 0.9  # share of the way that is kept after crossing the boundary
_SIZES = {"linf": torch.inf, "l2": 2, "l1": 1}


@dataclass
class FABState(MinimumNormSearch):
    """State of FAB.

    Attributes:
        targets: The classes it goes for in turn (M, targets).
        radius: A perturbation of this size suffices, and ends the search (M,); 0 where the nearest is looked for.
    """

    targets: Tensor
    radius: Tensor


@native(
    "fab-t", "linf", "l2", "l1", reference="Croce, Hein 2020, arXiv 1907.02044", kind="minimum-norm", cost="standard"
)
class FABT(IterativeMinimumNormAttack):
    """Fast adaptive boundary attack towards each of the likeliest wrong classes in turn.

    Croce, Hein 2020, arXiv 1907.02044 (targeted as in arXiv 2003.01690). Each step projects image and original onto
    the linearised boundary, goes to a mixture of the two, and retreats once it is across.

    Args:
        norm: ``linf``, ``l2`` or ``l1``: the size that is made small.
        steps: Steps for each target and restart.
        targets: Classes to aim at, likeliest first; at most all wrong ones.
        restarts: Walks for each target; those after the first start at a random point near the image.

    Raises:
        GauntletError: A parameter is out of range.
    """

    def __init__(
        self, norm: Literal["linf", "l2", "l1"] = "linf", steps: int = 100, targets: int = 9, restarts: int = 1
    ) -> None:
        if min(steps, targets, restarts) < 1:
            raise GauntletError(f"fab-t needs steps, targets, restarts >= 1, got {steps}, {targets} and {restarts}.")
        self.norm, self.steps, self.most_targets, self.restarts = norm, steps, targets, restarts

    def start(self, victim: Victim, fields: dict[str, Any]) -> FABState:
        """At the originals, with the likeliest wrong classes as targets."""
        classes = wrong_classes(victim.outputs(fields["clean"]), fields["labels"])[:, : self.most_targets]
        return FABState(**fields, targets=classes, radius=torch.zeros_like(fields["best_size"]))

    def step(self, victim: Victim, state: FABState, rng: PerImageRNG) -> Tensor:
        """One step towards a target, and back towards the original where the image fools."""
        trial = state.steps_done // self.steps
        self._restart(state, trial, rng)
        target = state.targets.gather(1, (trial % state.targets.shape[1])[:, None]).squeeze(1)
        pair = torch.stack([state.labels, target], dim=1)
        gradient, outputs = victim.gradient(state.current, pair, _target_margin)
        state.current = self._advance(state, gradient, _target_margin(outputs, pair))
        outputs = victim.outputs(state.current)
        fooled = victim.is_fooled(outputs, state.labels)
        over = state.keep_nearest(fooled, self.norm, outputs)
        # Across the boundary, the way back is where a nearer image may be.
        retreat = state.clean + _RETREAT * (state.current - state.clean)
        state.current = torch.where(per_image(fooled, retreat), retreat, state.current)
        last = state.steps_done + 1 >= self.steps * self.restarts * state.targets.shape[1]
        return over | last | (state.best_size <= state.radius)

    def search(self, batch: SearchBatch, items: Tensor) -> None:
        """As part of a cascade: searches that end as soon as they are inside the ball."""
        rng = batch.rng(batch.items)

        def start(some: Tensor) -> FABState:
            at = batch.start(some)
            batch.count_queries(some, 1)
            return replace(self.start(batch.victim, initial_fields(at.clean, at.labels, some)), radius=at.radius)

        def step(state: FABState) -> Tensor:
            done = self.step(batch.victim, state, rng)
            # As on its own: the nearest image found, shrunk into the ball where it lies outside, may fool there too.
            inside = per_image(state.best_size <= state.radius, state.best)
            shrunk = within(state.best, state.clean, self.norm, state.radius)
            found = torch.where(inside, state.best, shrunk)
            state.current = torch.where(per_image(done, found), found, state.current)
            return done

        batch.run(batch.unsolved(items), start, step, forwards=2, backwards=1)

    def _restart(self, state: FABState, trial: Tensor, rng: PerImageRNG) -> None:
        """Put the searches that turn to another target back to their start."""
        fresh = (state.steps_done % self.steps == 0) & (state.steps_done > 0)
        if not fresh.any():
            return
        begin = state.clean
        again = trial >= state.targets.shape[1]
        if bool((fresh & again).any()):
            # Every target was tried from the original itself; further restarts begin near it, within half the best.
            noise = 2 * rng.select(state.item).uniform(state.clean.shape[1:], purpose="start", step=trial) - 1
            reach = torch.where(again, state.best_size.clamp_max(1.0) / 2, 0.0) / self._length(noise)
            begin = (state.clean + per_image(reach, noise) * noise).clamp(0, 1)
        state.current = torch.where(per_image(fresh, begin), begin, state.current)

    def _advance(self, state: FABState, gradient: Tensor, gap: Tensor) -> Tensor:
        """Project both image and original onto the plane where the gap closes, and mix the two."""
        gradient = gradient.nan_to_num(0)
        count = len(state)
        gain_here = -gap  # the linearised gap has to close, seen from the image now and from the original
        gain_there = gain_here + (gradient * (state.current - state.clean)).flatten(1).sum(dim=1)
        moves = project_onto_hyperplane(
            torch.cat([state.current, state.clean]),
            torch.cat([gradient, gradient]),
            torch.cat([gain_here, gain_there]).nan_to_num(0),
            self.norm,
        )
        here, there = moves[:count], moves[count:]
        size = self._length(moves).clamp_min(1e-8)
        bias = per_image((size[:count] / (size[:count] + size[count:])).clamp_max(_MOST_BIAS), here)
        mixed = (state.current + _OVERSHOOT * here) * (1 - bias) + (state.clean + _OVERSHOOT * there) * bias
        return mixed.clamp(0, 1)

    def _length(self, moves: Tensor) -> Tensor:
        return torch.linalg.vector_norm(moves.flatten(1), ord=_SIZES[self.norm], dim=1)


def _target_margin(outputs: Tensor, pair: Tensor) -> Tensor:
    """Logit of the target minus the label's (N,), for pairs (label, target) (N, 2)."""
    logits = outputs.gather(1, pair)
    return logits[:, 1] - logits[:, 0]
