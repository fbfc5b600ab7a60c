"""Typed parameters, read from a signature, and the checks that values from YAML must pass."""

from __future__ import annotations

import contextlib
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import GauntletError, nearest

REQUIRED: Any = inspect.Parameter.empty


@dataclass(frozen=True)
class Parameter:
    """One keyword parameter of a registered class or function."""

    name: str
    annotation: Any
    default: Any = REQUIRED

    @property
    def required(self) -> bool:
        """Whether a value must be given."""
        return self.default is REQUIRED

    @property
    def type_name(self) -> str:
        """The type as a reader would write it."""
        return type_name(self.annotation)

    def check(self, value: Any, owner: str) -> Any:
        """Return ``value`` in the declared type, or raise a :class:`GauntletError` that names ``owner``.

        Raises:
            GauntletError: The value has the wrong type or is out of range.
        """
        try:
            return coerce(value, self.annotation)
        except ValueError as error:
            raise GauntletError(f"{owner}: parameter {self.name!r} {error}") from None


def read_signature(factory: Callable[..., Any], *, leading: bool) -> tuple[tuple[str, ...], tuple[Parameter, ...]]:
    """Split a signature into its leading needs and its keyword parameters.

    With ``leading`` (functions of kinds whose first arguments are data, such as detectors), the positional
    parameters without default are needs. Everything else is a parameter. A class that passes ``**settings`` on has
    the parameters of its base class too.
    """
    hints = _type_hints(factory)
    needs: list[str] = []
    parameters: list[Parameter] = []
    inherited: tuple[Parameter, ...] = ()
    for parameter in inspect.signature(factory).parameters.values():
        if parameter.kind == parameter.VAR_KEYWORD:
            inherited = _inherited(factory)
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        positional = parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        if leading and positional and parameter.default is REQUIRED:
            needs.append(parameter.name)
        else:
            parameters.append(Parameter(parameter.name, hints.get(parameter.name, Any), parameter.default))
    own = {parameter.name for parameter in parameters}
    return tuple(needs), (*parameters, *(parameter for parameter in inherited if parameter.name not in own))


def takes_any(factory: Callable[..., Any]) -> bool:
    """Whether a function, or a class with all its bases, takes keyword parameters that no signature names."""
    if not any(one.kind is one.VAR_KEYWORD for one in inspect.signature(factory).parameters.values()):
        return False
    # torch's own __init__ takes any keyword only to refuse it.
    own = [base for base in _definers(factory) if not base.__module__.startswith("torch.")]
    return not inspect.isclass(factory) or len(own) == 1 or (len(own) > 1 and takes_any(own[1]))


def _inherited(factory: Callable[..., Any]) -> tuple[Parameter, ...]:
    """Parameters of the next ``__init__`` among the bases of a class; none for functions."""
    definers = _definers(factory)
    return read_signature(definers[1], leading=False)[1] if len(definers) > 1 else ()


def _definers(factory: Callable[..., Any]) -> list[type]:
    """The classes among a class and its bases that define ``__init__``."""
    return [base for base in getattr(factory, "__mro__", ())[:-1] if "__init__" in vars(base)]


