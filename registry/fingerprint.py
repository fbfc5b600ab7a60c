"""Fingerprint of a component's source: changes when its code changes, not when a comment does."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import json
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from .entry import Entry
from .files_read import files_read
from .source_code import code_of_module, code_reached, files_named, imported, is_own

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

    It covers the registered object, what it uses of its own module, the modules that it imports (and theirs) from
    anywhere but installed packages, and of those the versions; the files that this code names, or that it read while
    it was imported; those of the fact ``files``; its table row, the plain values that it was made with (closure,
    partial), and the versions of the libraries named in ``meta["versions"]``. Comments, docstrings and layout do not
    count. Of Gauntlet's own components it covers modules in and below their folder.
    """
    target, made_with = _unwrap(entry.factory)
    parts: list[Any] = [entry.row, *_versions(entry.meta.get("versions", ())), *made_with]
    try:
        file = Path(inspect.getfile(target)).resolve()
        parts += _source(file, target.__qualname__.partition(".")[0])
    except (AttributeError, OSError, TypeError, SyntaxError, UnicodeDecodeError):
        # No file of Python source: compiled, or typed into an interpreter.
        parts.append(_without_file(target))
    return digest([*parts, *_contents(entry.files)])


def _source(file: Path, name: str) -> list[Any]:
    """Code that a definition relies on, and the content of the files that this code reads."""
    modules, packages = imported(file)
    code = {file: code_reached(file, name), **{path: code_of_module(path) for path in modules}}
    found: list[Any] = [*code.values(), *_versions(map(_distribution, packages))]
    return found if is_own(file) else found + _contents(_data(code))


def _data(code: Mapping[Path, str]) -> set[Path]:
    """Files that modules name or read at import, beside their source."""
    named = (files_named(text, path.parent) | files_read(path) for path, text in code.items())
    return {file for files in named for file in files} - set(code)


def _contents(files: Iterable[Path]) -> list[Any]:
    return sorted([path.name, _content(path)] for path in files)


def _content(path: Path) -> str:
    if not path.is_file():
        return "absent"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


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


def _distribution(package: str) -> str:
    """The distribution that an imported name comes from."""
    import importlib.metadata

    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.distribution(package).name
    return next(iter(_distributions().get(package, ())), package)


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    import importlib.metadata

    return importlib.metadata.packages_distributions()
