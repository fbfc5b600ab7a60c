"""Attacks from their registry entries; a function of images and a budget is one, too."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..datasets.per_image_rng import PerImageRNG
from ..registry import ATTACKS, Entry, GauntletError
from .base import Attack, AttackResult, verified
from .victim import Victim


class FunctionAttack(Attack):
    """An attack of a fixed budget, made of a function that returns adversarial images.

    The function gets those of ``victim``, ``images``, ``labels``, ``epsilon`` and ``draws`` that its leading arguments
    name, one batch and one epsilon at a time.
    """

    def __init__(
        self, function: Callable[..., Tensor], needs: Sequence[str], parameters: Mapping[str, Any], norm: str, name: str
    ) -> None:
        self.function, self.needs, self.parameters = function, tuple(needs), dict(parameters)
        self.norm, self.name = norm, name

    def attack(
        self, victim: Victim, images: Tensor, labels: Tensor, epsilons: Sequence[float], rng: PerImageRNG
    ) -> Iterable[AttackResult]:
        """Call the function for every epsilon.

        Raises:
            GauntletError: It returned something else than images of the same shape.
        """
        for epsilon in epsilons:
            forwards, backwards = victim.forwards, victim.backwards
            starts = range(0, len(images), victim.batch_size)
            slices = [slice(start, start + victim.batch_size) for start in starts]
            parts = [self._called(victim, images[part], labels[part], epsilon, rng.select(part)) for part in slices]
            result = verified(victim, images, labels, torch.cat(parts), self.norm, epsilon)
            spent = victim.forwards - forwards, victim.backwards - backwards
            yield replace(result, forwards=spent[0], backwards=spent[1])

    def _called(self, victim: Victim, images: Tensor, labels: Tensor, epsilon: float, draws: PerImageRNG) -> Tensor:
        given = {"victim": victim, "images": images, "labels": labels, "epsilon": epsilon, "draws": draws}
        made = self.function(*(given[need] for need in self.needs), **self.parameters)
        if not isinstance(made, Tensor) or made.shape != images.shape:
            got = tuple(made.shape) if isinstance(made, Tensor) else type(made).__name__
            raise GauntletError(f"Attack {self.name!r} must return images of shape {tuple(images.shape)}, got {got}.")
        return made.detach()


def build_attack(chosen: Entry | str, parameters: Mapping[str, Any] | None = None) -> Attack:
    """Build the attack of a registry entry (or of the name of one).

    Raises:
        GauntletError: The name, a parameter or its value is wrong, or a class does not derive from :class:`Attack`.
    """
    entry = ATTACKS.get(chosen) if isinstance(chosen, str) else chosen
    checked = entry.check(parameters or {})
    norm = norm_of(entry, checked)
    if entry.needs:
        made = FunctionAttack(entry.factory, entry.needs, checked, norm, entry.name)
        return entry.signed(made, checked)
    made = entry.build(checked)
    if not isinstance(made, Attack):
        raise GauntletError(
            f"Attack {entry.name!r} ({entry.where}) does not derive from gauntlet.attacks.Attack: derive from it and "
            "write attack(), or register a function of victim, images, labels and epsilon that returns images."
        )
    if made.norm != norm:
        raise GauntletError(
            f"Attack {entry.name!r} ({entry.where}) is declared with norm={norm!r} but built with {made.norm!r}: make "
            "them equal, or give it a parameter `norm`."
        )
    made.name = entry.name
    return made


def norm_of(entry: Entry, parameters: Mapping[str, Any]) -> str:
    """The norm in which the budget of an attack with these parameters is measured."""
    return str(parameters.get("norm") or entry.meta.get("norm", "linf"))
