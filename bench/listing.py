"""What `gauntlet list` shows: every registry, with parameters, facts and references."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tabulate import tabulate

from ..registry import REGISTRIES, Entry, GauntletError, load_entry_points, load_plugins, nearest
from .suite import builtin_suites, load_suite

_FACTS = ("norm", "kind", "access", "cost", "shape", "splits", "children")


def listing(kind: str | None, plugins: Sequence[str] = (), *, as_json: bool = False) -> tuple[str, list[str]]:
    """The text of one kind (``attacks``, ``attack``, ``suites``) or of all; and plug-ins that did not load."""
    problems = [*load_entry_points(REGISTRIES.values()), *load_plugins(plugins, REGISTRIES.values())]
    kinds = [*REGISTRIES, "suite"]
    chosen = kinds if kind is None else [_kind(kind, kinds)]
    content = {name: _suites() if name == "suite" else [_facts(entry) for entry in REGISTRIES[name]] for name in chosen}
    if as_json:
        return json.dumps(content, indent=1, default=str), problems
    return "\n\n".join(_table(name, rows) for name, rows in content.items()), problems


def _kind(word: str, kinds: Sequence[str]) -> str:
    singular = word.removesuffix("s")
    if singular not in kinds:
        hint = nearest(word, [f"{name}s" for name in kinds])
        raise GauntletError(f"There is no registry of {word!r}; {hint}")
    return singular


def _suites() -> list[dict[str, Any]]:
    return [{"name": name, "summary": load_suite(name).summary} for name in builtin_suites()]


def _facts(entry: Entry) -> dict[str, Any]:
    facts = {name: entry.meta[name] for name in _FACTS if name in entry.meta}
    return {
        "name": entry.name,
        "aliases": list(entry.aliases),
        "summary": entry.summary,
        "parameters": {
            parameter.name: {
                "type": parameter.type_name,
                **({} if parameter.required else {"default": parameter.default}),
            }
            for parameter in entry.parameters
        },
        "needs": list(entry.needs),
        "tags": list(entry.tags),
        "reference": entry.reference,
        "plugin": entry.plugin,
        **facts,
    }


def _table(kind: str, rows: list[dict[str, Any]]) -> str:
    facts = [name for name in _FACTS if any(name in row for row in rows)]
    headers = ["name", *facts, *(["needs"] if kind == "detector" else []), "parameters", "summary", "reference"]
    if kind == "suite":
        headers = ["name", "summary"]
    body = [[_text(header, row.get(header, "")) for header in headers] for row in rows]
    widths = [None if header == "name" else 34 if header in ("summary", "parameters") else 28 for header in headers]
    if kind == "suite":
        widths = [None, 100]
    return f"{kind}s ({len(rows)})\n" + tabulate(body, headers=headers, tablefmt="simple", maxcolwidths=widths)


def _text(header: str, value: Any) -> str:
    if header == "parameters":
        return ", ".join(f"{name}={fact['default']}" if "default" in fact else name for name, fact in value.items())
    if header == "shape":
        return "x".join(map(str, value)) if value else ""
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
