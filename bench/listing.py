"""What `gauntlet list` shows: every registry, with parameters, facts and references."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tabulate import tabulate

from ..registry import REGISTRIES, Entry, GauntletError, load_entry_points, load_plugins, nearest
from .suite import builtin_suites, load_suite

_WIDTHS = {"name": None, "summary": 34, "parameters": 34, "unavailable": 60, "inputs": 16, "fault": 30}
_FACTS = (
    *("norm", "kind", "access", "cost", "shape", "splits", "children", "inputs", "coupling"),
    *("outputs", "weights", "profiles", "title", "needs_keys"),
)
_NEEDY = ("detector", "evaluator")
_NOTES = {
    "model": "Also: torchvision/NAME, any classification model of torchvision (pretrained: true takes its weights), "
    "and module:function, any function that returns a torch.nn.Module.\n"
    "'weights' counts parameters with default settings."
}


def listing(
    kinds: Sequence[str] = (), plugins: Sequence[str] = (), *, as_json: bool = False, unavailable: bool = False
) -> tuple[str, list[str]]:
    """The text of some kinds (``attacks``, ``attack``, ``suites``) or of all; and plug-ins that did not load.

    With ``unavailable`` only what cannot run here, with the reason; otherwise only what can.
    """
    problems = [*load_entry_points(REGISTRIES.values()), *load_plugins(plugins, REGISTRIES.values())]
    known = [*REGISTRIES, "suite"]
    chosen = [_kind(kind, known) for kind in kinds] or known
    content = {name: _rows(name, unavailable) for name in chosen if not (unavailable and name == "suite")}
    if as_json:
        return json.dumps(content, indent=1, default=str), problems
    return "\n\n".join(_table(name, rows) for name, rows in content.items()), problems


def _kind(word: str, kinds: Sequence[str]) -> str:
    singular = word.removesuffix("s")
    if singular not in kinds:
        hint = nearest(word, [f"{name}s" for name in kinds])
        raise GauntletError(f"There is no registry of {word!r}; {hint}")
    return singular


def _rows(kind: str, unavailable: bool) -> list[dict[str, Any]]:
    if kind == "suite":
        return _suites()
    entries = [entry for entry in REGISTRIES[kind] if bool(entry.obstacle) == unavailable]
    return [{**_facts(entry), **({"unavailable": entry.obstacle} if unavailable else {})} for entry in entries]


def _suites() -> list[dict[str, Any]]:
    return [{"name": name, "summary": load_suite(name).summary} for name in builtin_suites()]


def _facts(entry: Entry) -> dict[str, Any]:
    facts = {name: entry.meta[name] for name in (*_FACTS, "fault", "reads", "metrics", "plots") if name in entry.meta}
    if entry.kind == "model" and (count := _weights(entry.name)) is not None:
        facts["weights"] = count
    if "profiles" in facts:
        facts["profiles"] = list(facts["profiles"])
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


def _weights(name: str) -> int | None:
    """Parameters of a model with its default settings, counted without making them; None where it needs more."""
    import torch

    from ..registry import MODELS

    entry = MODELS.get(name)
    if child := entry.meta.get("children"):
        inner = entry.defaults().get(child, ())
        members = [inner] if isinstance(inner, str) else inner
        counts = [_weights(member) for member in members if isinstance(member, str)]
        return sum(count for count in counts if count) or None
    try:
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in entry.factory().parameters())
    except Exception:  # a plug-in that needs parameters, or that cannot be built without memory
        return None


def _table(kind: str, rows: list[dict[str, Any]]) -> str:
    facts = [name for name in _FACTS if any(row.get(name) for row in rows)]
    headers = [
        "name",
        *facts,
        *(["needs"] if kind in _NEEDY else []),
        "parameters",
        "summary",
        "reference",
    ]
    if kind == "suite":
        headers = ["name", "summary"]
    elif any("unavailable" in row for row in rows):
        headers = ["name", "unavailable", "reference"]
    body = [[_text(header, row.get(header, "")) for header in headers] for row in rows]
    widths = [_WIDTHS.get(header, 28) for header in headers]
    if kind == "suite":
        widths = [None, 100]
    table = tabulate(body, headers=headers, tablefmt="simple", maxcolwidths=widths)
    return "\n".join(filter(None, (f"{kind}s ({len(rows)})", table, _NOTES.get(kind, ""))))


def _text(header: str, value: Any) -> str:
    if header == "parameters":
        return ", ".join(f"{name}={fact['default']}" if "default" in fact else name for name, fact in value.items())
    if header == "shape":
        return "x".join(map(str, value)) if value else ""
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
