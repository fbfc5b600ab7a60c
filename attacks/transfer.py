"""Transfer: images made on another model, which the victim sees only once they are finished."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from torch import Tensor

from ..datasets.per_image_rng import PerImageRNG
from ..registry import ATTACKS, GauntletError, Selected, select_one
from .base import Attack, AttackResult, verified
from .function import build_attack
from .native import native
from .victim import Victim

Spec = str | dict[str, Any]
_DEFAULT: Spec = "pgd"


@native(
    "transfer",
    "linf",
    "l2",
    "l1",
    "l0",
    reference="Papernot et al. 2016, arXiv 1605.07277",
    access="none",
    tags=("black-box",),
    inputs=("surrogate",),
)
class Transfer(Attack):
    """Attacks a surrogate, and shows the victim what came out.

    Papernot, McDaniel, Goodfellow 2016, arXiv 1605.07277. The attack on the surrogate knows nothing of the victim; one
    that would stop as soon as the surrogate is fooled goes all the way, since what lies barely beyond the boundary of
    one model rarely fools another. Forwards count the victim's only, one for each image.

    Args:
        surrogate: A model: its label in the suite, or a spec as under ``models``. By default the first other model of
            the suite. Outside a suite it is the victim's own :attr:`~gauntlet.attacks.Victim.surrogate` that counts.
        attack: The attack on the surrogate: a name, or a spec as under ``attacks``.
        norm: That of the attack.

    Raises:
        GauntletError: A parameter is out of range, or the attack on the surrogate does not fit.
    """

    def __init__(
        self,
        surrogate: Spec | None = None,
        attack: Spec = _DEFAULT,
        norm: Literal["linf", "l2", "l1", "l0"] = "linf",
    ) -> None:
        chosen = inner_attack(attack)
        entry, parameters = chosen.entry, dict(chosen.parameters)
        if entry.has("norm"):
            parameters.setdefault("norm", norm)
        if entry.has("stop_when_fooled"):
            # Barely beyond the surrogate's boundary is rarely beyond the victim's.
            parameters.setdefault("stop_when_fooled", False)
        self.norm, self.surrogate = norm, surrogate
        self.inner: Attack = build_attack(entry, parameters)
        if self.inner.norm != norm or self.inner.kind == "other":
            raise GauntletError(
                f"transfer: the attack {entry.name!r} works in {self.inner.norm} and not in {norm}; "
                "give both the same norm, which must be one with a budget."
            )

    def left_out(self, classes: int) -> dict[str, str]:
        """As the attack on the surrogate."""
        return self.inner.left_out(classes)

    def attack(
        self, victim: Victim, images: Tensor, labels: Tensor, epsilons: Sequence[float], rng: PerImageRNG
    ) -> Iterable[AttackResult]:
        """Attack the surrogate at all epsilons, then predict with the victim.

        Raises:
            GauntletError: The victim has no surrogate, or one with other classes.
        """
        other = victim.surrogate
        if other is None:
            raise GauntletError("transfer needs a victim with a surrogate: Victim(model, surrogate=Victim(other)).")
        classes, theirs = victim.outputs(images[:1]).shape[1], other.outputs(images[:1]).shape[1]
        if classes != theirs:
            raise GauntletError(
                f"The surrogate has {theirs} classes and the attacked model {classes}: a surrogate knows the same ones."
            )
        for made in self.inner.run(other, images, labels, epsilons, rng=rng):
            yield verified(victim, images, labels, made.images, self.norm, made.epsilon)


def inner_attack(spec: Spec = _DEFAULT) -> Selected:
    """The attack on the surrogate, with its checked parameters.

    Raises:
        GauntletError: It is unknown, a parameter is wrong, or it is itself a transfer.
    """
    chosen = select_one(ATTACKS, spec)
    if chosen.entry.name == "transfer":
        raise GauntletError("transfer: the attack on the surrogate cannot be a transfer itself; name another.")
    return chosen
