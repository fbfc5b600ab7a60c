"""What an attack is, and what it returns."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ..datasets.per_image_rng import PerImageRNG
from ..registry import GauntletError
from .norms import into_ball, per_image, perturbation_norms
from .victim import Victim

Kind = Literal["fixed", "minimisation", "other"]


@dataclass(frozen=True)
class AttackResult:
    """What an attack found at one epsilon.

    Attributes:
        epsilon: The budget, in units in which pixels span [0, 1].
        images: Adversarial images (N, C, H, W).
        success: Whether each of them fools the victim (N,), by a prediction made on that very image.
        norms: Size of each perturbation (N,), in the attack's norm.
        forwards: Image forwards that this result took; passes that several epsilons share count in each of them.
        backwards: Image backwards, likewise.
        smallest: For minimisation attacks, the smallest adversarial size found (N,), infinite where there is none.
    """

    epsilon: float
    images: Tensor
    success: Tensor
    norms: Tensor
    forwards: int
    backwards: int
    smallest: Tensor | None = None


class Attack(ABC):
    """An adversary: the parameters are given at construction, the data to :meth:`run`.

    A subclass sets ``norm`` and writes :meth:`attack`; what every attack has in common is here.

    Attributes:
        norm: ``linf``, ``l2``, ``l1`` or ``l0``: the norm in which budgets are measured.
        kind: ``fixed`` (spends a budget), ``minimisation`` (looks for the nearest adversarial) or ``other``.
    """

    norm: str = "linf"
    kind: Kind = "fixed"

    def run(
        self, victim: Victim, images: Tensor, labels: Tensor, epsilons: Sequence[float], *, rng: PerImageRNG
    ) -> list[AttackResult]:
        """Attack images at every epsilon.

        Args:
            victim: The model, entered.
            images: Correctly classified images (N, C, H, W), float32 in [0, 1], on the victim's device.
            labels: Their labels (N,), int64.
            epsilons: Budgets, each >= 0; at 0 the images come back bit for bit.
            rng: The draws of these images.

        Returns:
            One result for each epsilon, in order.

        Raises:
            GauntletError: An epsilon is negative or not a number, or the victim cannot be attacked in this way.
        """
        for epsilon in epsilons:
            check_epsilon(epsilon, self.norm)
        if len(labels) and int(labels.min()) < 0:
            raise GauntletError(f"Labels must be >= 0, got {int(labels.min())}.")
        positive = [float(epsilon) for epsilon in epsilons if epsilon > 0 and len(images)]
        found = list(self.attack(victim, images, labels, positive, rng)) if positive else []
        if len(found) == len(epsilons):
            return found
        unchanged = self._unchanged(victim, images, labels, found[0].smallest if found else None)
        queue = iter(found)
        return [
            next(queue) if epsilon > 0 and found else replace(unchanged, epsilon=float(epsilon)) for epsilon in epsilons
        ]

    @abstractmethod
    def attack(
        self, victim: Victim, images: Tensor, labels: Tensor, epsilons: Sequence[float], rng: PerImageRNG
    ) -> Iterable[AttackResult]:
        """As :meth:`run`, for at least one image and epsilons that are all positive."""

    def _unchanged(self, victim: Victim, images: Tensor, labels: Tensor, smallest: Tensor | None) -> AttackResult:
        """The result of doing nothing: at epsilon 0, or without any image."""
        fooled = victim.fooled(images, labels) if len(images) else labels.new_zeros(0, dtype=torch.bool)
        return AttackResult(0.0, images, fooled, images.new_zeros(len(images)), len(images), 0, smallest)


class MinimisationAttack(Attack):
    """An attack that looks for the nearest adversarial image, once for all epsilons."""

    kind: Kind = "minimisation"

    @abstractmethod
    def closest(
        self, victim: Victim, images: Tensor, labels: Tensor, epsilons: Sequence[float], rng: PerImageRNG
    ) -> Tensor:
        """The nearest adversarial images found (N, C, H, W); where none was found, anything."""

    def attack(
        self, victim: Victim, images: Tensor, labels: Tensor, epsilons: Sequence[float], rng: PerImageRNG
    ) -> Iterable[AttackResult]:
        """Search once, then shrink what was found into each ball and predict again."""
        forwards, backwards = victim.forwards, victim.backwards
        nearest = presentable(self.closest(victim, images, labels, epsilons, rng), images)
        fooled = victim.fooled(nearest, labels)
        norms = perturbation_norms(nearest, images, self.norm)
        smallest = torch.where(fooled, norms, math.inf)
        forwards, backwards = victim.forwards - forwards, victim.backwards - backwards
        for epsilon in epsilons:
            before = victim.forwards
            adversarial = into_ball(nearest, images, self.norm, epsilon)
            result = verified(victim, images, labels, adversarial, self.norm, epsilon)
            spent = forwards + victim.forwards - before
            yield replace(result, forwards=spent, backwards=backwards, smallest=smallest)


def check_epsilon(epsilon: float, norm: str) -> None:
    """Raise a :class:`GauntletError` unless it is a budget: finite, >= 0, and a whole number of pixels in L0."""
    if not 0 <= epsilon < math.inf:
        raise GauntletError(f"An epsilon must be a finite number >= 0, got {epsilon!r}.")
    if norm == "l0" and epsilon != int(epsilon):
        raise GauntletError(f"An L0 epsilon must be a whole number of pixels, got {epsilon:g}.")


def presentable(adversarial: Tensor, images: Tensor) -> Tensor:
    """Adversarial images in [0, 1]; one that holds NaN or infinity is replaced by its original."""
    broken = ~adversarial.flatten(1).isfinite().all(dim=1)
    return torch.where(per_image(broken, images), images, adversarial).clamp(0, 1)


def verified(
    victim: Victim, images: Tensor, labels: Tensor, adversarial: Tensor, norm: str, epsilon: float
) -> AttackResult:
    """The result of returning ``adversarial``, with predictions made now; it counts those forwards only."""
    before = victim.forwards
    success = victim.fooled(adversarial, labels)
    norms = perturbation_norms(adversarial, images, norm)
    return AttackResult(epsilon, adversarial, success, norms, victim.forwards - before, 0)
