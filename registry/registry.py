"""One class for every kind of component: a name leads to an entry, an entry builds the thing."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from .entry import Entry
from .errors import GauntletError, nearest
from .parameters import read_signature

T = TypeVar("T", bound=Callable[..., Any])

#: The plug-in whose code runs now; entries remember it, so that a run can add them to a suite.
current_plugin: ContextVar[str | None] = ContextVar("current_plugin", default=None)

_NAME = re.compile(r"[a-z0-9][a-z0-9._+-]*(/[a-z0-9][a-z0-9._+-]*)*")


class Registry:
    """The components of one kind.

    Args:
        kind: The word used in messages, such as ``"detector"``.
        package: Where the built-ins live; its modules are imported on the first look-up, not before.
        leading: Whether leading arguments of registered functions are data (``needs``) rather than parameters.
        vocabulary: The needs that exist; a need ``output:NAME`` is always allowed. Empty: anything goes.
        supplied: Parameters that Gauntlet fills in where nobody gives them.
        finder: ``module:function`` that is asked for the entry (or None) of a name that is not registered.
    """

    def __init__(
        self,
        kind: str,
        package: str,
        *,
        leading: bool = False,
        vocabulary: tuple[str, ...] = (),
        supplied: tuple[str, ...] = (),
        finder: str = "",
    ) -> None:
        self.kind = kind
        self._package = package
        self._leading = leading
        self._vocabulary = vocabulary
        self.supplied = frozenset(supplied)
        self._finder = finder
        self._entries: dict[str, Entry] = {}
        self._aliases: dict[str, str] = {}
        self._discovered = False

    # -- registering ------------------------------------------------------------------------------------------

    def register(
        self,
        name: str,
        *,
        needs: str | tuple[str, ...] | None = None,
        reference: str = "",
        tags: tuple[str, ...] = (),
        aliases: tuple[str, ...] = (),
        summary: str = "",
        row: str = "",
        **meta: Any,
    ) -> Callable[[T], T]:
        """Return a decorator that registers a class or function under ``name``.

        Args:
            name: Lower-case letters, digits and hyphens; ``/`` makes groups.
            needs: What the leading arguments are; by default their names say it.
            reference: Paper or other source.
            tags: Words for selections (``tag:white-box``).
            aliases: Further names.
            summary: Replaces the first docstring line.
            row: Table row that defines the entry, for table-driven ones.
            **meta: Facts about the component (norm, kind, splits, ...), selectable as ``key:value``.

        Raises:
            GauntletError: The name is malformed or taken, or a need is unknown.
        """
        if not isinstance(name, str):
            raise GauntletError(f"@{self.kind} needs a name: write @{self.kind}('my-{self.kind}').")

        caller = str(sys._getframe(1).f_globals.get("__name__", ""))
        # A plug-in that imports a module of the built-ins owns nothing of what that registers.
        plugin = None if caller.startswith(f"{self._package}.") else current_plugin.get()

        def decorate(factory: T) -> T:
            # A user's module may register before anyone looked up a built-in: find those first, so that a
            # clash is reported for the newcomer and not for the built-in.
            if not str(getattr(factory, "__module__", "")).startswith("gauntlet."):
                self.discover()
            found, parameters = read_signature(factory, leading=self._leading and not inspect.isclass(factory))
            entry = Entry(
                kind=self.kind,
                name=name,
                factory=factory,
                summary=summary or _first_line(factory),
                reference=reference,
                tags=tuple(tags),
                needs=self._check_needs(name, factory, needs, found),
                parameters=parameters,
                aliases=tuple(aliases),
                meta=meta,
                row=row,
                plugin=plugin,
            )
            self._add(entry)
            return factory

        return decorate

    __call__ = register

    def _check_needs(
        self, name: str, factory: Callable[..., Any], needs: str | tuple[str, ...] | None, found: tuple[str, ...]
    ) -> tuple[str, ...]:
        declared = found if needs is None else ((needs,) if isinstance(needs, str) else tuple(needs))
        known = self._vocabulary
        for need in declared:
            if known and need not in known and not need.startswith("output:"):
                raise GauntletError(
                    f"{self.kind} {name!r} needs {need!r}, which is unknown (a parameter has a default); "
                    f"{nearest(need, known)}"
                )
        if self._leading and not inspect.isclass(factory) and len(declared) != len(found):
            raise GauntletError(
                f"{self.kind} {name!r} declares the needs {', '.join(declared) or 'none'} but its leading arguments "
                f"are ({', '.join(found)}): give one argument for each need and a default to every other."
            )
        return declared

    def _add(self, entry: Entry) -> None:
        if not _NAME.fullmatch(entry.name) or is_pattern(entry.name):
            raise GauntletError(
                f"{self.kind} name {entry.name!r} ({entry.where}) is malformed: use lower-case letters, digits, '-', "
                "'.', '_' and '+', with '/' between groups, and not 'all'."
            )
        for name in (entry.name, *entry.aliases):
            taken = self._find(name)
            if taken is not None:
                raise GauntletError(
                    f"{self.kind} {name!r} is registered twice: in {taken.where} and in {entry.where}; "
                    "rename one of them."
                )
        self._entries[entry.name] = entry
        self._aliases.update({alias.lower(): entry.name for alias in entry.aliases})

    def remove_plugin(self, plugin: str) -> list[Entry]:
        """Forget everything that ``plugin`` registered (when it fails half-way or is loaded anew); returns it."""
        gone = {name: entry for name, entry in self._entries.items() if entry.plugin == plugin}
        self._entries = {name: entry for name, entry in self._entries.items() if name not in gone}
        self._aliases = {alias: name for alias, name in self._aliases.items() if name not in gone}
        return list(gone.values())

    # -- looking up -------------------------------------------------------------------------------------------

    def discover(self) -> None:
        """Import the modules of the built-ins, once."""
        if self._discovered:
            return
        self._discovered = True
        token = current_plugin.set(None)
        try:
            package = importlib.import_module(self._package)
            for module in pkgutil.iter_modules(package.__path__):
                importlib.import_module(f"{self._package}.{module.name}")
        except BaseException:
            self._discovered = False
            raise
        finally:
            current_plugin.reset(token)

    def get(self, name: str) -> Entry:
        """The entry called ``name`` (or an alias of it)."""
        self.discover()
        entry = self._find(name) or self._found_elsewhere(name)
        if entry is None:
            known = [*self._entries, *(alias for entry in self._entries.values() for alias in entry.aliases)]
            raise GauntletError(f"Unknown {self.kind} {name!r}; {nearest(str(name), known)}")
        return entry

    def _found_elsewhere(self, name: str) -> Entry | None:
        module, _, function = self._finder.partition(":")
        return getattr(importlib.import_module(module), function)(name) if module else None

    def _find(self, name: str) -> Entry | None:
        lowered = name.lower()
        return self._entries.get(self._aliases.get(lowered, lowered))

    def create(self, name: str, /, *arguments: Any, **parameters: Any) -> Any:
        """Build the component: look it up, check the parameters, call it."""
        entry = self.get(name)
        checked = entry.check(parameters)
        if not arguments:  # positional ones may be those without default
            entry.require(checked)
        return entry.factory(*arguments, **checked)

    def match(self, pattern: str) -> list[Entry]:
        """Entries that a selection picks: ``all``, a glob, ``tag:WORD`` or ``KEY:VALUE`` (as in ``norm:linf``)."""
        self.discover()
        if pattern == "all":
            return list(self)
        key, colon, value = pattern.partition(":")
        if colon:
            return [entry for entry in self if _has_fact(entry, key, value)]
        return [entry for entry in self if fnmatchcase(entry.name, pattern)]

    def __iter__(self) -> Iterator[Entry]:
        self.discover()
        return iter([self._entries[name] for name in sorted(self._entries)])

    def __len__(self) -> int:
        self.discover()
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        with contextlib.suppress(GauntletError):
            return self.get(str(name)) is not None
        return False

    def __repr__(self) -> str:
        return f"<{self.kind} registry of {len(self._entries)} entries>"


def is_pattern(text: str) -> bool:
    """Whether a selection is a pattern (may pick any number of entries) rather than a name."""
    return text == "all" or ":" in text or any(sign in text for sign in "*?[")


def _has_fact(entry: Entry, key: str, value: str) -> bool:
    if key == "tag":
        return value in entry.tags
    fact = entry.meta.get(key, ())
    facts = fact if isinstance(fact, (tuple, list, set, frozenset)) else [fact]
    return value.lower() in (str(one).lower() for one in facts)


def _first_line(factory: Callable[..., Any]) -> str:
    return (inspect.getdoc(factory) or "").strip().partition("\n")[0]
