"""Attacks that look for the nearest adversarial image, once for all epsilons."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..datasets.per_image_rng import PerImageRNG
from .base import Attack, AttackResult, Kind, sanitized, verified
from .budget import SearchState, run_active_set
from .norms import into_ball, per_image, perturbation_norms
from .victim import Victim, not_numbers


class MinimumNormAttack(Attack):
    """An attack that looks for the nearest adversarial image; a subclass writes :meth:`find_nearest`."""

    kind: Kind = "minimum-norm"

    @abstractmethod
    def find_nearest(self, victim: Victim, images: Tensor, labels: Tensor, rng: PerImageRNG) -> Tensor:
        """The nearest adversarial images found (N, C, H, W).

        An image for which none was found may come back as anything of its shape: a prediction is made on each.
        """

    def attack(
        self, victim: Victim, images: Tensor, labels: Tensor, epsilons: Sequence[float], rng: PerImageRNG
    ) -> Iterable[AttackResult]:
        """Search once, then shrink what was found into each ball and predict again."""
        forwards, backwards = victim.forwards, victim.backwards
        nearest = sanitized(self.find_nearest(victim, images, labels, rng), images)
        fooled = victim.fooled(nearest, labels)
        norms = perturbation_norms(nearest, images, self.norm)
        smallest = torch.where(fooled, norms, math.inf)
        forwards, backwards = victim.forwards - forwards, victim.backwards - backwards
        # Every epsilon counts the whole search: with another list of epsilons its cost would be the same.
        for epsilon in epsilons:
            before = victim.forwards
            adversarial = into_ball(nearest, images, self.norm, epsilon)
            result = verified(victim, images, labels, adversarial, self.norm, epsilon)
            total = forwards + victim.forwards - before
            yield replace(result, forwards=total, backwards=backwards, smallest=smallest)


@dataclass
class MinimumNormSearch(SearchState):
    """Searches for the nearest adversarial image.

    Attributes:
        best: The nearest adversarial image so far (M, C, H, W); the original where there is none.
        best_size: The size of that perturbation (M,), infinite where there is none.
    """

    best: Tensor
    best_size: Tensor

    def keep_nearest(self, fooled: Tensor, norm: str, outputs: Tensor) -> Tensor:
        """Remember the current images where they fool and are nearer than the best so far.

        Args:
            fooled: Where they do (M,).
            norm: In which they are measured.
            outputs: What the victim said of them (M, classes).

        Returns:
            Which searches are over (M,) because the outputs became NaN before anything fooled: that image is their
            best, and they are neither robust nor fooled.
        """
        size = perturbation_norms(self.current, self.clean, norm)
        nearer = fooled & (size < self.best_size)
        self.best = torch.where(per_image(nearer, self.best), self.current, self.best)
        self.best_size = torch.where(nearer, size, self.best_size)
        over = not_numbers(outputs) & self.best_size.isinf()
        self.best = torch.where(per_image(over, self.best), self.current, self.best)
        return over


class IterativeMinimumNormAttack(MinimumNormAttack):
    """A minimum-norm attack that searches step by step; a subclass writes :meth:`start` and :meth:`step`."""

    @abstractmethod
    def start(self, victim: Victim, fields: dict[str, Any]) -> Any:
        """The state of some searches, from the fields of :class:`MinimumNormSearch`."""

    @abstractmethod
    def step(self, victim: Victim, state: Any, rng: PerImageRNG) -> Tensor:
        """Advance the searches in place by one step; returns which are done (M,), with their ``best`` image set.

        Args:
            victim: Under attack.
            state: What :meth:`start` made.
            rng: The random numbers of all images of the run; ``rng.select(state.item)`` are those of the searches.
        """

    def find_nearest(self, victim: Victim, images: Tensor, labels: Tensor, rng: PerImageRNG) -> Tensor:
        """One search for each image."""
        best = torch.empty_like(images)

        def finish(state: MinimumNormSearch) -> None:
            best[state.item] = state.best

        run_active_set(
            torch.arange(len(images), device=images.device),
            capacity=victim.batch_size,
            start=lambda items: self.start(victim, initial_fields(images[items], labels[items], items)),
            step=lambda state: self.step(victim, state, rng),
            finish=finish,
        )
        return best


def initial_fields(clean: Tensor, labels: Tensor, items: Tensor) -> dict[str, Any]:
    """The fields of :class:`MinimumNormSearch` for M searches that start at their images ``clean`` (M, C, H, W)."""
    return {
        "item": items,
        "steps_done": torch.zeros_like(items),
        "clean": clean,
        "current": clean.clone(),
        "labels": labels,
        "best": clean.clone(),
        "best_size": torch.full((len(items),), torch.inf, dtype=clean.dtype, device=clean.device),
    }
