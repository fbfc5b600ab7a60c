"""How an attack class of foolbox 3 becomes one of ours: chunks, seeds, starts, errors; the base class verifies."""

from __future__ import annotations

import functools
import importlib.util
import inspect
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..datasets.per_image_rng import PerImageRNG, seeded
from ..registry import GauntletError, NotAvailable
from .base import Attack, AttackResult, sanitized, verified
from .foolbox_row import HIDDEN, STARTS, Row, foolbox
from .minimum_norm import MinimumNormAttack
from .norms import into_ball, per_image
from .victim import Victim, not_numbers


class FoolboxAttack(Attack):
    """A foolbox attack on chunks of images.

    Args:
        row: Which one.
        chunk: Images in one call of foolbox. It draws random numbers per call, so another chunk gives others.
        norm: In which distances are measured, where foolbox lets one choose.
        **parameters: Those of the foolbox class.

    Raises:
        GauntletError: A parameter is out of range, or what it needs is not installed (NotAvailable).
    """

    def __init__(self, row: Row, *, chunk: int, norm: str | None = None, **parameters: Any) -> None:
        if chunk < 1:
            raise GauntletError(f"{row.name} needs chunk >= 1, got {chunk}.")
        if (steps := parameters.get("steps")) is not None and steps < 1:
            raise GauntletError(f"{row.name} needs steps >= 1, got {steps}.")
        self.row = row
        self.norm = norm or row.norm
        self.kind = row.kind
        self.chunk = chunk
        distance = {"distance": getattr(foolbox.distances, self.norm)} if row.flexible else {}
        self.build = functools.partial(row.original, **row.fixed, **distance, **parameters)
        self._check(row)

    def _check(self, row: Row) -> None:
        if row.unavailable:
            raise NotAvailable(f"{row.name} cannot work here: {row.unavailable}.")
        for package in row.requires:
            if importlib.util.find_spec(package) is None:
                raise NotAvailable(f"{row.name} needs the package {package}: pip install 'gauntlet-bench[{package}]'.")

    def perturb(
        self, victim: Victim, images: Tensor, labels: Tensor, rng: PerImageRNG, **budget: float | None
    ) -> Tensor:
        """What foolbox's ``run`` returns (N, C, H, W), chunk by chunk; a NaN image becomes the original."""
        parts = []
        for part in _slices(len(images), self.chunk):
            x, y = images[part], labels[part]
            with seeded(rng.select(part).seed(self.row.name), victim.device), torch.enable_grad():
                call = _ChunkRun(self, victim, budget)
                parts.append(sanitized(call.from_starts(x, y) if self.row.start else call.apart(x, y), x))
        return torch.cat(parts)


