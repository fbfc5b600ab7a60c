"""What `gauntlet list` and `gauntlet show` say: every registry, and all of one entry."""

from __future__ import annotations

import inspect
import json
import shutil
import textwrap
from collections.abc import Sequence
from typing import Any

import yaml

from ..registry import REGISTRIES, Entry, GauntletError, load_entry_points, load_plugins, nearest
from ..registry.parameters import Parameter
from .suite import KEYS, builtin_suites, load_suite
from .suite_yaml import plain

_FACTS = (
    *("norm", "kind", "access", "cost", "shape", "splits", "children", "inputs", "coupling"),
    *("outputs", "weights", "profiles", "title", "needs_keys"),
)
_NOTES = {
    "model": "Also: torchvision/NAME, any classification model of torchvision (pretrained: true takes its weights), "
    "and module:function, any function that returns a torch.nn.Module."
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


def showing(kind: str, name: str, plugins: Sequence[str] = (), *, as_json: bool = False) -> tuple[str, list[str]]:
    """All of one entry, or the text of a built-in suite; and plug-ins that did not load.

    Raises:
        GauntletError: There is no such kind or entry.
    """
    problems = [*load_entry_points(REGISTRIES.values()), *load_plugins(plugins, REGISTRIES.values())]
    kind = _kind(kind, [*REGISTRIES, "suite"])
    if kind == "suite":
        suites = builtin_suites()
        if name not in suites:
            raise GauntletError(f"There is no built-in suite {name!r}; {nearest(name, suites)}")
        return suites[name].rstrip(), problems
    entry = REGISTRIES[kind].get(name)
    facts = _facts(entry)
    return json.dumps(facts, indent=1, default=str) if as_json else _described(entry, facts), problems


def _described(entry: Entry, facts: dict[str, Any]) -> str:
    parameters = [
        (f"  {parameter.name}", f"{parameter.type_name}, {_default(parameter)}") for parameter in entry.parameters
    ]
    told = {
        name: _text(name, value)
        for name, value in facts.items()
        if name not in ("name", "summary", "parameters") and value
    }
    spec = {entry.name: {name: value for name, value in entry.defaults().items() if value is not None}}
    written = yaml.safe_dump([plain(spec) if spec[entry.name] else entry.name], default_flow_style=True, width=9999)
    key = f"{entry.kind}s"
    parts = [
        f"{entry.kind} {entry.name}" + (f" ({entry.obstacle})" if entry.obstacle else ""),
        entry.summary if entry.row else inspect.getdoc(entry.factory) or entry.summary,
        two_columns([(f"  {name}", text) for name, text in told.items()]),
        "Parameters:\n" + two_columns(parameters) if parameters else "",
        f"In a suite:\n  {key}: {written.rstrip()}" if key in KEYS else "",
        f"In Python:\n  gauntlet.create_{entry.kind}({entry.name!r})" if not entry.meta.get("unavailable") else "",
    ]
    return "\n\n".join(filter(None, parts))


def _default(parameter: Parameter) -> str:
    return "required" if parameter.required else f"default {parameter.default!r}"


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
    if entry.kind == "dataset":
        facts["here"] = _here(entry)
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


def _here(entry: Entry) -> str:
    """Whether the files of a data set are here, and how to get them if not."""
    from ..datasets import DataSource, resolve

    if entry.lacks(()):
        return "your own files"
    if entry.plugin:  # whose code runs when it is wanted, not before
        return ""
    try:
        dataset = resolve(entry.name, DataSource.default())
        absent = {split: dataset.obstacle(split) for split in dataset.declared_splits}
    except GauntletError as error:
        return f"not here: {error}"
    here = [split for split, reason in absent.items() if not reason]
    if len(here) == len(absent):
        return "yes"
    reason = next(reason for reason in absent.values() if reason)
    return f"only {', '.join(here)}: {reason}" if here else f"not here: {reason}"


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
    """Names beside what they are, or beside why they cannot run here, as wide as the terminal."""
    texts = [(row["name"], row.get("unavailable") or row.get("summary", "") + _absent(row)) for row in rows]
    notes = f"`gauntlet show {kind} NAME` tells all of one.\n{_NOTES.get(kind, '')}".strip()
    return "\n".join((f"{kind}s ({len(rows)})", two_columns(texts), notes))


def _absent(row: dict[str, Any]) -> str:
    """Where the files of a data set are not here: what to put where."""
    here = row.get("here", "")
    return f" ({here.rstrip('.')})" if here not in ("", "yes", "your own files") else ""


def two_columns(rows: Sequence[tuple[str, str]]) -> str:
    """Texts beside their names, wrapped to the terminal's width (at most 110 characters)."""
    width = min(shutil.get_terminal_size().columns, 110)
    left = 2 + min(max((len(name) for name, _ in rows), default=0), width // 2)
    lines = []
    for name, text in rows:
        wrapped = textwrap.wrap(text, max(width - left, 20), break_on_hyphens=False) or [""]
        first, rest = (wrapped[:1], wrapped[1:]) if len(name) < left - 1 else ([""], wrapped)
        lines += [f"{name:<{left}}{first[0]}".rstrip(), *(" " * left + line for line in rest)]
    return "\n".join(lines)


def _text(header: str, value: Any) -> str:
    if header == "shape":
        return "x".join(map(str, value))
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
