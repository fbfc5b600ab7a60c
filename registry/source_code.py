"""Python source as code alone (no comments, docstrings or layout): what a definition uses, what a module imports."""

from __future__ import annotations

import ast
import functools
import importlib.util
import sys
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path

#: Gauntlet itself: what plug-ins use of its components is part of them, its framework is not.
PACKAGE, PACKAGE_NAME = Path(__file__).resolve().parents[1], __name__.partition(".")[0]
_COMPONENTS, _FRAMEWORK = ("attacks", "datasets", "detectors", "models"), ("bench", "registry", "results")
_PYTHON = Path(ast.__file__).resolve().parent


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


def imported(file: Path) -> tuple[list[Path], list[str]]:
    """What a module imports, directly or through one another: source files in path order, and installed packages.

    Of Gauntlet's own components these are the modules in and below their folder, and no packages: what they share is
    the framework. Anything else is followed wherever it is imported from, up to installed packages.
    """
    file = file.resolve()
    root = file.parent
    inside = root if is_own(file) else None
    found: set[Path] = set()
    packages: set[str] = set()
    queue = [file]
    while queue:
        path = queue.pop()
        for name in _imports(_read(path)):
            paths, package = _locate(name, path, root)
            fresh = {one for one in paths if one not in found and (inside is None or one.is_relative_to(inside))}
            found |= fresh
            queue.extend(fresh)
            packages |= {package} if package and inside is None else set()
    return sorted(found - {file}), sorted(packages)


def files_named(code: str, folder: Path) -> set[Path]:
    """The files that texts in the code name, relative to the folder of its module or to the present one."""
    texts = (node.value for node in ast.walk(_tree(code)) if isinstance(node, ast.Constant))
    names = {
        text for text in texts if isinstance(text, str) and 2 < len(text) < 256 and "." in text and "\0" not in text
    }
    paths = {start / name for name in names for start in (folder, Path())}
    return {path.resolve() for path in paths if path.is_file()}


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
        elif isinstance(node, ast.Call):
            names |= {(0, dotted) for dotted in _imported_by_name(node)}
    return frozenset(names)


def _imported_by_name(call: ast.Call) -> list[str]:
    """The module of ``import_module("a.b")`` and ``__import__("a.b")``."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name not in ("import_module", "__import__") or not call.args or not isinstance(call.args[0], ast.Constant):
        return []
    return [str(call.args[0].value).lstrip(".")]


def _locate(name: tuple[int, str], importer: Path, root: Path) -> tuple[set[Path], str]:
    """Files that an import runs (the module and the packages around it), or else the installed package it is from."""
    level, dotted = name
    parts = dotted.split(".")
    if level:
        return _files(importer.parents[level - 1], parts, root), ""
    if parts[0] in sys.stdlib_module_names:
        return set(), ""
    # Absolute names start at the folder of the component (a plug-in's is on the path), in the package, or on the path.
    near = {root, _above_package(root), _above_package(importer.parent)}
    own = (start for start in near if not is_installed(start))  # beside an installed Gauntlet lies all of torch
    if found := {path for start in own for path in _files(start, parts, root)}:
        return found, ""
    if parts[0] == PACKAGE_NAME:
        return _files(PACKAGE, parts[1:], root), ""
    places = _on_path(parts[0])
    if any(is_installed(place) for place in places):
        return set(), parts[0]
    return {path for place in places for path in _files(place, parts, root)}, ""


def _files(start: Path, parts: list[str], root: Path) -> set[Path]:
    """The modules that ``a.b.c`` runs below a folder; of Gauntlet only components, as the rest is the framework."""
    stems = [start.joinpath(*parts[:length]) for length in range(1, len(parts) + 1)]
    paths = [path for stem in stems for path in (stem.parent / f"{stem.name}.py", stem / "__init__.py")]
    files = {path.resolve() for path in paths if path.is_file()} - {root / "__init__.py"}
    return {path for path in files if not path.is_relative_to(PACKAGE) or _is_followed(path)}


def _on_path(top: str) -> list[Path]:
    """The folders from which a top-level module is imported; nothing is run to find them."""
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError, AttributeError):
        return []
    if spec is None:
        return []
    found = list(spec.submodule_search_locations or ()) or [spec.origin or ""]
    return [Path(place).parent for place in found]


def is_installed(path: Path) -> bool:
    """Whether a path belongs to an installed package or to Python itself."""
    return bool({"site-packages", "dist-packages"} & set(path.parts)) or path.is_relative_to(_PYTHON)


def is_own(file: Path) -> bool:
    """Whether a file is Gauntlet's own (and no example or test beside it)."""
    return file.is_relative_to(PACKAGE) and file.relative_to(PACKAGE).parts[0] in {*_COMPONENTS, *_FRAMEWORK}


def _is_followed(file: Path) -> bool:
    return not is_own(file) or file.relative_to(PACKAGE).parts[0] in _COMPONENTS


def _above_package(folder: Path) -> Path:
    """The folder from which a package that ``folder`` belongs to is imported."""
    while (folder / "__init__.py").is_file():
        folder = folder.parent
    return folder
