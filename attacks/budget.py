"""Searches that share batches (the active set), and the attacks that search the ball of a given budget.

Every (image, epsilon) pair is a search of its own: it leaves the batch when it is done, and another takes its place.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Self, TypeVar

import torch
from torch import Tensor

from ..datasets.per_image_rng import PerImageRNG
from .base import Attack, AttackResult, sanitized
from .norms import perturbation_norms
from .victim import Victim, not_numbers


@dataclass
class SearchState:
    """M searches in progress; every field has one row for each of them.

    Attributes:
        item: Number of the search (M,), int64.
        steps_done: Steps taken so far (M,), int64.
        clean: The original image (M, C, H, W).
        current: The image now (M, C, H, W).
        labels: Its label (M,).
    """

    item: Tensor
    steps_done: Tensor
    clean: Tensor
    current: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.item)

    def select(self, rows: Tensor) -> Self:
        """The searches where a mask (M,) is true."""
        return type(self)(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def concat(self, other: Self) -> Self:
        """These searches, then the other's."""
        names = [field.name for field in fields(self)]
        return type(self)(**{name: torch.cat([getattr(self, name), getattr(other, name)]) for name in names})


S = TypeVar("S", bound=SearchState)


def run_active_set(
    items: Tensor,
    *,
    capacity: int,
    start: Callable[[Tensor], S],
    step: Callable[[S], Tensor],
    finish: Callable[[S], None],
) -> None:
    """Advance searches until each is done.

    At most ``capacity`` of them are in progress; places that become free are filled from the queue, so that batches
    stay full while there are items left, and memory does not grow with their number.

    Args:
        items: Numbers of the searches (N,).
        capacity: Most searches in progress at once.
        start: Makes the state of some of them.
        step: Advances every search in place by one step, and tells which are done (a mask (M,)).
        finish: Takes the searches that are done.
    """
    state, waiting = start(items[:capacity]), items[capacity:]
    while len(state):
        done = step(state)
        state.steps_done += 1
        if not done.any():
            continue
        finish(state.select(done))
        state = state.select(~done)
        if len(waiting):
            free = capacity - len(state)
            state, waiting = state.concat(start(waiting[:free])), waiting[free:]


@dataclass
class BudgetSearch(SearchState):
    """Searches inside a ball of ``radius`` (M,), the epsilon."""

    radius: Tensor


class BudgetAttack(Attack):
    """An attack on (image, epsilon) pairs; a subclass writes :meth:`search`."""

    def attack(
        self, victim: Victim, images: Tensor, labels: Tensor, epsilons: Sequence[float], rng: PerImageRNG
    ) -> Iterable[AttackResult]:
        """Search for every image at every epsilon."""
        batch = SearchBatch(victim, images, labels, epsilons, self.norm, rng)
        self.search(batch, batch.items)
        return batch.results()

    @abstractmethod
    def search(self, batch: SearchBatch, items: Tensor) -> None:
        """Attack some items (their numbers, (M,)) of ``batch``, which keeps the best image found for each."""


class SearchBatch:
    """The items of one run and the best image found for each; item ``k * N + i`` is image i at epsilon k.

    Args:
        victim: Under attack, entered.
        images: Images (N, C, H, W).
        labels: Their labels (N,).
        epsilons: The budgets.
        norm: In which they are measured.
        rng: The random numbers of the images.
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
        self.broken = torch.zeros_like(self.success)
        self.loss = torch.full((len(self.items),), -torch.inf, device=images.device)
        self.forwards, self.backwards = torch.zeros_like(self.items), torch.zeros_like(self.items)

    def start(self, items: Tensor) -> BudgetSearch:
        """Searches of some items (M,) that start at their original images."""
        image = items % len(self.images)
        clean, labels, radius = self.images[image], self.labels[image], self.radii[items // len(self.images)]
        return BudgetSearch(items, torch.zeros_like(items), clean, clean.clone(), labels, radius)

    def rng(self, items: Tensor) -> PerImageRNG:
        """The random numbers of the images of some items (M,): every epsilon draws the same."""
        return self._rng.select(items % len(self.images))

    def unsolved(self, items: Tensor) -> Tensor:
        """Those of the items (M,) that have not fooled the victim yet."""
        return items[~self.success[items]]

    def count_queries(self, items: Tensor, forwards: Tensor | int, backwards: Tensor | int = 0) -> None:
        """Count passes of items (M,), each of which occurs once."""
        self.forwards[items] += forwards
        self.backwards[items] += backwards

    def run(
        self,
        items: Tensor,
        start: Callable[[Tensor], S],
        step: Callable[[S], Tensor],
        *,
        forwards: int = 1,
        backwards: int = 0,
    ) -> None:
        """Run the searches of some items to their end, then predict on what each has found.

        Args:
            items: Their numbers (M,).
            start: As in :func:`run_active_set`.
            step: Likewise; the ``current`` image of a search that is done is what it has found.
            forwards: Forwards that a step takes.
            backwards: Backwards that a step takes.
        """
        if not len(items):
            return
        # Searches finish in any order, and are judged in the order of the items: batches do not depend on the former.
        place = torch.empty_like(self.items)
        place[items] = torch.arange(len(items), device=items.device)
        final = self.images.new_empty(len(items), *self.images.shape[1:])

        def finish(state: S) -> None:
            final[place[state.item]] = state.current
            self.count_queries(state.item, forwards * state.steps_done, backwards * state.steps_done)

        run_active_set(items, capacity=self.victim.batch_size, start=start, step=step, finish=finish)
        self.keep_best(items, final)

    def keep_best(self, items: Tensor, found: Tensor) -> None:
        """Predict on what was found (M, C, H, W); keep each image that fools, or has the highest loss so far.

        An image on which the outputs are NaN is kept before any that the model resists: it is no proof of robustness.
        """
        size = self.victim.batch_size
        for some, images in zip(items.split(size), found.split(size), strict=True):
            image = some % len(self.images)
            images, labels = sanitized(images, self.images[image]), self.labels[image]
            outputs = self.victim.outputs(images)
            fooled, broken = self.victim.is_fooled(outputs, labels), not_numbers(outputs)
            loss = self.victim.losses(outputs, labels).masked_fill(broken, torch.inf)
            better = fooled | (~self.success[some] & (loss > self.loss[some]))
            self.adversarial[some[better]] = images[better]
            self.loss[some[better]] = loss[better]
            self.success[some] |= fooled
            self.broken[some] = (self.broken[some] | broken) & ~self.success[some]
            self.count_queries(some, 1)

    def results(self) -> list[AttackResult]:
        """One result for each epsilon."""
        return [self._result(level, epsilon) for level, epsilon in enumerate(self.epsilons)]

    def _result(self, level: int, epsilon: float) -> AttackResult:
        rows = slice(level * len(self.images), (level + 1) * len(self.images))
        adversarial = self.adversarial[rows]
        norms = perturbation_norms(adversarial, self.images, self.norm)
        forwards, backwards = int(self.forwards[rows].sum()), int(self.backwards[rows].sum())
        found = epsilon, adversarial, self.success[rows], norms, forwards, backwards
        return AttackResult(*found, broken=self.broken[rows])
