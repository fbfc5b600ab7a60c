"""Fingerprint of a component's source: changes when its code changes, not when a comment does."""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .entry import Entry


def digest(*parts: Any) -> str:
    """Hex digest (32 characters) of JSON-able values; mappings are compared regardless of order."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def source_fingerprint(entry: Entry) -> str:
    """Digest of the code that defines ``entry``.

    It covers the registered object, what it uses of its own module, the modules of its own folder that it imports
    (and theirs), its table row, and the versions of the libraries named in ``meta["wraps"]``. Comments, docstrings
    and layout do not count.
    """
    target = inspect.unwrap(entry.factory)
    parts: list[str] = [entry.row, *_versions(entry.meta.get("wraps", ()))]
    try:
        file = Path(inspect.getfile(target)).resolve()
        parts.append(_reachable(file, target.__qualname__.partition(".")[0]))
        parts.extend(_module(path) for path in _own_folder(file, frozenset({file})))
    except (OSError, TypeError, SyntaxError):
        parts.append(repr(target))
    return digest(parts)


def _versions(names: str | Iterable[str]) -> list[str]:
    import importlib.metadata

    found = []
    for name in [names] if isinstance(names, str) else names:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{name} absent")
    return found


@functools.lru_cache(maxsize=512)
def _tree(file: Path, modified: int) -> ast.Module:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
            and isinstance(body[0].value.value, str)
        ):
            node.body = body[1:] or [ast.Pass()]
    return tree


def _parse(file: Path) -> ast.Module:
    return _tree(file, file.stat().st_mtime_ns)


def _module(file: Path) -> str:
    return ast.unparse(_parse(file))


def _reachable(file: Path, name: str) -> str:
    """Source of the top-level definition ``name`` and of every top-level definition of its module that it uses."""
    defined: dict[str, ast.stmt] = {}
    for statement in _parse(file).body:
        for bound in _bound_names(statement):
            defined[bound] = statement
    if name not in defined:  # made in a loop or by a table: the whole module defines it
        return _module(file)
    wanted, seen = [name], {name}
    while wanted:
        for node in ast.walk(defined[wanted.pop()]):
            used = node.id if isinstance(node, ast.Name) else None
            if used in defined and used not in seen:
                seen.add(used)
                wanted.append(used)
    unique = {id(defined[used]): defined[used] for used in sorted(seen)}
    return "\n".join(ast.unparse(statement) for statement in unique.values())


def _bound_names(statement: ast.stmt) -> list[str]:
    if isinstance(statement, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        return [statement.name]
    if isinstance(statement, ast.Assign):
        return [node.id for target in statement.targets for node in ast.walk(target) if isinstance(node, ast.Name)]
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        return [statement.target.id]
    return []


def _own_folder(file: Path, seen: frozenset[Path]) -> list[Path]:
    """Modules of the same folder that ``file`` imports, directly or through one another, in a fixed order."""
    found: dict[Path, None] = {}
    queue = [file]
    while queue:
        for path in sorted(_imports(queue.pop())):
            if path not in seen and path not in found:
                found[path] = None
                queue.append(path)
    return sorted(found)


def _imports(file: Path) -> set[Path]:
    folder = file.parent
    names: set[str] = set()
    for node in ast.walk(_parse(file)):
        if isinstance(node, ast.ImportFrom):
            if node.level == 1:
                names.update([node.module] if node.module else [alias.name for alias in node.names])
            elif node.level == 0 and node.module:
                names.add(node.module)
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
    paths = set()
    for name in names:
        candidate = folder / f"{name.rpartition('.')[2] if name.startswith('gauntlet.') else name.split('.')[0]}.py"
        if candidate.is_file() and candidate.name not in _STANDARD:
            paths.add(candidate.resolve())
    return paths


_STANDARD = {f"{name}.py" for name in sys.stdlib_module_names}
