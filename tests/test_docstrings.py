"""What docstrings promise."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("attacks", "bench", "datasets", "detectors", "models", "registry", "results")
FILES = sorted(path.relative_to(ROOT) for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def documented(node: ast.AST, owner: ast.ClassDef | None = None) -> Iterator[tuple[ast.FunctionDef, str]]:
    """Public functions and methods with their docstring; that of a class is its constructor's."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
            yield from documented(child, child)
        elif isinstance(child, ast.FunctionDef) and child.name == "__init__" and owner is not None:
            yield child, ast.get_docstring(owner) or ""
        elif isinstance(child, ast.FunctionDef) and not child.name.startswith("_"):
            yield child, ast.get_docstring(child) or ""


def raises_for_users(function: ast.FunctionDef) -> bool:
    found = [node.exc for node in ast.walk(function) if isinstance(node, ast.Raise)]
    return any(isinstance(exc, ast.Call) and ast.unparse(exc.func) == "GauntletError" for exc in found)


@pytest.mark.parametrize("path", FILES, ids=str)
def test_what_raises_a_gauntlet_error_says_so(path: Path):
    commands = path.match("bench/cli*.py")  # their docstrings are the help that a user reads
    silent = [
        function.name
        for function, text in documented(ast.parse((ROOT / path).read_text(encoding="utf-8")))
        if raises_for_users(function) and "Raises:" not in text and not commands
    ]
    assert silent == []
