"""What an attack is, and what it returns."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..datasets.per_image_rng import PerImageRNG
from ..registry import Component, GauntletError
from ..registry.facts import Kind
from .norms import per_image, perturbation_norms
from .victim import Victim


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
        smallest: For minimum-norm attacks, the smallest adversarial size found (N,), infinite where there is none.
    """

    epsilon: float
    images: Tensor
    success: Tensor
    norms: Tensor
    forwards: int
    backwards: int
    smallest: Tensor | None = None


class Attack(Component, ABC):
    """An adversary: the parameters are given at construction, the data to :meth:`run`.

    A subclass sets ``norm`` and writes :meth:`attack`; what every attack has in common is here.

    Attributes:
        norm: ``linf``, ``l2``, ``l1`` or ``l0``: the norm in which budgets are measured.
        kind: ``fixed`` (uses a given budget), ``minimum-norm`` (looks for the nearest adversarial) or ``other``.
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
            rng: The random numbers of these images.

        Returns:
            One result for each epsilon, in order.

        Raises:
            GauntletError: An epsilon is negative or not a number, or the victim cannot be attacked in this way.

        Example:
            >>> from gauntlet.attacks.fgsm import FGSM
            >>> layer = torch.nn.Linear(4, 2)
            >>> weight, bias = torch.tensor([[1.0], [-1.0]]).expand(2, 4), torch.tensor([-1.0, 1.0])
            >>> layer.load_state_dict({"weight": weight, "bias": bias})
            <All keys matched successfully>
            >>> images, labels = torch.full((1, 1, 2, 2), 0.75), torch.tensor([0])
            >>> with Victim(torch.nn.Sequential(torch.nn.Flatten(), layer)) as victim:
            ...     rng = PerImageRNG("example", torch.arange(1))
            ...     small, large = FGSM().run(victim, images, labels, [0.1, 0.6], rng=rng)
            >>> small.success.item(), large.success.item()
            (False, True)
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
        queue = iter(found)  # of the positive epsilons; at 0 nothing was asked
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


def check_epsilon(epsilon: float, norm: str) -> None:
    """Check that an epsilon is a budget.

    Raises:
        GauntletError: It is negative, infinite or NaN, or in L0 not a whole number of pixels.

    >>> check_epsilon(2.5, "l0")
    Traceback (most recent call last):
        ...
    gauntlet.registry.errors.GauntletError: An L0 epsilon must be a whole number of pixels, got 2.5.
    """
    if not 0 <= epsilon < math.inf:
        raise GauntletError(f"An epsilon must be a finite number >= 0, got {epsilon!r}.")
    if norm == "l0" and epsilon != int(epsilon):
        raise GauntletError(f"An L0 epsilon must be a whole number of pixels, got {epsilon:g}.")


def sanitized(adversarial: Tensor, images: Tensor) -> Tensor:
    """Adversarial images (N, C, H, W) clamped to [0, 1]; one with NaN or infinite pixels becomes its original.

    >>> sanitized(torch.tensor([1.5, torch.nan]).view(2, 1, 1, 1), torch.full((2, 1, 1, 1), 0.25)).flatten().tolist()
    [1.0, 0.25]
    """
    broken = ~adversarial.flatten(1).isfinite().all(dim=1)
    return torch.where(per_image(broken, images), images, adversarial).clamp(0, 1)


def verified(
    victim: Victim, images: Tensor, labels: Tensor, adversarial: Tensor, norm: str, epsilon: float
) -> AttackResult:
    """The result of returning ``adversarial`` (N, C, H, W) for ``images``, with one prediction on each made now.

    It counts the forwards of that prediction only.
    """
    before = victim.forwards
    success = victim.fooled(adversarial, labels)
    norms = perturbation_norms(adversarial, images, norm)
    return AttackResult(epsilon, adversarial, success, norms, victim.forwards - before, 0)
