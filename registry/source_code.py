"""Python source as code alone (no comments, docstrings or layout): what a definition uses, what a module imports."""

from __future__ import annotations

import ast
import functools
import sys
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path


def code_of_module(file: Path) -> str:
    """All code of a module."""
    return _unparsed(_read(file))


def code_reached(file: Path, name: str) -> str:
    """Code of the top-level definition ``name`` and of every top-level statement of its module that it relies on."""
    defined = _definitions(_read(file))
    if name not in defined:  # made in a loop or by a table: the whole module defines it
        return code_of_module(file)
    wanted, seen = [name], {name}
    while wanted:
        for _, used in defined[wanted.pop()]:
            fresh = sorted((used & defined.keys()) - seen)
            seen.update(fresh)
            wanted.extend(fresh)
    return "\n".join(code for reached in sorted(seen) for code, _ in defined[reached])


def modules_imported(file: Path) -> list[Path]:
    """Modules in and below the folder of ``file`` that it imports, directly or through one another, in path order."""
    file = file.resolve()
    found: set[Path] = set()
    queue = [file]
    while queue:
        path = queue.pop()
        fresh = {module for name in _imports(_read(path)) for module in _locate(name, path, file.parent)} - found
        found |= fresh
        queue.extend(fresh)
    return sorted(found - {file})


def _read(file: Path) -> str:
    with tokenize.open(file) as source:
        return source.read()


# Keyed by the text itself: file times are too coarse for a file that is written twice in a moment.
@functools.lru_cache(maxsize=256)
def _tree(source: str) -> ast.Module:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and _has_docstring(node):
            node.body = node.body[1:] or [ast.Pass()]
    return tree


def _has_docstring(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    first = node.body[0] if node.body else None
    return isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)


@functools.lru_cache(maxsize=256)
def _unparsed(source: str) -> str:
    return ast.unparse(_tree(source))


# -- what a definition uses -----------------------------------------------------------------------------------


@functools.lru_cache(maxsize=256)
def _definitions(source: str) -> Mapping[str, list[tuple[str, set[str]]]]:
    """For every top-level name: the statements that bind or change it, in order, each with the names that it uses."""
    defined: dict[str, list[tuple[str, set[str]]]] = {}
    for statement in _tree(source).body:
        for name, node in _bindings(statement):
            used = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
            defined.setdefault(name, []).append((ast.unparse(node), used))
    return defined


def _bindings(statement: ast.stmt) -> Iterator[tuple[str, ast.stmt]]:
    if isinstance(statement, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        yield statement.name, statement
    elif isinstance(statement, ast.Import):
        for alias in statement.names:  # one by one: a neighbour in the same line does not count
            yield alias.asname or alias.name.partition(".")[0], ast.Import([alias])
    elif isinstance(statement, ast.ImportFrom):
        for alias in statement.names:
            yield alias.asname or alias.name, ast.ImportFrom(statement.module, [alias], statement.level)
    else:
        for name in sorted(_changed(statement)):
            yield name, statement


def _changed(statement: ast.stmt) -> set[str]:
    """Names that an assignment, a method call (``TABLE.update(...)``) or a compound statement binds or changes."""
    names: set[str] = set()
    inner: set[int] = set()  # loop variables of comprehensions, which bind nothing outside
    for node in ast.walk(statement):
        if isinstance(node, ast.comprehension):
            inner |= {id(part) for part in ast.walk(node.target)}
        elif isinstance(node, (ast.Name, ast.Attribute, ast.Subscript)) and isinstance(node.ctx, ast.Store):
            names |= set() if id(node) in inner else _root(node)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            names |= _root(node.value.func) if isinstance(node.value.func, ast.Attribute) else set()
        elif isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
    return names


def _root(node: ast.expr) -> set[str]:
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        node = node.value
    return {node.id} if isinstance(node, ast.Name) else set()


# -- what a module imports ------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=256)
def _imports(source: str) -> frozenset[tuple[int, str]]:
    """(level, dotted name) of every import; ``from a import b`` gives a.b, where b may turn out to be no module."""
    names: set[tuple[int, str]] = set()
    for node in ast.walk(_tree(source)):
        if isinstance(node, ast.Import):
            names |= {(0, alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {(node.level, ".".join(filter(None, (node.module, alias.name)))) for alias in node.names}
    return frozenset(names)


def _locate(name: tuple[int, str], importer: Path, root: Path) -> Iterator[Path]:
    """Files at or below ``root`` that an import runs: the module and the packages around it."""
    level, dotted = name
    parts = dotted.split(".")
    if level == 0 and parts[0] in sys.stdlib_module_names:
        return
    # Absolute names start at the folder of the component (a plug-in's is on the path) or in the package itself.
    starts = [importer.parents[level - 1]] if level else [root, _above_package(root)]
    for start in starts:
        for length in range(1, len(parts) + 1):
            stem = start.joinpath(*parts[:length])
            for path in (stem.parent / f"{stem.name}.py", stem / "__init__.py"):
                if path.is_file() and (path := path.resolve()).is_relative_to(root) and path != root / "__init__.py":
                    yield path


def _above_package(folder: Path) -> Path:
    """The folder from which a package that ``folder`` belongs to is imported."""
    while (folder / "__init__.py").is_file():
        folder = folder.parent
    return folder
