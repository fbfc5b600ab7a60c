"""One class for every kind of component: a name leads to an entry, an entry builds the thing."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from .component import BoundFunction
from .entry import Entry
from .errors import GauntletError, nearest
from .facts import Facts, check_facts
from .origin import caller, redefined
from .parameters import read_signature

T = TypeVar("T", bound=Callable[..., Any])

#: The plug-in whose code runs now; entries remember it, so that a run can add them to a suite.
current_plugin: ContextVar[str | None] = ContextVar("current_plugin", default=None)

#: What is no fact of the kind, but a field of the entry.
_FIELDS = {"reference", "tags", "aliases", "row", "plugin", "origin"}

_NAME = re.compile(r"[a-z0-9][a-z0-9._+-]*(/[a-z0-9][a-z0-9._+-]*)*")


class Registry:
    """The components of one kind.

    Args:
        kind: The word used in messages, such as ``"detector"``.
        package: Where the built-ins live; its modules are imported on the first look-up, not before.
        leading: Whether leading arguments of registered functions are data (``needs``) rather than parameters.
        facts: The :class:`Facts` that the decorator takes.
        stated: Facts that a class attribute or the default of a parameter may state, and what holds otherwise.
        vocabulary: The needs that exist; a need ``output:NAME`` is always allowed. Empty: anything goes.
        supplied: Parameters that Gauntlet fills in where nobody gives them.
        builder: ``module:function`` that makes a component of an entry and parameters, where calling it is not enough.
        wrappers: By a key that a spec may have though the component does not know it, the component around that one
            that does; it takes it as a parameter called like the kind.
        finder: ``module:function`` that is asked for the entry (or None) of a name that is not registered.
    """

    def __init__(
        self,
        kind: str,
        package: str,
        *,
        facts: type = Facts,
        stated: Mapping[str, Any] | None = None,
        leading: bool = False,
        vocabulary: tuple[str, ...] = (),
        supplied: tuple[str, ...] = (),
        wrappers: Mapping[str, str] | None = None,
        finder: str = "",
        builder: str = "",
    ) -> None:
        self.kind = kind
        self._package = package
        self._facts = facts
        self._stated = dict(stated or {})
        self._leading = leading
        self._vocabulary = vocabulary
        self.supplied = frozenset(supplied)
        self.wrappers = dict(wrappers or {})
        self._finder = finder
        self._builder = builder
        self._entries: dict[str, Entry] = {}
        self._aliases: dict[str, str] = {}
        self._discovered = False

    # -- registering ------------------------------------------------------------------------------------------

    def register(self, name: str, **facts: Any) -> Callable[[T], T]:
        """Return a decorator that registers a class or function under ``name``.

        Args:
            name: Lower-case letters, digits and hyphens; ``/`` makes groups.
            **facts: Those of the kind (:mod:`.facts`), selectable as ``key:value``.

        Raises:
            GauntletError: The name is malformed or taken, a fact is unknown or of another type, or a need is unknown.
        """
        if not isinstance(name, str):
            raise GauntletError(f"@{self.kind} needs a name: write @{self.kind}('my-{self.kind}').")
        module, origin = caller()
        facts = check_facts(self._facts, facts, f"{origin}: {self.kind} {name!r}")
        # A plug-in that imports a module of the built-ins owns nothing of what that registers.
        plugin = None if module.startswith(f"{self._package}.") else current_plugin.get()

        def decorate(factory: T) -> T:
            # A user's module may register before anyone looked up a built-in: find those first, so that a
            # clash is reported for the newcomer and not for the built-in.
            if not str(getattr(factory, "__module__", "")).startswith("gauntlet."):
                self.discover()
            self._add(self._entry(name, factory, {**facts, "plugin": plugin, "origin": origin}))
            return factory

        return decorate

    __call__ = register

    def _entry(self, name: str, factory: Callable[..., Any], facts: dict[str, Any]) -> Entry:
        found, parameters = read_signature(factory, leading=self._leading and not inspect.isclass(factory))
        needs = self._check_needs(name, factory, facts.pop("needs", None), found)
        own = {
            key: facts.pop(key) for key in ("reference", "tags", "aliases", "row", "plugin", "origin") if key in facts
        }
        entry = Entry(
            kind=self.kind,
            name=name,
            factory=factory,
            summary=facts.pop("summary", "") or _first_line(factory),
            needs=needs,
            parameters=parameters,
            meta=facts,
            **own,
        )
        for key, otherwise in self._stated.items():
            facts[key] = _agreed(entry, key, otherwise)
        return entry

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
            if taken is not None and taken.name == entry.name and redefined(taken, entry):
                self._forget([taken.name])
            elif taken is not None:
                raise GauntletError(
                    f"{self.kind} {name!r} is registered twice: in {taken.where} and in {entry.where}; "
                    "rename one of them."
                )
        self._entries[entry.name] = entry
        self._aliases.update({alias.lower(): entry.name for alias in entry.aliases})

    def of_plugins(self) -> list[Entry]:
        """What plug-ins have registered; finds no built-in for it."""
        return [entry for entry in self._entries.values() if entry.plugin]

    def remove_plugin(self, plugin: str) -> list[Entry]:
        """Forget everything that ``plugin`` registered (when it fails half-way or is loaded anew); returns it."""
        gone = [entry for entry in self._entries.values() if entry.plugin == plugin]
        self._forget([entry.name for entry in gone])
        return gone

    def adopt(self, modules: Sequence[str], plugin: str) -> None:
        """Let ``plugin`` own what imported modules registered."""
        for name, entry in self._entries.items():
            if getattr(entry.factory, "__module__", "") in modules:
                self._entries[name] = replace(entry, plugin=plugin)

    def _forget(self, gone: list[str]) -> None:
        self._entries = {name: entry for name, entry in self._entries.items() if name not in gone}
        self._aliases = {alias: name for alias, name in self._aliases.items() if name not in gone}

    @contextlib.contextmanager
    def lending(self, entries: Iterable[Entry]) -> Iterator[None]:
        """Know these entries, which hold objects of the caller's, in the block only."""
        names = []
        try:
            for entry in entries:
                self._entries[entry.name] = entry
                names.append(entry.name)
            yield
        finally:
            self._forget(names)

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
        """The entry called ``name`` (or an alias of it).

        Raises:
            GauntletError: There is no such entry; the message names the nearest.
        """
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

    def create(self, name: str, /, **parameters: Any) -> Any:
        """Build the component: look it up, check the parameters, call it.

        A function of data comes back with its parameters set, to be called with its needs in order.

        Raises:
            GauntletError: The name is unknown, or a parameter is unknown, of another type, or has no value.
        """
        entry = self.get(name)
        module, _, function = self._builder.partition(":")
        if module:
            return getattr(importlib.import_module(module), function)(entry, parameters)
        if not self._leading or entry.is_class:
            return entry.build(parameters)
        checked = entry.check(parameters)
        entry.require(checked)
        return entry.signed(BoundFunction(entry.factory, checked), checked)

    def names(self, pattern: str = "*") -> list[str]:
        """Names of the entries that a glob, ``tag:WORD`` or ``KEY:VALUE`` picks, in alphabetical order."""
        return [entry.name for entry in self.match(pattern)]

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


def _agreed(entry: Entry, key: str, otherwise: str) -> str:
    """A fact that the decorator, the default of a parameter or a class attribute states; they must agree."""
    default, said = entry.defaults().get(key), entry.meta.get(key)
    if isinstance(default, str) and said is not None and said != default:
        raise GauntletError(
            f"{entry.kind} {entry.name!r} ({entry.where}) is declared with {key}={said!r}, but built with {default!r} "
            "where nothing else is said: make them equal."
        )
    stated = default, getattr(entry.factory, key, None)
    return said or next((one for one in stated if isinstance(one, str)), otherwise)


def _has_fact(entry: Entry, key: str, value: str) -> bool:
    if key == "tag":
        return value in entry.tags
    fact = entry.meta.get(key, ())
    facts = fact if isinstance(fact, (tuple, list, set, frozenset)) else [fact]
    return value.lower() in (str(one).lower() for one in facts)


def _first_line(factory: Callable[..., Any]) -> str:
    return (inspect.getdoc(factory) or "").strip().partition("\n")[0]
