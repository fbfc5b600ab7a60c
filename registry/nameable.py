"""Whose functions a suite may name as models: a file from anywhere must not run what happens to be importable."""

from __future__ import annotations

import contextlib
import importlib.util
import re
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from pathlib import Path

from .errors import GauntletError

#: ``module:function``, as models are named that nobody registered.
FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")

#: The modules that may be named now; None for any, as Python code may import what it likes.
_nameable: ContextVar[frozenset[str] | None] = ContextVar("nameable", default=None)


@contextlib.contextmanager
def naming(modules: frozenset[str] | None) -> Iterator[None]:
    """Let only these modules be named inside the block; None allows any."""
    token = _nameable.set(modules)
    try:
        yield
    finally:
        _nameable.reset(token)


def nameable(texts: Iterable[str], folder: Path | None, plugins: Iterable[str]) -> frozenset[str]:
    """The modules of ``module:function`` texts that a suite file may name.

    Args:
        texts: Everything that stands in the suite.
        folder: That of the file: what lies in it belongs to the suite.
        plugins: Identities of the plug-ins that were named beside it; modules below them count, too.
    """
    modules = {text.partition(":")[0] for text in texts if FUNCTION.fullmatch(text)}
    named = {Path(plugin).stem if plugin.endswith(".py") else plugin for plugin in plugins}
    return frozenset(
        module
        for module in modules
        if any(f"{module}.".startswith(f"{name}.") for name in named) or (folder and _lies_in(folder, module))
    )


def require_nameable(module: str) -> None:
    """Check that a module may be imported because a suite names it.

    Raises:
        GauntletError: It may not; the message says how it may.
    """
    allowed = _nameable.get()
    if allowed is not None and module not in allowed:
        raise GauntletError(
            f"A suite names functions only of modules that lie beside it, or that were named when it was started: add "
            f"`--plugin {module}` (in Python: plugins=[{module!r}])."
        )


def _lies_in(folder: Path, module: str) -> bool:
    """Whether a module's outermost package would be imported from ``folder``; nothing is run to find out."""
    try:
        spec = importlib.util.find_spec(module.partition(".")[0])
    except (ImportError, ValueError):
        return False
    if spec is None:
        return False
    places = [*(spec.submodule_search_locations or ()), spec.origin or ""]
    return any(Path(place).parent == folder.resolve() for place in places[:1])
