"""LaTeX: booktabs with headers over several columns, plain or with siunitx-aligned numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator

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
_NUMBER = re.compile(r"^(-?\d+(?:\.\d+)?)(?: ± (\d+(?:\.\d+)?))?( †)?$")


def latex(table: Table, *, siunitx: bool = False) -> str:
    """Compiles with ``\\usepackage{booktabs}`` (and siunitx 3 if wanted); other scripts than Latin need LuaLaTeX."""
    columns = "l" * len(table.row_names) + (_aligned(table) if siunitx else "r") * len(table.columns)
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", *_head(table, siunitx), r"\midrule"]
    lines += list(_body(table, siunitx))
    lines += [r"\bottomrule", r"\end{tabular}"]
    comments = [f"% {one_line(words)}" for words in (table.title, *table.notes)]
    return "\n".join([*(comments[:1] if table.title else []), *lines, *comments[1:]])


def escape(text: str) -> str:
    """Text that LaTeX shows as it is."""
    return "".join(_SPECIAL.get(character, character) for character in one_line(text))


def one_line(text: str) -> str:
    """One line without control characters."""
    return " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ue000]", " ", text).split())


def _head(table: Table, siunitx: bool) -> Iterator[str]:
    """One line a level; equal outer headers that stand together span their columns, with a rule below."""
    depth = max((len(names) for names in table.columns), default=1)
    levels = [("",) * (depth - len(names)) + names for names in table.columns]
    for level in range(depth):
        last = level == depth - 1
        fields = [escape(name) if last else "" for name in table.row_names]
        rules, start = [], len(fields) + 1
        for place, width in _spans(levels, level, last):
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


def _body(table: Table, siunitx: bool) -> Iterator[str]:
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
        fields += [_cell(table, i, j, text, siunitx) for j, text in enumerate(cells)]
        yield _line(fields)
        before = names


def _cell(table: Table, row: int, column: int, text: str, siunitx: bool) -> str:
    bold = bool(table.bold) and table.bold[row][column]
    mark = _mark(table.marks[row][column]) if table.marks else ""
    if siunitx and (number := _NUMBER.match(one_line(text))):
        value = number[1] + (rf" \pm {number[2]}" if number[2] else "")
        mark += r"\textdagger{}" if number[3] else ""
        return (r"\bfseries " if bold else "") + value + (f" {mark}" if mark else "")
    shown = rf"\textbf{{{escape(text)}}}" if bold else escape(text)
    return f"{{{shown}{mark}}}" if siunitx else f"{shown}{mark}"


def _aligned(table: Table) -> str:
    """A siunitx column that fits the widest number."""
    numbers = [found for row in table.cells for text in row if (found := _NUMBER.match(one_line(text)))]
    whole = max((len(found[1].lstrip("-").split(".")[0]) for found in numbers), default=1)
    digits = max((len(found[1].partition(".")[2]) for found in numbers), default=0)
    sign = "-" if any(found[1].startswith("-") for found in numbers) else ""
    spread = max((len(found[2].replace(".", "").lstrip("0")) for found in numbers if found[2]), default=0)
    error = f"({max(spread, 1)})" if any(found[2] for found in numbers) else ""
    return f"S[table-format={sign}{whole}.{digits}{error}, separate-uncertainty, detect-weight]"


def _mark(letters: str) -> str:
    return rf"\textsuperscript{{{letters}}}" if letters else ""


def _line(fields: list[str]) -> str:
    return " & ".join([_guarded(fields[0]), *fields[1:]] if fields else [""]) + r" \\"


def _guarded(text: str) -> str:
    """``\\\\`` of the line before would take a leading ``[`` or ``*`` as its own."""
    return f" {{}}{text} ".rstrip() + " " if text.startswith(("[", "*")) else text
