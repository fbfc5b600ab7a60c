"""Attacks that spend a budget: every (image, epsilon) pair is a search of its own, and all share batches."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..datasets.per_image_rng import PerImageRNG
from .active import Paths, drive
from .base import Attack, AttackResult, presentable
from .norms import perturbation_norms
from .victim import Victim


@dataclass
class Tries(Paths):
    """Searches inside a ball of ``radius`` (M,), the epsilon."""

    radius: Tensor


T = TypeVar("T", bound=Paths)


class BudgetAttack(Attack):
    """An attack on (image, epsilon) pairs; a subclass writes :meth:`pursue`."""

    def attack(
        self, victim: Victim, images: Tensor, labels: Tensor, epsilons: Sequence[float], rng: PerImageRNG
    ) -> Iterable[AttackResult]:
        """Pursue every image at every epsilon."""
        work = Work(victim, images, labels, epsilons, self.norm, rng)
        self.pursue(work, work.items)
        return work.results()

    @abstractmethod
    def pursue(self, work: Work, items: Tensor) -> None:
        """Attack some items (their numbers, (M,)) of ``work``, which keeps what is found."""


class Work:
    """The items of one run and the best image found for each; item ``k * N + i`` is image i at epsilon k.

    Args:
        victim: Under attack, entered.
        images: Images (N, C, H, W).
        labels: Their labels (N,).
        epsilons: The budgets.
        norm: In which they are measured.
        rng: The draws of the images.
    """

    def __init__(
        self, victim: Victim, images: Tensor, labels: Tensor, epsilons: Sequence[float], norm: str, rng: PerImageRNG
    ) -> None:
        self.victim, self.images, self.labels = victim, images, labels
        self.epsilons, self.norm, self._rng = epsilons, norm, rng
        self.radii = torch.tensor(epsilons, dtype=images.dtype, device=images.device)
        self.items = torch.arange(len(images) * len(epsilons), device=images.device)
        self.adversarial = images.repeat(len(epsilons), 1, 1, 1)
        self.success = torch.zeros_like(self.items, dtype=torch.bool)
        self.loss = torch.full((len(self.items),), -torch.inf, device=images.device)
        self.forwards, self.backwards = torch.zeros_like(self.items), torch.zeros_like(self.items)

    def start(self, items: Tensor) -> dict[str, Any]:
        """The fields of :class:`Tries` for some items, at their original images."""
        image = items % len(self.images)
        clean = self.images[image]
        return {
            "item": items,
            "taken": torch.zeros_like(items),
            "clean": clean,
            "current": clean.clone(),
            "labels": self.labels[image],
            "radius": self.radii[items // len(self.images)],
        }

    def draws(self, items: Tensor) -> PerImageRNG:
        """The random numbers of the items' images: every epsilon draws the same."""
        return self._rng.select(items % len(self.images))

    def resisting(self, items: Tensor) -> Tensor:
        """Those of the items that have not fooled the victim yet."""
        return items[~self.success[items]]

    def spend(self, items: Tensor, forwards: Tensor | int, backwards: Tensor | int = 0) -> None:
        """Count passes of items, each of which occurs once."""
        self.forwards[items] += forwards
        self.backwards[items] += backwards

    def search(
        self,
        items: Tensor,
        *,
        load: Callable[[Tensor], T],
        step: Callable[[T], Tensor],
        forwards: int = 1,
        backwards: int = 0,
    ) -> None:
        """Drive the searches of some items to their end, then predict on what each has found.

        Args:
            items: Their numbers.
            load: Starts some of them.
            step: Advances rows (see :func:`~gauntlet.attacks.active.drive`); the ``current`` image of a row that is
                done is what it has found.
            forwards: Forwards that a step takes.
            backwards: Backwards that a step takes.
        """
        if not len(items):
            return
        place = torch.empty_like(self.items)
        place[items] = torch.arange(len(items), device=items.device)
        final = self.images.new_empty(len(items), *self.images.shape[1:])

        def leave(rows: T) -> None:
            final[place[rows.item]] = rows.current
            self.spend(rows.item, forwards * rows.taken, backwards * rows.taken)

        drive(items, room=self.victim.batch_size, load=load, step=step, leave=leave)
        self.settle(items, final)

    def settle(self, items: Tensor, found: Tensor) -> None:
        """Predict on what was found for the items; keep each image that fools, or has the highest loss so far."""
        size = self.victim.batch_size
        for some, images in zip(items.split(size), found.split(size), strict=True):
            image = some % len(self.images)
            images, labels = presentable(images, self.images[image]), self.labels[image]
            outputs = self.victim.outputs(images)
            fooled, loss = self.victim.judge(outputs, labels), self.victim.losses(outputs, labels)
            better = fooled | (~self.success[some] & (loss > self.loss[some]))
            self.adversarial[some[better]] = images[better]
            self.loss[some[better]] = loss[better]
            self.success[some] |= fooled
            self.spend(some, 1)

    def results(self) -> list[AttackResult]:
        """One result for each epsilon."""
        return [self._result(level, epsilon) for level, epsilon in enumerate(self.epsilons)]

    def _result(self, level: int, epsilon: float) -> AttackResult:
        rows = slice(level * len(self.images), (level + 1) * len(self.images))
        adversarial = self.adversarial[rows]
        norms = perturbation_norms(adversarial, self.images, self.norm)
        forwards, backwards = int(self.forwards[rows].sum()), int(self.backwards[rows].sum())
        return AttackResult(epsilon, adversarial, self.success[rows], norms, forwards, backwards)
