"""What registries build: it prints as the call that makes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


class Component:
    """Base of attacks, detectors, recipes and calibrators.

    Made by a registry, ``repr`` is the call of ``create_KIND`` with what was given; made directly, that of the class.
    """

    def __new__(cls, *arguments: Any, **parameters: Any) -> Any:
        """Remember the arguments."""
        made = super().__new__(cls)
        remember(made, cls.__name__, arguments, parameters)
        return made

    def __repr__(self) -> str:
        return as_call(*self.__dict__["_call"])


class BoundFunction(Component):
    """A registered function of data (a corruption, an augmentation) with its parameters."""

    def __init__(self, function: Callable[..., Any], parameters: Mapping[str, Any]) -> None:
        self.function, self.parameters = function, dict(parameters)

    def __call__(self, *data: Any) -> Any:
        """Call the function with its data, in the order of its needs."""
        return self.function(*data, **self.parameters)


def as_call(name: str, arguments: tuple[Any, ...], parameters: Mapping[str, Any]) -> str:
    """A call as one writes it."""
    given = [*map(repr, arguments), *(f"{key}={value!r}" for key, value in parameters.items())]
    return f"{name}({', '.join(given)})"


def remember(made: Any, name: str, arguments: tuple[Any, ...], parameters: Mapping[str, Any]) -> None:
    """Let a component print as the call of ``name``; anything else is left as it is."""
    if isinstance(made, Component):
        made.__dict__["_call"] = (name, arguments, dict(parameters))
