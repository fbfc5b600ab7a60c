"""From the specs of a suite to entries of the registries, with every mistake at its place, told together."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from ..registry import (
    DATASETS,
    EVALUATORS,
    REGISTRIES,
    GauntletError,
    NotAvailable,
    Registry,
    Selected,
    is_pattern,
    left_out,
    nearest,
    select,
    select_one,
)

if TYPE_CHECKING:
    from .model_specs import ModelSpec

Spec = str | dict[str, Any]

#: A budget; ``None`` stands for ``minimal``, the smallest that succeeds.
Epsilon = float | None

#: Option of a dataset: each of its classes, or each of a list, is held out in turn (leave one class out).
LEAVE_OUT = "leave_out"

#: What a suite may say of an attack beside its parameters.
ATTACK_OPTIONS = ("epsilons", "detach_target")

_UNTARGETED = "attacks are untargeted: any wrong class counts."
#: What is often tried, by kind and key, and what is right.
_HINTS = {"attack": dict.fromkeys(("target", "targets", "targeted", "target_class"), _UNTARGETED)}


@dataclass
class Reading:
    """A suite that is being read.

    Attributes:
        where: The file, for messages.
        marks: ``file:line:column`` of every key and list item.
        joining: Plug-ins whose detectors, attacks and corruptions join the axes that the suite has.
        problems: What is wrong, in sentences with their place.
        left_out: Components that patterns cannot pick, with the reason.
        models: Those of the suite.
    """

    where: str
    marks: Mapping[tuple[Any, ...], str]
    joining: frozenset[str] = frozenset()
    problems: list[GauntletError] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    models: list[ModelSpec] = field(default_factory=list)

    def at(self, *path: Any) -> str:
        """``file:line:column`` of a key or list item."""
        while path and path not in self.marks:
            path = path[:-1]
        return self.marks.get(path, self.where)

    @contextmanager
    def collecting(self, *path: Any) -> Iterator[None]:
        """Note an error in the block as one of the key or list item, and go on after it."""
        try:
            yield
        except GauntletError as error:
            self.problems.append(type(error)(f"{self.at(*path)}: {error}"))

    def check(self) -> None:
        """Raise one error that tells all problems, in the order of the file.

        Raises:
            GauntletError: There are some.
        """
        if len(self.problems) == 1:
            raise self.problems[0]
        if self.problems:
            raise GauntletError("\n".join(dict.fromkeys(sorted(map(str, self.problems), key=_position))))

    def axis(
        self, registry: Registry, key: str, specs: Sequence[Spec] | None, options: tuple[str, ...] = ()
    ) -> tuple[Selected, ...]:
        """The entries that the specs under a key pick, and those of plug-ins that join them."""
        if not specs:
            return ()
        before, hints = len(self.problems), _HINTS.get(registry.kind, {})
        for position in range(len(specs)):  # one by one first, so that a message has the line of its item
            with self.collecting(key, position):
                _constructed(select(registry, specs[position : position + 1], options=options, hints=hints))
        if len(self.problems) > before:
            return ()
        for position in range(len(specs)):  # a label that stands twice has the line of the second
            with self.collecting(key, position):
                select(registry, specs[: position + 1], options=options)
            if len(self.problems) > before:
                return ()
        chosen = select(registry, specs, options=options)
        self.left_out |= left_out(registry, specs, self.joining)
        named = {selected.entry.name for selected in chosen} | set(self.left_out)
        joined = [entry for entry in registry if entry.plugin in self.joining and entry.name not in named]
        return (*chosen, *(select_one(registry, entry.name) for entry in joined))

    def datasets(self, key: str, specs: Sequence[Any]) -> None:
        """Look for what is named under a key; what patterns pick, and the images, are the plan's affair."""
        from ..datasets import OPTIONS

        seen: dict[str, int] = {}
        for item in specs:
            group, spec = item if key == "ood" else ("", item)
            position = seen[group] = seen.get(group, -1) + 1
            if not (isinstance(spec, str) and is_pattern(spec)):
                with self.collecting(key, *filter(None, [group]), position):
                    select_one(DATASETS, spec, options=(*OPTIONS, LEAVE_OUT))

    def resolve(self, specs: tuple[Spec, ...], recipe: Spec | None) -> None:
        """Look for the models and the recipe."""
        from .model_specs import resolve_models

        self.models = resolve_models(specs, recipe, self.collecting)

    def budgets(self, values: Sequence[float | str], *path: str) -> tuple[Epsilon, ...]:
        """Epsilons, each once."""
        found: list[Epsilon] = []
        for position, value in enumerate(values):
            with self.collecting(*path, position):
                found.append(parse_epsilon(value))
        return tuple(dict.fromkeys(found))

    def evaluators(self, names: Sequence[str]) -> tuple[str, ...]:
        """The names, in the order in which evaluators run.

        Raises:
            GauntletError: One is unknown.
        """
        known = in_order()
        for position, name in enumerate(names):
            with self.collecting("evaluators", position):
                if name not in known:
                    raise GauntletError(f"unknown evaluator {name!r}; {nearest(name, known)}")
        return tuple(name for name in known if name in names)

    def crosses(self, pairs: Sequence[Sequence[str]]) -> tuple[tuple[str, str], ...]:
        """Which evaluator looks at the images of which axis, for each pair of a ``cross``."""
        found = []
        for position, pair in enumerate(pairs):
            with self.collecting("cross", position):
                found.append(crossing(pair))
        return tuple(dict.fromkeys(found))

    def rules(self, rules: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
        """Tolerances of the drift check."""
        from ..results.tolerance import parse_rules

        for position, rule in enumerate(rules):
            try:
                parse_rules([rule], self.at("drift", position))
            except GauntletError as error:
                self.problems.append(error)
        return tuple(rules)


#: The evaluators that are meant where a cross names an axis in their place.
_OF_AXES = {"attacks": "attack", "detectors": "adversarial-detection"}


def crossing(pair: Sequence[str]) -> tuple[str, str]:
    """The evaluator and the axis of a cross such as ``[conformal, corruptions]``, in either order.

    Raises:
        GauntletError: No evaluator is crossed in this way.
    """
    known = [(entry.name, axis) for entry in EVALUATORS for axis in entry.meta.get("crosses", ())]
    for first, second in (pair, pair[::-1]):
        if (found := (_OF_AXES.get(first, first), second)) in known:
            return found
    names = ", ".join(f"[{name}, {axis}]" for name, axis in known)
    raise GauntletError(f"nothing crosses [{', '.join(pair)}]; known: {names}.")


def in_order() -> list[str]:
    """Names of the evaluators, in the order in which they run."""
    return [entry.name for entry in sorted(EVALUATORS, key=lambda entry: entry.meta["order"])]


def unnamed(content: Any, plugins: Sequence[str]) -> frozenset[str]:
    """Those of the plug-ins of which a suite names no entry."""
    said = set(texts(content))
    named = {
        entry.plugin
        for registry in REGISTRIES.values()
        for entry in registry.of_plugins()
        if said & {entry.name, *entry.aliases}
    }
    return frozenset(plugins) - named


def texts(content: Any) -> Iterator[str]:
    """Every text in a suite, keys too."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, Mapping):
        yield from (str(key) for key in content)
        yield from (text for value in content.values() for text in texts(value))
    elif isinstance(content, Sequence):
        yield from (text for value in content for text in texts(value))


def parse_epsilon(value: float | str) -> Epsilon:
    """A number or a fraction such as ``8/255``, finite and >= 0, or the word ``minimal``.

    Raises:
        GauntletError: It is none of these.
    """
    if value == "minimal":
        return None
    try:
        number = float(Fraction(value.strip())) if isinstance(value, str) and "/" in value else float(value)
    except (ValueError, TypeError, ArithmeticError):
        raise GauntletError(f"epsilon {_shown(value)} is not a number, a fraction such as 8/255, or minimal.") from None
    if not math.isfinite(number) or number < 0:
        raise GauntletError(f"epsilon must be a finite number >= 0, got {value}.")
    return number


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:50]}..."


def _constructed(chosen: Sequence[Selected]) -> None:
    """Build attacks and detectors that were given parameters: what these refuse is wrong before anything is trained."""
    from ..attacks import build_attack
    from ..detectors import build_detector

    for selected in chosen:
        entry = selected.entry
        if not selected.parameters or entry.kind not in ("attack", "detector") or not entry.is_ours:
            continue  # what is the user's own is not called before it runs, and fails with its own cells
        try:
            if entry.kind == "detector":
                build_detector(selected)
            else:
                build_attack(entry, selected.parameters)
        except NotAvailable:
            continue  # its cells are skipped


def _position(message: str) -> tuple[int, int]:
    """Line and column at the beginning of a message; those of the whole file come last."""
    found = re.match(r".*?:(\d+):(\d+): ", message)
    return (int(found[1]), int(found[2])) if found else (10**9, 0)
