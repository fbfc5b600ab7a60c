"""What a registry knows of one registered component."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from .component import remember
from .errors import GauntletError, Obstacle
from .origin import Origin
from .parameters import Parameter, check_parameters, takes_any


@dataclass(frozen=True)
class Entry:
    """A registered class or function with everything that is read from it.

    Attributes:
        kind: ``model``, ``detector``, ...
        name: The public name, lower-case with hyphens, unique in its registry.
        factory: The registered class or function itself.
        summary: First line of its docstring.
        reference: Paper (authors, year, arXiv id) or other source.
        tags: Free words for selections such as ``tag:white-box``.
        needs: For functions over data (detectors, datasets): the leading arguments, in order.
        parameters: Keyword parameters with types and defaults.
        aliases: Other names under which it is found.
        meta: Everything else the decorator was given (``norm="linf"``, ``splits=("test",)``, ...).
        plugin: The plug-in that registered it: path of a file, or name of a module.
        origin: Where it was registered.
        row: The table row that defines it, for table-driven entries; part of its source fingerprint.
    """

    kind: str
    name: str
    factory: Callable[..., Any]
    summary: str = ""
    reference: str = ""
    tags: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    aliases: tuple[str, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)
    row: str = ""
    plugin: str | None = None
    origin: Origin = field(default=Origin(), compare=False, repr=False)

    @property
    def is_class(self) -> bool:
        """Whether a class (rather than a function) was registered."""
        return inspect.isclass(self.factory)

    @property
    def is_ours(self) -> bool:
        """Whether it comes with Gauntlet: planning may build it, and it harms no other component."""
        return str(getattr(inspect.unwrap(self.factory), "__module__", "")).startswith("gauntlet.")

    @cached_property  # reading the source costs milliseconds, and every check of parameters names the place
    def where(self) -> str:
        """File and line of the definition, for error messages."""
        target = inspect.unwrap(self.factory)
        try:
            return f"{Path(inspect.getfile(target)).name}:{inspect.getsourcelines(target)[1]}"
        except (OSError, TypeError):
            return getattr(target, "__module__", "?")

    @property
    def obstacle(self) -> Obstacle:
        """Why it cannot run here: an optional package is absent, or it never can."""
        if reason := self.meta.get("unavailable"):
            return f"{self.name} cannot work here: {reason}."
        for package in self.meta.get("extras", ()):
            if importlib.util.find_spec(package) is None:
                return f"{self.name} needs the package {package}: pip install 'gauntlet-bench[{package}]'."
        return ""

    @cached_property
    def open(self) -> bool:
        """Whether it takes keyword parameters that its signature does not name."""
        return takes_any(self.factory)

    @property
    def files(self) -> list[Path]:
        """The files that the fact ``files`` names, from the folder of its module on; none where a function tells."""
        named = self.meta.get("files") or ()
        if callable(named):
            return []
        try:
            folder = Path(inspect.getfile(inspect.unwrap(self.factory))).parent
        except TypeError:  # typed into an interpreter
            folder = Path()
        return [folder / name for name in named]

    def has(self, parameter: str) -> bool:
        """Whether the entry takes this keyword parameter."""
        return any(known.name == parameter for known in self.parameters)

    def check(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Check parameter names and types; returns the values in their declared types, without defaults."""
        owner = f"{self.kind} {self.name!r} ({self.where})"
        unnamed = {name: value for name, value in values.items() if self.open and not self.has(name)}
        named = {name: value for name, value in values.items() if name not in unnamed}
        return check_parameters(self.parameters, named, owner) | unnamed

    def lacks(self, given: Container[str]) -> str:
        """Which parameter without default is not among those ``given``, in one sentence, or nothing."""
        for parameter in self.parameters:
            if parameter.required and parameter.name not in given:
                return (
                    f"{self.kind} {self.name!r} ({self.where}) needs a value for its parameter {parameter.name!r}: "
                    f"write {{{self.name}: {{{parameter.name}: ...}}}}."
                )
        return ""

    def require(self, given: Container[str]) -> None:
        """Raise a :class:`GauntletError` unless every parameter without default is among those ``given``.

        Raises:
            GauntletError: One has no value.
        """
        if sentence := self.lacks(given):
            raise GauntletError(sentence)

    def build(self, parameters: Mapping[str, Any]) -> Any:
        """Call the factory with checked ``parameters``; the component prints as ``create_KIND(NAME, ...)``.

        Raises:
            GauntletError: A parameter is unknown, of another type, or has no value.
        """
        checked = self.check(parameters)
        self.require(checked)
        return self.signed(self.factory(**checked), checked)

    def signed(self, made: Any, parameters: Mapping[str, Any]) -> Any:
        """``made``, which prints as what this entry builds with ``parameters``."""
        remember(made, f"create_{self.kind}", (self.name,), parameters)
        return made

    def defaults(self) -> dict[str, Any]:
        """The parameters that have a default, with it."""
        return {parameter.name: parameter.default for parameter in self.parameters if not parameter.required}
