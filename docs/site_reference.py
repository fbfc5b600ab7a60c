"""Pages of the site that are made from the code: every registry, the command line, the keys of a suite, the columns.

A hook of MkDocs; `mkdocs build` calls it.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from typing import Any

import click
from mkdocs.structure.files import File, Files

from gauntlet.bench.cli import _add_commands, cli
from gauntlet.bench.suite import KEYS
from gauntlet.bench.suite_model import Suite
from gauntlet.bench.suite_schema import key_descriptions
from gauntlet.registry import REGISTRIES, Entry
from gauntlet.results.frame import COLUMN_HELP
from gauntlet.results.metrics import METRICS


def on_files(files: Files, config: Any) -> Files:
    """Add the pages, which no file holds."""
    pages = {f"{kind}s": _registry(kind) for kind in REGISTRIES if kind != "metric"}
    pages |= {"cli": _cli(), "suite": _suite(), "results": _results(), "metrics": _metrics()}
    for name, text in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def _registry(kind: str) -> str:
    entries = list(REGISTRIES[kind])
    rows = [f"| [`{one.name}`](#{_anchor(one.name)}) | {_cell(one.summary)} |" for one in entries]
    parts = [f"# {kind.capitalize()}s", "| name | what it is |\n|:--|:--|\n" + "\n".join(rows), *map(_entry, entries)]
    return "\n\n".join(parts)


def _entry(entry: Entry) -> str:
    text = entry.summary if entry.row else inspect.getdoc(entry.factory) or entry.summary
    facts = {"needs": entry.needs, "tags": entry.tags, "reference": entry.reference, "also called": entry.aliases}
    told = [f"- {name}: {_words(value)}" for name, value in facts.items() if value]
    parts = [f"## {entry.name} {{#{_anchor(entry.name)}}}", _docstring(text), "\n".join(told), _parameters(entry)]
    return "\n\n".join(filter(None, parts))


def _parameters(entry: Entry) -> str:
    rows = [
        f"| `{one.name}` | {_cell(one.type_name)} | {'required' if one.required else f'`{one.default!r}`'} |"
        for one in entry.parameters
    ]
    return "| parameter | type | default |\n|:--|:--|:--|\n" + "\n".join(rows) if rows else ""


def _docstring(text: str) -> str:
    """Sections of a docstring as lists, so that Markdown keeps their lines."""
    lines, inside = [], False
    for line in text.splitlines():
        if line.rstrip() in ("Args:", "Attributes:", "Raises:", "Returns:", "Example:", "Yields:"):
            inside = True
            lines += ["", f"**{line.rstrip()[:-1]}**", ""]
        elif inside and line.startswith("    ") and not line.startswith("     "):
            name, colon, rest = line.strip().partition(": ")
            lines.append(f"- `{name}`: {_plain(rest)}" if colon else f"- {_plain(line.strip())}")
        else:
            inside = inside and line.startswith(" ")
            lines.append(_plain(line))
    return "\n".join(lines)


def _cli() -> str:
    if "doctor" not in cli.commands:
        _add_commands()
    return "\n\n".join(["# Command line", *_commands(cli, "gauntlet")])


def _commands(command: click.Command, path: str) -> Iterator[str]:
    context = click.Context(command, info_name=path, max_content_width=100)
    yield f"## {path}\n\n```text\n{command.get_help(context)}\n```"
    for name in sorted(getattr(command, "commands", ())):
        yield from _commands(command.commands[name], f"{path} {name}")  # type: ignore[attr-defined]


def _suite() -> str:
    told = key_descriptions()
    rows = [f"| `{key}` | {_cell(told[key])} | {_default(key)} |" for key in KEYS]
    return (
        "# Keys of a suite\n\nA suite is a YAML mapping. `datasets` and `models` must be there. "
        "`gauntlet schema suite > schema.json` writes the schema that editors can check a file by.\n\n"
        "| key | what it says | default |\n|:--|:--|:--|\n" + "\n".join(rows)
    )


def _default(key: str) -> str:
    field = Suite.model_fields[key]
    if field.is_required():
        return "the file's name" if key == "name" else "required"
    return f"`{json.dumps(field.get_default(call_default_factory=True), default=list)}`"


def _results() -> str:
    rows = [f"| `{name}` | {_cell(text)} |" for name, text in COLUMN_HELP.items()]
    return (
        "# Columns of results.csv\n\nOne row is one metric of one cell. Empty where it does not apply.\n\n"
        "| column | what it holds |\n|:--|:--|\n" + "\n".join(rows)
    )


def _metrics() -> str:
    better = {True: "higher", False: "lower", None: ""}
    rows = [
        f"| `{one.name}` | {_cell(one.title)} | {'%' if one.percent else ''} | {better[one.higher_is_better]} |"
        for one in METRICS.values()
    ]
    return "# Metrics\n\n| name | title | in | better |\n|:--|:--|:--|:--|\n" + "\n".join(rows)


def _words(value: Any) -> str:
    return _plain(value) if isinstance(value, str) else ", ".join(f"`{one}`" for one in value)


def _cell(text: str) -> str:
    return _plain(text).replace("|", "\\|").replace("\n", " ")


def _plain(text: str) -> str:
    """Text without what Markdown would take for markup outside code."""
    parts = text.replace("``", "`").split("`")
    parts[::2] = [part.replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_") for part in parts[::2]]
    return "`".join(parts)


def _anchor(name: str) -> str:
    return name.replace("/", "-")
