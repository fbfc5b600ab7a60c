"""Tables as text: terminal, Markdown, LaTeX, HTML, reStructuredText and CSV, safe whatever the names hold."""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Callable

from tabulate import tabulate

from ..registry import GauntletError, nearest
from .formats_latex import latex
from .table import Table


def render(table: Table, fmt: str = "github") -> str:
    """The table in one of the formats ``github``, ``plain``, ``latex``, ``latex-siunitx``, ``html``, ``rst``, ``csv``.

    There is no newline at the end.

    Raises:
        GauntletError: The format is unknown.
    """
    if fmt not in FORMATS:
        raise GauntletError(f"There is no table format {fmt!r}; {nearest(fmt, FORMATS)}")
    return FORMATS[fmt](table)


def _plain(table: Table) -> str:
    marked = _tabulate(table, "simple", _line, bold=("", "*"), mark=(" [", "]"))
    notes = (note.replace("Bold:", "*:") if table.body.bold.any() else note for note in table.notes)
    return _joined(_line(table.title), marked, *map(_line, notes))


def _github(table: Table) -> str:
    title = f"**{_markdown(table.title)}**\n" if table.title.strip() else ""
    notes = "".join(f"\n- {_markdown(note)}" for note in table.notes)
    marked = _tabulate(table, "pipe", _markdown, bold=("**", "**"), mark=("<sup>", "</sup>"))
    return _joined(title, marked, notes)


def _rst(table: Table) -> str:
    """A grid table: every cell is text, whatever it holds."""
    title = f"**{_restructured(table.title)}**\n" if table.title.strip() else ""
    notes = "".join(f"\n- {_restructured(note)}" for note in table.notes)
    return _joined(title, _tabulate(table, "grid", _restructured, bold=("**", "**"), mark=(" :sup:`", "`")), notes)


def _html(table: Table) -> str:
    text = _tabulate(table, "unsafehtml", _html_text, bold=("<strong>", "</strong>"), mark=("<sup>", "</sup>"))
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
    "latex": latex,
    "latex-siunitx": lambda table: latex(table, siunitx=True),
    "html": _html,
    "rst": _rst,
    "csv": _csv,
}


def _tabulate(
    table: Table, fmt: str, clean: Callable[[str], str], *, bold: tuple[str, str], mark: tuple[str, str]
) -> str:
    """``clean`` escapes names; ``bold`` and ``mark`` stand around best values and footnote letters."""

    def marked(text: str, letters: str = "", strong: bool = False) -> str:
        shown = clean(text)
        shown = f"{bold[0]}{shown}{bold[1]}" if strong else shown
        return f"{shown}{mark[0]}{letters}{mark[1]}" if letters else shown

    columns = [" / ".join(filter(None, names)) for names in table.columns]
    headers = [*map(clean, table.row_names), *map(marked, columns, table.column_marks or [""] * len(columns))]
    body = []
    for i, (names, cells) in enumerate(zip(table.rows, table.cells, strict=True)):
        row = [clean(name) for name in names]
        if table.row_marks and row and table.row_marks[i]:
            row[-1] += f"{mark[0]}{table.row_marks[i]}{mark[1]}"
        body.append([*row, *map(marked, cells, table.body.letters[i], table.body.bold[i])])
    align = ["left"] * len(table.row_names) + ["right"] * len(table.columns)
    return tabulate(
        body,
        headers=headers,
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


def _html_text(text: str) -> str:
    return html.escape(_line(text))


def _restructured(text: str) -> str:
    """Text that docutils shows as it is."""
    return re.sub(r"([\\`*_|:<>\[\]~^=+-])", r"\\\1", _line(text))


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
