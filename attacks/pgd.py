"""PGD: many small gradient steps, each projected back onto the ball, from a random start."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor

from ..registry import GauntletError, attack
from .active import Batch, climb
from .base import Attack, AttackResult
from .draws import Draws
from .norms import per_image, perturbation_norms
from .steps import ascend, random_offset
from .victim import Victim

_DEFAULTS = {"linf": (40, 1 / 30), "l2": (50, 0.05)}


@attack(
    "pgd",
    norm="linf",
    kind="fixed",
    access="gradient",
    cost="fast",
    tags=("native", "white-box"),
    reference="Madry et al. 2017, arXiv 1706.06083",
)
class PGD(Attack):
    """Projected gradient descent on the cross entropy; an image leaves as soon as it is fooled.

    Madry, Makelov, Schmidt, Tsipras, Vladu 2017, arXiv 1706.06083. Without a random start this is the basic iterative
    method of Kurakin, Goodfellow, Bengio 2016, arXiv 1607.02533. All epsilons share batches.

    Args:
        norm: ``linf`` or ``l2``.
        steps: Gradient steps; by default 40 in Linf and 50 in L2.
        rel_stepsize: Length of a step in epsilons; by default 1/30 in Linf and 0.05 in L2.
        random_start: Start from a point drawn uniformly in the ball.
        restarts: Random starts to try on an image that resists.
        stop_when_fooled: Whether an image leaves when it is fooled, as the image that did it; otherwise it goes all
            the way.
    """

    def __init__(
        self,
        norm: Literal["linf", "l2"] = "linf",
        steps: int | None = None,
        rel_stepsize: float | None = None,
        random_start: bool = True,
        restarts: int = 1,
        stop_when_fooled: bool = True,
    ) -> None:
        default_steps, default_stepsize = _DEFAULTS[norm]
        self.norm = norm
        self.steps = default_steps if steps is None else steps
        self.rel_stepsize = default_stepsize if rel_stepsize is None else rel_stepsize
        self.random_start = random_start
        self.restarts = restarts
        self.stop_when_fooled = stop_when_fooled
        self._check()

    def _check(self) -> None:
        if self.steps < 1 or self.restarts < 1:
            raise GauntletError(f"pgd needs steps >= 1 and restarts >= 1, got {self.steps} and {self.restarts}.")
        if not self.rel_stepsize > 0:
            raise GauntletError(f"pgd needs rel_stepsize > 0, got {self.rel_stepsize}.")
        if self.restarts > 1 and not self.random_start:
            raise GauntletError("pgd with restarts > 1 needs random_start: true, or every restart is the same.")

    def attack(
        self, victim: Victim, images: Tensor, labels: Tensor, epsilons: Sequence[float], rng: Draws
    ) -> Iterable[AttackResult]:
        """Climb from every start; after each, predict, and go on with the items that resist."""
        work = _Work(self, victim, images, labels, epsilons, rng)
        for restart in range(self.restarts):
            resisting = (~work.success).nonzero().flatten()
            if len(resisting):
                work.climb(resisting, restart)
        return work.results()


class _Work:
    """The (image, epsilon) items of one run; item ``k * N + i`` is image i at epsilon k."""

    def __init__(
        self, pgd: PGD, victim: Victim, images: Tensor, labels: Tensor, epsilons: Sequence[float], rng: Draws
    ) -> None:
        self.pgd, self.victim, self.rng = pgd, victim, rng
        self.images, self.labels, self.epsilons = images, labels, epsilons
        count, device = len(images) * len(epsilons), images.device
        self.radii = torch.tensor(epsilons, dtype=torch.float32, device=device)
        self.strides = torch.tensor([pgd.rel_stepsize * epsilon for epsilon in epsilons], device=device)
        self.adversarial = images.repeat(len(epsilons), 1, 1, 1)
        self.success = torch.zeros(count, dtype=torch.bool, device=device)
        self.loss = torch.full((count,), -torch.inf, device=device)
        self.gradients = torch.zeros(count, dtype=torch.int64, device=device)
        self.checks = torch.zeros(count, dtype=torch.int64, device=device)

    def climb(self, items: Tensor, restart: int) -> None:
        """One restart: climb, predict, and keep each new image that fools or has the highest loss so far."""
        final = torch.empty_like(self.adversarial) if restart else self.adversarial
        climb(
            self.victim,
            items,
            load=lambda some: self._load(some, restart),
            step=self._step,
            steps=self.pgd.steps,
            stop_when_fooled=self.pgd.stop_when_fooled,
            leave=lambda batch: self._leave(batch, final),
        )
        for some in items.split(self.victim.batch_size):
            self._verify(some, final[some])

    def results(self) -> list[AttackResult]:
        """One result for each epsilon."""
        return [self._result(level, epsilon) for level, epsilon in enumerate(self.epsilons)]

    def _load(self, items: Tensor, restart: int) -> Batch:
        level, image = items // len(self.images), items % len(self.images)
        clean, radius = self.images[image], self.radii[level]
        current = clean
        if self.pgd.random_start:
            unit = random_offset(self.pgd.norm, self.rng.select(image), clean.shape[1:], restart=restart)
            current = (clean + per_image(radius, clean) * unit).clamp_(0, 1)
        return Batch(items, current, clean, self.labels[image], radius, self.strides[level], torch.zeros_like(items))

    def _step(self, batch: Batch, gradient: Tensor) -> Tensor:
        return ascend(batch.current, batch.clean, gradient, self.pgd.norm, stride=batch.stride, radius=batch.radius)

    def _leave(self, batch: Batch, final: Tensor) -> None:
        final[batch.item] = batch.current
        self.gradients[batch.item] += batch.taken

    def _verify(self, items: Tensor, final: Tensor) -> None:
        labels = self.labels[items % len(self.images)]
        outputs = self.victim.outputs(final)
        fooled, loss = self.victim.judge(outputs, labels), self.victim.losses(outputs, labels)
        better = fooled | (loss > self.loss[items])
        self.adversarial[items[better]] = final[better]
        self.loss[items[better]] = loss[better]
        self.success[items] = fooled
        self.checks[items] += 1

    def _result(self, level: int, epsilon: float) -> AttackResult:
        rows = slice(level * len(self.images), (level + 1) * len(self.images))
        adversarial = self.adversarial[rows]
        norms = perturbation_norms(adversarial, self.images, self.pgd.norm)
        backwards = int(self.gradients[rows].sum())
        forwards = backwards + int(self.checks[rows].sum())
        return AttackResult(epsilon, adversarial, self.success[rows], norms, forwards, backwards)
