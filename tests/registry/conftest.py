"""A registry of its own for every test, with a package of built-ins, and plug-ins in temporary folders."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest

from gauntlet.registry import REGISTRIES, Registry, plugins
from gauntlet.registry.facts import Facts


class WidgetFacts(Facts, total=False):
    """What the decorator of widgets takes."""

    norm: Literal["l2", "linf"]
    kinds: tuple[str, ...]
    trained: bool


@pytest.fixture(autouse=True)
def _clean_imports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The search path, the modules and the registries are afterwards what they were."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(plugins, "_loaded", {})
    for registry in REGISTRIES.values():
        registry.discover()
    yield
    for registry in REGISTRIES.values():
        for plugin in {entry.plugin for entry in registry if entry.plugin}:
            registry.remove_plugin(plugin)
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def make_registry(tmp_path: Path) -> Callable[..., Registry]:
    """Build a registry of widgets whose built-ins are in the given source text."""

    def make(builtins: str = "", **options) -> Registry:
        package = tmp_path / "builtin_widgets"
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "first.py").write_text(textwrap.dedent(builtins))
        sys.path.insert(0, str(tmp_path))
        return Registry("widget", "builtin_widgets", **{"facts": WidgetFacts, **options})

    return make


@pytest.fixture
def widgets(make_registry: Callable[..., Registry]) -> Registry:
    """A registry without built-ins."""
    return make_registry()


@pytest.fixture
def plugin(tmp_path: Path) -> Callable[..., Path]:
    """Write the source text of a plug-in and return its path."""

    def write(source: str, name: str = "plugin.py") -> Path:
        path = tmp_path / "plugins" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))
        return path

    return write
