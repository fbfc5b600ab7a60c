"""Fingerprint of a component's source: changes when its code changes, not when a comment does."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import json
import types
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from .entry import Entry
from .source_code import code_of_module, code_reached, modules_imported

_SIMPLE = (bool, int, float, str, bytes, type(None))


def digest(*parts: Any) -> str:
    """Hex digest (32 characters) of JSON-able values; mappings are compared regardless of order."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


_remembered: ContextVar[dict[int, str] | None] = ContextVar("remembered", default=None)


@contextlib.contextmanager
def fingerprints_remembered() -> Iterator[None]:
    """Read the source of each entry once inside the block: a plan asks for the same one thousands of times."""
    token = _remembered.set({})
    try:
        yield
    finally:
        _remembered.reset(token)


def source_fingerprint(entry: Entry) -> str:
    """Digest of the code that defines ``entry``; see :func:`_fingerprint`."""
    known = _remembered.get()
    if known is None:
        return _fingerprint(entry)
    if id(entry) not in known:
        known[id(entry)] = _fingerprint(entry)
    return known[id(entry)]


def _fingerprint(entry: Entry) -> str:
    """Digest of the code that defines ``entry``.

    It covers the registered object, what it uses of its own module, the modules in and below its own folder that it
    imports (and theirs), its table row, the plain values that it was made with (closure, partial), and the versions
    of the libraries named in ``meta["versions"]``. Comments, docstrings and layout do not count.
    """
    target, made_with = _unwrap(entry.factory)
    parts: list[Any] = [entry.row, *_versions(entry.meta.get("versions", ())), *made_with]
    try:
        file = Path(inspect.getfile(target)).resolve()
        parts.append(code_reached(file, target.__qualname__.partition(".")[0]))
        parts.extend(code_of_module(path) for path in modules_imported(file))
    except (AttributeError, OSError, TypeError, SyntaxError, UnicodeDecodeError):
        # No file of Python source: compiled, or typed into an interpreter.
        parts.append(_without_file(target))
    return digest(parts)


def _unwrap(factory: Callable[..., Any]) -> tuple[Any, list[str]]:
    """The definition behind decorators and partials, and the plain values that they and closures hold."""
    target: Any = inspect.unwrap(factory)
    values: list[str] = []
    while isinstance(target, functools.partial):
        values.append(repr([target.args, sorted(target.keywords.items())]))
        target = inspect.unwrap(target.func)
    for cell in getattr(target, "__closure__", None) or ():
        with contextlib.suppress(ValueError):  # an empty cell
            if isinstance(cell.cell_contents, _SIMPLE):
                values.append(repr(cell.cell_contents))
    return target, values


def _without_file(target: Any) -> list[Any]:
    """Name and byte code of a function, or of a class's methods."""
    functions = [target, *vars(target).values()] if inspect.isclass(target) else [target]
    name = [getattr(target, "__module__", ""), getattr(target, "__qualname__", type(target).__qualname__)]
    return [name, [_byte_code(function.__code__) for function in functions if hasattr(function, "__code__")]]


def _byte_code(code: types.CodeType) -> list[Any]:
    inner = [_byte_code(item) if isinstance(item, types.CodeType) else repr(item) for item in code.co_consts]
    return [code.co_code.hex(), code.co_names, code.co_varnames, inner]


def _versions(names: str | Iterable[str]) -> list[str]:
    import importlib.metadata

    found = []
    for name in [names] if isinstance(names, str) else names:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{name} absent")
    return found
