"""Tables as text: terminal, GitHub Markdown, LaTeX (booktabs), HTML and CSV, safe whatever the names hold."""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Callable

from tabulate import tabulate

from ..registry import GauntletError, nearest
from .layout import Table

_GUARD = "\ue000"  # private-use character: becomes an empty LaTeX group after tabulate has escaped the rest


def render(table: Table, fmt: str = "github") -> str:
    """The table in one of the formats ``github``, ``plain``, ``latex``, ``html``, ``csv``; no newline at the end.

    Raises:
        GauntletError: The format is unknown.
    """
    if fmt not in FORMATS:
        raise GauntletError(f"There is no table format {fmt!r}; {nearest(fmt, FORMATS)}")
    return FORMATS[fmt](table)


def _plain(table: Table) -> str:
    return _joined(_line(table.title), _tabulate(table, "simple", _line), *map(_line, table.notes))


def _github(table: Table) -> str:
    title = f"**{_markdown(table.title)}**\n" if table.title.strip() else ""
    notes = "".join(f"\n- {_markdown(note)}" for note in table.notes)
    return _joined(title, _tabulate(table, "pipe", _markdown), notes)


def _latex(table: Table) -> str:
    """Compiles with ``\\usepackage{booktabs}``; names in scripts that pdfLaTeX has no glyphs for need LuaLaTeX."""
    text = _tabulate(table, "latex_booktabs", _latex_cell)
    for character, command in {
        "±": r"$\pm$",
        "–": "--",
        "|": r"\textbar{}",
        "†": r"\textdagger{}",
        _GUARD: "{}",
    }.items():
        text = text.replace(character, command)
    comments = [f"% {_line(words)}" for words in (table.title, *table.notes) if words]
    return _joined(*comments[:1], text, *comments[1:])


def _html(table: Table) -> str:
    text = _tabulate(table, "html", _line)
    caption = f"<table>\n<caption>{html.escape(_line(table.title))}</caption>"
    notes = "\n".join(f"<p>{html.escape(_line(note))}</p>" for note in table.notes)
    return _joined(text.replace("<table>", caption, 1) if table.title else text, notes)


def _csv(table: Table) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")  # RFC 4180
    writer.writerow([*map(_no_formula, table.row_names), *(_no_formula(" / ".join(names)) for names in table.columns)])
    for names, cells in zip(table.rows, table.cells, strict=True):
        writer.writerow([*map(_no_formula, names), *map(_line, cells)])
    return text.getvalue().rstrip("\r\n")


FORMATS: dict[str, Callable[[Table], str]] = {
    "github": _github,
    "plain": _plain,
    "latex": _latex,
    "html": _html,
    "csv": _csv,
}


def _tabulate(table: Table, fmt: str, clean: Callable[[str], str]) -> str:
    headers = [*table.row_names, *(" / ".join(filter(None, names)) for names in table.columns)]
    body = [[*names, *cells] for names, cells in zip(table.rows, table.cells, strict=True)]
    align = ["left"] * len(table.row_names) + ["right"] * len(table.columns)
    return tabulate(
        [[clean(text) for text in row] for row in body],
        headers=[clean(text) for text in headers],
        tablefmt=fmt,
        colalign=align if body else None,
        disable_numparse=True,
    )


def _joined(*parts: str) -> str:
    return "\n".join(part for part in parts if part)


def _line(text: str) -> str:
    """One line without control characters (a terminal obeys escape sequences)."""
    return " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", " ", text).split())


def _markdown(text: str) -> str:
    """Text that GitHub shows as it is: no markup, no HTML, no extra table cells."""
    text = html.escape(_line(text), quote=False)
    text = re.sub(r"([\\`*\[\]|~$])", r"\\\1", text)
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\_", text)  # inside a word _ is no markup


def _latex_cell(text: str) -> str:
    """tabulate escapes the special characters; ``\\\\ [`` and ``\\\\ *`` at the start of a row remain to be guarded."""
    text = _line(text).replace(_GUARD, "")
    return f"{_GUARD}{text}" if text.startswith(("[", "*")) else text


def _no_formula(text: str) -> str:
    """A name that a spreadsheet would run as a formula gets a leading apostrophe; numbers stay."""
    text = text if text.startswith(("\t", "\r", "\n")) else _line(text)
    return (
        f"'{_line(text)}" if text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) and not _is_number(text) else text
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