def check_parameters(parameters: Sequence[Parameter], values: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """Check names and types of ``values``; the result holds them in the declared types, without defaults.

    Raises:
        GauntletError: A parameter is unknown, absent or has the wrong type.
    """
    known = {parameter.name: parameter for parameter in parameters}
    checked: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            hint = nearest(str(name), known) if known else "it takes none."
            raise GauntletError(f"{owner} has no parameter {name!r}; {hint}")
        checked[name] = known[name].check(value, owner)
    return checked


def coerce(value: Any, annotation: Any) -> Any:
    """Return ``value`` as ``annotation`` wants it, or raise ``ValueError`` with the end of a sentence.

    YAML reads ``1e-3`` as text, so text that spells a number is taken where a number is wanted.

    Raises:
        ValueError: The value does not fit the type.
    """
    if annotation is Any or isinstance(annotation, (str, typing.TypeVar)):
        return value
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return coerce(value, typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return _coerce_union(value, annotation)
    if origin is typing.Literal:
        choices = typing.get_args(annotation)
        if any(value == choice and type(value) is type(choice) for choice in choices):  # True == 1, yet it is not
            return value
        raise ValueError(
            f"must be one of {', '.join(map(str, choices))}, got {value!r}; {nearest(str(value), map(str, choices))}"
        )
    base = origin or annotation
    if base in _SCALARS:
        return _SCALARS[base](value)
    if base in (list, tuple, Sequence):
        return _coerce_sequence(value, annotation, base)
    if base in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise _wrong("a mapping", value)
        return dict(value)
    if base is Callable and not callable(value):
        raise _wrong("a function", value)
    return value


def type_name(annotation: Any) -> str:
    """Short readable form of a type annotation."""
    if annotation is Any:
        return "any"
    if annotation is type(None):
        return "none"
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        return " | ".join(str(choice) for choice in typing.get_args(annotation))
    if origin in (typing.Union, types.UnionType):
        return " | ".join(type_name(part) for part in typing.get_args(annotation))
    if origin is not None:
        inner = ", ".join("..." if part is ... else type_name(part) for part in typing.get_args(annotation))
        return f"{getattr(origin, '__name__', origin)}[{inner}]"
    return getattr(annotation, "__name__", str(annotation))


def _type_hints(factory: Callable[..., Any]) -> dict[str, Any]:
    target = inspect.unwrap(factory.__init__ if inspect.isclass(factory) else factory)
    scope = getattr(target, "__globals__", {})
    hints: dict[str, Any] = {}
    for name, annotation in getattr(target, "__annotations__", {}).items():
        # A hint may name what only a type checker imports; then that one parameter goes unchecked.
        with contextlib.suppress(Exception):
            hints |= typing.get_type_hints(types.SimpleNamespace(__annotations__={name: annotation}), scope)
    return hints


def _wrong(wanted: str, value: Any) -> ValueError:
    return ValueError(f"must be {wanted}, got {value!r}")


def _bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise _wrong("true or false", value)


def _int(value: Any) -> int:
    if isinstance(value, bool):
        raise _wrong("a whole number", value)
    if isinstance(value, str):
        value = _number(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, int):
        return value
    raise _wrong("a whole number", value)


def _float(value: Any) -> float:
    if isinstance(value, bool):
        raise _wrong("a number", value)
    if isinstance(value, str):
        value = _number(value)
    if isinstance(value, (int, float)):
        return float(value)
    raise _wrong("a number", value)


def _number(text: str) -> Any:
    for kind in (int, float):  # a large whole number would lose digits as a float
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def _str(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise _wrong("text", value)


def _path(value: Any) -> Path:
    if isinstance(value, (str, Path)):
        return Path(value)
    raise _wrong("a path", value)


def _none(value: Any) -> None:
    if value is not None:
        raise _wrong("null", value)


_SCALARS: dict[Any, Callable[[Any], Any]] = {
    bool: _bool,
    int: _int,
    float: _float,
    str: _str,
    Path: _path,
    type(None): _none,
}


def _coerce_union(value: Any, annotation: Any) -> Any:
    parts = typing.get_args(annotation)
    for part in parts:  # an exact type wins over one that would convert
        if isinstance(part, type) and type(value) is part:
            return value
    problems = []
    for part in parts:
        try:
            return coerce(value, part)
        except ValueError as error:
            problems.append(str(error))
    if len(parts) == 2 and type(None) in parts:  # "text or null" says less than what is wrong with the text
        raise ValueError(problems[0 if parts[1] is type(None) else 1])
    raise _wrong(type_name(annotation).replace(" | ", " or "), value)


def _coerce_sequence(value: Any, annotation: Any, base: Any) -> Any:
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise _wrong("a list", value)
    inner = typing.get_args(annotation)
    if base is tuple and inner and inner[-1] is not ...:
        if len(value) != len(inner):
            raise _wrong(f"a list of {len(inner)} values", value)
        return tuple(coerce(item, kind) for item, kind in zip(value, inner, strict=True))
    items = [coerce(item, inner[0]) for item in value] if inner else list(value)
    return tuple(items) if base is tuple else items
