"""What an attack is, and what it returns."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..datasets.per_image_rng import PerImageRNG
from ..registry import Component, GauntletError
from ..registry.facts import Kind
from .inputs import checked_images, checked_labels
from .norms import per_image, perturbation_norms
from .victim import Victim, not_numbers

_BROKEN = "the model's outputs become NaN, which is neither robust nor fooled (results mark them `broken`)."


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
        broken: Where the victim's outputs for these images are NaN (N,): they count neither as robust nor as fooled.
        lost_gradients: Share of the entries of all gradients of the run that were NaN or infinite, and counted as 0.
    """

    epsilon: float
    images: Tensor
    success: Tensor
    norms: Tensor
    forwards: int
    backwards: int
    smallest: Tensor | None = None
    broken: Tensor | None = None
    lost_gradients: float = 0.0


class Attack(Component, ABC):
    """An adversary: the parameters are given at construction, the data to :meth:`run`.

    A subclass sets ``norm`` and writes :meth:`attack`; what every attack has in common is here.

    Attributes:
        norm: ``linf``, ``l2``, ``l1`` or ``l0``: the norm in which budgets are measured.
        kind: ``fixed`` (uses a given budget), ``minimum-norm`` (looks for the nearest adversarial) or ``other``.
        name: Under which it is registered.
    """

    name: str = ""
    norm: str = "linf"
    kind: Kind = "fixed"

    def run(
        self, victim: Victim, images: Tensor, labels: Tensor, epsilons: Sequence[float], *, rng: PerImageRNG
    ) -> list[AttackResult]:
        """Attack images at every epsilon.

        Args:
            victim: The model, entered.
            images: Correctly classified images (N, C, H, W) in [0, 1], converted by
                :func:`~gauntlet.attacks.inputs.checked_images`.
            labels: Their labels (N,), converted by :func:`~gauntlet.attacks.inputs.checked_labels`.
            epsilons: Budgets, each >= 0; at 0 the images come back bit for bit.
            rng: The random numbers of these images.

        Returns:
            One result for each epsilon, in order.

        Raises:
            GauntletError: An epsilon, the images or the labels are wrong, the victim cannot be attacked in this way,
                or the attack writes into what it is given.

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
        with torch.inference_mode(False):
            images = checked_images(images, victim.device)
            classes = victim.inspect(images)
            labels = checked_labels(labels, len(images), classes, victim.device)
            if classes is not None and (reason := self.left_out(classes).get("")):
                raise GauntletError(f"{self._label} {reason}.")
            before = victim.gradient_entries()
            results = self._results(victim, images, labels, epsilons, rng)
        entries, lost = (now - then for now, then in zip(victim.gradient_entries(), before, strict=True))
        results = [_finished(result, lost / max(entries, 1)) for result in results]
        broken = max((int(result.broken.sum()) for result in results if result.broken is not None), default=0)
        if broken:
            warnings.warn(f"{self._label}: for {broken} of {len(images)} images {_BROKEN}", stacklevel=2)
        return results

    def _results(
        self, victim: Victim, images: Tensor, labels: Tensor, epsilons: Sequence[float], rng: PerImageRNG
    ) -> list[AttackResult]:
        """As :meth:`run`, of checked images and labels."""
        positive = [float(epsilon) for epsilon in epsilons if epsilon > 0 and len(images)]
        given = images.clone(), labels.clone()  # what an attack does to them must not reach anything else
        found = [_kept(result) for result in self.attack(victim, *given, positive, rng)] if positive else []
        if not torch.equal(given[0], images) or not torch.equal(given[1], labels):
            raise GauntletError(f"{self._label} writes into the images or labels it is given: let it change a copy.")
        if len(found) == len(epsilons):
            return found
        unchanged = self._unchanged(victim, images, labels, found[0].smallest if found else None)
        queue = iter(found)  # of the positive epsilons; at 0 nothing was asked
        return [
            next(queue) if epsilon > 0 and found else replace(unchanged, epsilon=float(epsilon)) for epsilon in epsilons
        ]

    def left_out(self, classes: int) -> dict[str, str]:
        """What cannot run against a model of so few classes, and why: parts by name, the attack itself as ``""``."""
        return {}

    @abstractmethod
    def attack(
        self, victim: Victim, images: Tensor, labels: Tensor, epsilons: Sequence[float], rng: PerImageRNG
    ) -> Iterable[AttackResult]:
        """As :meth:`run`, for at least one image and epsilons that are all positive."""

    def _unchanged(self, victim: Victim, images: Tensor, labels: Tensor, smallest: Tensor | None) -> AttackResult:
        """The result of doing nothing: at epsilon 0, or without any image."""
        norms, none = images.new_zeros(len(images)), labels.new_zeros(0, dtype=torch.bool)
        if not len(images):
            return AttackResult(0.0, images, none, norms, 0, 0, smallest, none)
        outputs = victim.outputs(images)
        fooled = victim.is_fooled(outputs, labels)
        return AttackResult(0.0, images, fooled, norms, len(images), 0, smallest, not_numbers(outputs))

    @property
    def _label(self) -> str:
        return f"Attack {self.name or type(self).__name__!r}"


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
    outputs = victim.outputs(adversarial)
    norms, forwards = perturbation_norms(adversarial, images, norm), victim.forwards - before
    success, broken = victim.is_fooled(outputs, labels), not_numbers(outputs)
    return AttackResult(epsilon, adversarial, success, norms, forwards, 0, broken=broken)


def _kept(result: AttackResult) -> AttackResult:
    """The result with images of its own: the attack may go on with the tensor, for the next epsilon."""
    return replace(result, images=result.images.detach().clone())


def _finished(result: AttackResult, lost: float) -> AttackResult:
    """The result without a graph on its images, and with the share of gradient entries that were lost."""
    return replace(result, images=result.images.detach(), lost_gradients=lost)
