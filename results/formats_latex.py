"""LaTeX: booktabs with headers over several columns, plain or with siunitx-aligned numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .table import Table

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\^{}",
    "<": r"\ensuremath{<}",
    ">": r"\ensuremath{>}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "–": "--",
    "ε": r"$\varepsilon$",
    "→": r"$\rightarrow$",
    "µ": r"\textmu{}",
    "∞": r"$\infty$",
    "†": r"\textdagger{}",
}


@dataclass(frozen=True)
class _Column:
    """How a column is set: its specification, and whether intervals stand in a second column."""

    spec: str = "r"
    second: bool = False

    @property
    def width(self) -> int:
        """How many of LaTeX's columns it takes."""
        return 2 if self.second else 1


def latex(table: Table, *, siunitx: bool = False) -> str:
    """Compiles with ``\\usepackage{booktabs}`` (and siunitx if wanted); other scripts than Latin need LuaLaTeX.

    siunitx aligns values and the halves of their intervals at the decimal point, each in a column of its own.
    """
    columns = [_aligned(table, place) if siunitx else _Column() for place in range(len(table.columns))]
    specs = "l" * len(table.row_names) + "".join(column.spec for column in columns)
    lines = [rf"\begin{{tabular}}{{{specs}}}", r"\toprule", *_head(table, columns, siunitx), r"\midrule"]
    lines += list(_body(table, columns, siunitx))
    lines += [r"\bottomrule", r"\end{tabular}"]
    comments = [f"% {one_line(words)}" for words in (table.title, *table.notes)]
    return "\n".join([*(comments[:1] if table.title else []), *lines, *comments[1:]])


def escape(text: str) -> str:
    """Text that LaTeX shows as it is."""
    return "".join(_SPECIAL.get(character, character) for character in one_line(text))


def one_line(text: str) -> str:
    """One line without control characters."""
    return " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ue000]", " ", text).split())


def _head(table: Table, columns: list[_Column], siunitx: bool) -> Iterator[str]:
    """One line a level; equal outer headers that stand together span their columns, with a rule below."""
    depth = max((len(names) for names in table.columns), default=1)
    levels = [("",) * (depth - len(names)) + names for names in table.columns]
    for level in range(depth):
        last = level == depth - 1
        fields = [escape(name) if last else "" for name in table.row_names]
        rules, start = [], len(fields) + 1
        for place, count in _spans(levels, level, last):
            width = sum(column.width for column in columns[place : place + count])
            text = escape(levels[place][level]) + (
                _mark(table.column_marks[place]) if last and table.column_marks else ""
            )
            fields.append(rf"\multicolumn{{{width}}}{{c}}{{{text}}}" if width > 1 or siunitx else _guarded(text))
            if not last and text:
                rules.append(rf"\cmidrule(lr){{{start}-{start + width - 1}}}")
            start += width
        yield _line(fields)
        if rules:
            yield "".join(rules)


def _spans(levels: list[tuple[str, ...]], level: int, last: bool) -> Iterator[tuple[int, int]]:
    """(first column, width) of each header of a level; on the last level every column has its own."""
    start = 0
    while start < len(levels):
        end = start + 1
        while not last and end < len(levels) and levels[end][: level + 1] == levels[start][: level + 1]:
            end += 1
        yield start, end - start
        start = end


def _body(table: Table, columns: list[_Column], siunitx: bool) -> Iterator[str]:
    """Row headers that repeat the one above are left blank, with a little space before a new group."""
    before: tuple[str, ...] = ()
    for i, (names, cells) in enumerate(zip(table.rows, table.cells, strict=True)):
        same = 0
        while same < len(names) - 1 and before[: same + 1] == names[: same + 1]:
            same += 1
        if i and len(names) > 1 and not same:
            yield r"\addlinespace"
        fields = ["" if level < same else escape(name) for level, name in enumerate(names)]
        if table.row_marks and fields:
            fields[-1] += _mark(table.row_marks[i])
        fields += [_cell(table, i, j, text, columns[j], siunitx) for j, text in enumerate(cells)]
        yield _line(fields)
        before = names


def _cell(table: Table, row: int, place: int, text: str, column: _Column, siunitx: bool) -> str:
    bold, mark = table.body.bold[row, place], _mark(table.body.letters[row, place])
    number, spread, tail = (part[row, place] for part in table.body.fragments)
    if siunitx and np.isfinite(table.body.value[row, place]) and column.second == bool(spread):
        heavy = r"\bfseries " if bold else ""
        after = escape(tail) + mark
        return f"{heavy}{number}" + (f" & {heavy}{spread}" if spread else "") + (f" {{{after}}}" if after else "")
    shown = rf"\textbf{{{escape(text)}}}" if bold else escape(text)
    return rf"\multicolumn{{{column.width}}}{{c}}{{{shown}{mark}}}" if siunitx else f"{shown}{mark}"


def _aligned(table: Table, place: int) -> _Column:
    """Columns of siunitx for the values, and for the intervals where there are any."""
    finite = np.isfinite(table.body.value[:, place])
    values, spreads = (part[:, place][finite].tolist() for part in table.body.fragments[:2])
    spreads = [spread for spread in spreads if spread]
    if not spreads:
        return _Column(_decimal(values))
    # LaTeX gives all that a wide header needs to the last column it spans; half of it belongs to the first.
    taken = max(map(len, values)) + max(map(len, spreads)) + 3
    spare = max(0, len("".join(table.columns[place][-1:])) - taken) / 2
    first = _decimal(
        values, f"table-number-alignment=right, table-column-width={(max(map(len, values)) + spare) / 2}em"
    )
    if table.body.intervals == "range":
        return _Column(rf"{first}@{{\ }}l", second=True)
    return _Column(rf"{first}@{{${{}}\pm{{}}$}}{_decimal(spreads, 'table-number-alignment=left')}", second=True)


def _decimal(numbers: list[str], more: str = "") -> str:
    """A column that fits the widest of these numbers."""
    whole = max((len(number.lstrip("-").partition(".")[0]) for number in numbers), default=1)
    digits = max((len(number.partition(".")[2]) for number in numbers), default=0)
    sign = "-" if any(number.startswith("-") for number in numbers) else ""
    options = f"table-format={sign}{whole}.{digits}, detect-weight, mode=text, table-align-text-post=false"
    return f"S[{options}{', ' if more else ''}{more}]"


def _mark(letters: str) -> str:
    return rf"\textsuperscript{{{letters}}}" if letters else ""


def _line(fields: list[str]) -> str:
    return " & ".join([_guarded(fields[0]), *fields[1:]] if fields else [""]) + r" \\"


def _guarded(text: str) -> str:
    """``\\\\`` of the line before would take a leading ``[`` or ``*`` as its own."""
    return f" {{}}{text} ".rstrip() + " " if text.startswith(("[", "*")) else text
