"""How an attack class of foolbox 3 becomes one of ours: chunks, seeds, errors; the verification is the base class'."""

from __future__ import annotations

import inspect
import os
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..registry import GauntletError
from .base import Attack, AttackResult, MinimisationAttack, presentable, verified
from .draws import Draws, seeded
from .norms import into_ball
from .victim import Victim

# GitPython, which foolbox imports, fails at import where there is no git program unless it is told to be quiet.
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
import foolbox

CHUNK = 128


@dataclass(frozen=True)
class Row:
    """One foolbox attack.

    Attributes:
        name: ``foolbox/NORM/ATTACK``.
        source: Name of the class in ``foolbox.attacks``.
        alias: Further name, as in report R2.
        access: What it asks of the model: ``gradient``, ``score``, ``decision`` or ``none``.
        cost: ``fast``, ``standard`` or ``full``.
        reference: Paper or other source.
        tags: Words for selections.
    """

    name: str
    source: str
    alias: str
    access: str
    cost: str
    reference: str
    tags: tuple[str, ...] = ()

    @property
    def norm(self) -> str:
        """The norm, which is the middle of the name."""
        return self.name.split("/")[1]

    @property
    def original(self) -> type:
        """The class of foolbox."""
        return getattr(foolbox.attacks, self.source)

    @property
    def adapter(self) -> type[FoolboxAttack]:
        """Our class for its kind."""
        minimises = issubclass(self.original, foolbox.attacks.base.MinimizationAttack)
        return FoolboxMinimisation if minimises else FoolboxFixed


class FoolboxAttack(Attack):
    """A foolbox attack on chunks of images.

    Args:
        row: Which one.
        chunk: Images in one call of foolbox. It draws random numbers per call, so another chunk gives other draws.
        **parameters: Those of the foolbox class.
    """

    def __init__(self, row: Row, *, chunk: int = CHUNK, **parameters: Any) -> None:
        if chunk < 1:
            raise GauntletError(f"{row.name} needs chunk >= 1, got {chunk}.")
        self.row = row
        self.norm = row.norm
        self.chunk = chunk
        self.original = row.original(**parameters)

    def perturb(self, victim: Victim, images: Tensor, labels: Tensor, rng: Draws, **budget: float | None) -> Tensor:
        """What foolbox's ``run`` returns (N, C, H, W), chunk by chunk; a NaN image becomes the original."""
        model = foolbox.PyTorchModel(victim.module, bounds=(0, 1), device=victim.device)
        parts = []
        for part in _slices(len(images), self.chunk):
            x, y = images[part], labels[part]
            with seeded(rng.select(part).seed(self.row.name), victim.device), torch.enable_grad():
                parts.append(presentable(self._call(victim, model, x, y, budget), x))
        return torch.cat(parts)

    def _call(self, victim: Victim, model: Any, images: Tensor, labels: Tensor, budget: dict[str, Any]) -> Tensor:
        try:
            return self.original.run(model, images, foolbox.criteria.Misclassification(labels), **budget)
        except (AssertionError, ValueError, RuntimeError) as error:
            if self.row.access == "gradient":
                victim.gradient(images[:1], labels[:1])  # says it better where the model has no gradient
            if isinstance(error, RuntimeError):  # out of memory among others: not foolbox's to explain
                raise
            said = " ".join(str(error).split()).rstrip(".") or "without a reason"
            raise GauntletError(f"{self.row.name}: foolbox raised {type(error).__name__}: {said}.") from error


class FoolboxFixed(FoolboxAttack):
    """A foolbox attack that spends a given budget: it runs once for each epsilon."""

    def attack(
        self, victim: Victim, images: Tensor, labels: Tensor, epsilons: Sequence[float], rng: Draws
    ) -> Iterable[AttackResult]:
        """Run, clip to the ball as foolbox does, and predict."""
        for epsilon in epsilons:
            forwards, backwards = victim.forwards, victim.backwards
            raw = self.perturb(victim, images, labels, rng, epsilon=epsilon)
            result = verified(victim, images, labels, into_ball(raw, images, self.norm, epsilon), self.norm, epsilon)
            yield replace(result, forwards=victim.forwards - forwards, backwards=victim.backwards - backwards)


class FoolboxMinimisation(MinimisationAttack, FoolboxAttack):
    """A foolbox attack that looks for the nearest adversarial: it runs once for all epsilons."""

    def closest(self, victim: Victim, images: Tensor, labels: Tensor, epsilons: Sequence[float], rng: Draws) -> Tensor:
        """Run without foolbox's early stop, so that the epsilons asked for cannot change what is found."""
        return self.perturb(victim, images, labels, rng, early_stop=None)


def factory(row: Row) -> Callable[..., FoolboxAttack]:
    """A function that builds the row's attack, with the signature of the foolbox class and ``chunk``."""

    def build(**parameters: Any) -> FoolboxAttack:
        return row.adapter(row, **parameters)

    known = [*_parameters(row.original), inspect.Parameter("chunk", _KEYWORD, default=CHUNK, annotation=int)]
    build.__signature__ = inspect.Signature(known)  # type: ignore[attr-defined]
    build.__annotations__ = {parameter.name: parameter.annotation for parameter in known}
    build.__doc__ = f"foolbox's {row.source}, with its defaults."
    return build


_KEYWORD = inspect.Parameter.KEYWORD_ONLY


def _parameters(original: type) -> Iterator[inspect.Parameter]:
    if original.__init__ is object.__init__:  # type: ignore[misc]
        return
    hints = typing.get_type_hints(original.__init__)  # type: ignore[misc]
    for parameter in inspect.signature(original).parameters.values():
        yield parameter.replace(kind=_KEYWORD, annotation=hints.get(parameter.name, Any))


def _slices(count: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, count, size))