class _ChunkRun:
    """One chunk: a foolbox attack of its own (some keep state), the model as foolbox wants it, and the budget."""

    def __init__(self, attack: FoolboxAttack, victim: Victim, budget: dict[str, Any]) -> None:
        self.row, self.victim, self.budget = attack.row, victim, budget
        self.original = attack.build()
        self.module = _StallGuard(victim.module) if attack.row.endless else victim.module
        self.model = self._as_foolbox(self.module)

    def __call__(self, images: Tensor, labels: Tensor, **starts: Tensor) -> Tensor:
        """Run foolbox; what it cannot do becomes one sentence."""
        if self.row.feed:
            self.original.feed(self.model, images)
        before, witness = self.victim.backwards, _Witness(self.module, images)
        try:
            model, criterion = self._as_foolbox(witness), self._criterion(images, labels)
            found = self.original.run(model, criterion=criterion, inputs=images, **starts, **self.budget)
        except (AssertionError, ValueError, RuntimeError, IndexError) as error:
            if witness.broken.any():  # foolbox may not cope with NaN
                return witness.instead_of(images)
            if self.row.access == "gradient":
                self.victim.gradient(images[:1], labels[:1])  # says it better where the model has no gradient
            if isinstance(error, RuntimeError):  # out of memory among others: not foolbox's to explain
                raise
            said = " ".join(str(error).split()).rstrip(".") or "without a reason"
            raise GauntletError(f"{self.row.name}: foolbox raised {type(error).__name__}: {said}.") from error
        if self.row.access == "gradient" and self.victim.backwards == before:
            self.victim.gradient(
                images[:1], labels[:1]
            )  # a loss with a distance in it has a gradient without the model
        if witness.broken.any():
            witness.broken &= ~self.victim.fooled(sanitized(found, images), labels)
        return witness.instead_of(found)

    def _as_foolbox(self, module: nn.Module) -> Any:
        return foolbox.PyTorchModel(module, bounds=(0, 1), device=self.victim.device)

    def apart(self, images: Tensor, labels: Tensor) -> Tensor:
        """Run on images (N, C, H, W); in halves where one that nothing fools stops foolbox: it comes back unchanged."""
        try:
            return self(images, labels)
        except GauntletError as error:
            if not isinstance(error.__cause__, IndexError):  # L0FMN looks for one pixel more than there are
                raise
        if len(images) == 1:
            return images
        middle = len(images) // 2
        return torch.cat([self.apart(images[part], labels[part]) for part in (slice(middle), slice(middle, None))])

    def from_starts(self, images: Tensor, labels: Tensor) -> Tensor:
        """Run on those images (N, C, H, W) that have a start; foolbox drops the whole chunk for one that has none."""
        starts = STARTS[self.row.start]().run(self.model, images, self._criterion(images, labels))
        starts, found = self._with_neighbours(starts, images, labels)
        result = images.clone()
        if not found.any():
            return result
        try:
            result[found] = self(images[found], labels[found], starting_points=starts[found])
        except GauntletError as error:
            if not isinstance(error.__cause__, (AssertionError, ValueError)):
                raise
            for i in found.nonzero().flatten().split(1):  # a start that fools only sometimes: again, one by one
                result[i] = self._alone(images[i], labels[i], starts[i])
        return result

    def _alone(self, image: Tensor, label: Tensor, start: Tensor) -> Tensor:
        try:
            return self(image, label, starting_points=start)
        except GauntletError:
            return image

    def _with_neighbours(self, starts: Tensor, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Starts (N, C, H, W), where they fail an image of another class of the chunk; and which of them fool (N,)."""
        found = self.victim.fooled(starts, labels)
        for i in (~found).nonzero().flatten().tolist():
            others = (labels != labels[i]).nonzero().flatten()
            if len(others):
                starts[i] = images[others[0]]
        return starts, self.victim.fooled(starts, labels)

    def _criterion(self, images: Tensor, labels: Tensor) -> Any:
        if not self.row.targeted:
            return foolbox.criteria.Misclassification(labels)
        wrong = self.victim.outputs(images).scatter(1, labels[:, None], -torch.inf)
        return foolbox.criteria.TargetedMisclassification(wrong.argmax(dim=1))


class _Witness(nn.Module):
    """Remembers for each image of a call the first version on which the outputs were NaN.

    Where an attack shows the model other numbers of images, it cannot tell which are which, and looks away.
    """

    def __init__(self, inner: nn.Module, images: Tensor) -> None:
        super().__init__()
        self.inner, self._first = inner, images
        self.broken = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, C, H, W)."""
        outputs = self.inner(images)
        if len(images) == len(self.broken):
            fresh = not_numbers(outputs.detach()) & ~self.broken
            self._first = torch.where(per_image(fresh, images), images.detach(), self._first)
            self.broken |= fresh
        return outputs

    def instead_of(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W), and in place of those that broke the model the version that did."""
        return torch.where(per_image(self.broken, images), self._first, images)


class _StallGuard(nn.Module):
    """Stops an attack that asks about the same images again and again, hoping for another answer."""

    def __init__(self, inner: nn.Module, patience: int = 10) -> None:
        super().__init__()
        self.inner, self._patience = inner, patience
        self._last: Tensor | None = None
        self._asked = 0
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, C, H, W).

        Raises:
            ValueError: They were asked for too often in a row.
        """
        seen = images.detach().nan_to_num()
        again = self._last is not None and torch.equal(seen, self._last)
        self._asked = self._asked + 1 if again else 0
        self._last = seen
        if self._asked >= self._patience:
            raise ValueError("it makes steps too small to change an image, and would for ever")
        return self.inner(images)


class FoolboxFixed(FoolboxAttack):
    """A foolbox attack that spends a given budget: it runs once for each epsilon."""

    def attack(
        self, victim: Victim, images: Tensor, labels: Tensor, epsilons: Sequence[float], rng: PerImageRNG
    ) -> Iterable[AttackResult]:
        """Run, clip to the ball as foolbox does, and predict."""
        for epsilon in epsilons:
            forwards, backwards = victim.forwards, victim.backwards
            raw = self.perturb(victim, images, labels, rng, epsilon=epsilon)
            result = verified(victim, images, labels, into_ball(raw, images, self.norm, epsilon), self.norm, epsilon)
            yield replace(result, forwards=victim.forwards - forwards, backwards=victim.backwards - backwards)


class FoolboxMinimumNorm(MinimumNormAttack, FoolboxAttack):
    """A foolbox attack that looks for the nearest adversarial: it runs once for all epsilons."""

    def find_nearest(self, victim: Victim, images: Tensor, labels: Tensor, rng: PerImageRNG) -> Tensor:
        """Run without foolbox's early stop, so that the epsilons asked for cannot change what is found."""
        return self.perturb(victim, images, labels, rng, early_stop=None)


class FoolboxOther(FoolboxAttack):
    """A foolbox attack that knows no budget: it runs once, and its images stand for every epsilon."""

    def attack(
        self, victim: Victim, images: Tensor, labels: Tensor, epsilons: Sequence[float], rng: PerImageRNG
    ) -> Iterable[AttackResult]:
        """Run once and predict."""
        forwards, backwards = victim.forwards, victim.backwards
        result = verified(victim, images, labels, self.perturb(victim, images, labels, rng), self.norm, 0.0)
        result = replace(result, forwards=victim.forwards - forwards, backwards=victim.backwards - backwards)
        for epsilon in epsilons:
            yield replace(result, epsilon=epsilon)


_ADAPTERS: dict[str, type[FoolboxAttack]] = {
    "fixed": FoolboxFixed,
    "minimum-norm": FoolboxMinimumNorm,
    "other": FoolboxOther,
}
_KEYWORD = inspect.Parameter.KEYWORD_ONLY


def factory(row: Row) -> Callable[..., FoolboxAttack]:
    """A function that builds the row's attack, with the signature of the foolbox class and ``chunk``."""

    def build(*, chunk: int = row.chunk, **parameters: Any) -> FoolboxAttack:
        return _ADAPTERS[row.kind](row, chunk=chunk, **{**row.given, **parameters})

    known = list(_parameters(row))
    build.__signature__ = inspect.Signature(known)  # type: ignore[attr-defined]
    build.__annotations__ = {parameter.name: parameter.annotation for parameter in known}
    build.__doc__ = f"foolbox's {row.source}, {row.fault or 'with its defaults'}."
    return build


def _parameters(row: Row) -> Iterator[inspect.Parameter]:
    original = row.original
    if original.__init__ is not object.__init__:  # type: ignore[misc]
        hints = typing.get_type_hints(original.__init__)  # type: ignore[misc]
        for parameter in inspect.signature(original).parameters.values():
            if parameter.name not in HIDDEN:
                default = row.given.get(parameter.name, parameter.default)
                yield parameter.replace(kind=_KEYWORD, default=default, annotation=hints.get(parameter.name, Any))
    if row.flexible:
        yield inspect.Parameter("norm", _KEYWORD, default=row.norm, annotation=Literal["linf", "l2", "l1", "l0"])
    yield inspect.Parameter("chunk", _KEYWORD, default=row.chunk, annotation=int)


def _slices(count: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, count, size))
