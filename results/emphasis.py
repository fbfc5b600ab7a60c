"""What stands out in a table: signs of doubt and footnotes; and the order of its rows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pandas as pd

from ..registry import GauntletError
from .footnotes import LETTERS, FailedChecks, Footnote, footnotes
from .table import Table, reordered


def emphasise(table: Table, chosen: pd.DataFrame, where: np.ndarray, failed: FailedChecks) -> Table:
    """The table with signs of doubt and footnotes.

    Args:
        table: As laid out.
        chosen: The tidy rows behind it.
        where: (rows, columns) position in ``chosen`` of each cell, -1 where there is none.
        failed: The checks that models fail.
    """
    found = [note for note in footnotes(chosen, failed) if not any(note.text[:-1] in line for line in table.notes)]
    sign = np.full(len(chosen) + 1, "", dtype=object)
    for note in found:
        sign[:-1][note.rows] = note.sign or sign[:-1][note.rows]
    body = replace(table.body, sign=sign[where])
    notes = [*table.notes, *(f"{note.sign} {note.text}" for note in found if note.sign)]
    lettered = [note for note in found if not note.sign]
    return _with_letters(replace(table, body=body, notes=tuple(notes)), lettered, where)


def _with_letters(table: Table, found: Sequence[Footnote], where: np.ndarray) -> Table:
    """Letters where footnotes apply: at a column or row header if all its cells are concerned, else in the cells."""
    if not found or not where.size:
        return table
    used = where >= 0
    cells = np.full(where.shape, "", dtype=object)
    rows, columns = np.full(where.shape[0], "", dtype=object), np.full(where.shape[1], "", dtype=object)
    for letter, note in zip(LETTERS, found, strict=False):
        concerned = np.append(note.rows, False)[where]
        whole = used.any(axis=0) & (concerned | ~used).all(axis=0)
        columns[whole] += letter
        rest = concerned & ~whole
        lines = rest.any(axis=1) & (rest | ~used).all(axis=1)
        rows[lines] += letter
        cells[rest & ~lines[:, None]] += letter
    notes = [f"{letter}: {note.text}" for letter, note in zip(LETTERS, found, strict=False)]
    return replace(
        table,
        body=replace(table.body, letters=cells),
        row_marks=tuple(rows.tolist()),
        column_marks=tuple(columns.tolist()),
        notes=(*table.notes, *notes),
    )


def sort_rows(table: Table, by: str) -> Table:
    """The table with its rows sorted by a row name or a column header; ``-`` before it puts the largest first.

    ``rank``: by the lower end of the rank sets of the first column that has any.

    Raises:
        GauntletError: There is no such row name or column.
    """
    name, down = (by[1:], True) if by.startswith("-") else (by, False)
    headers = [" / ".join(filter(None, names)) for names in table.columns]
    if name == "rank" and name not in table.row_names and (ranks := first_ranks(table)) is not None:
        order = np.argsort(-ranks if down else ranks, kind="stable").tolist()
    elif name in table.row_names:
        keys = [_natural(names[table.row_names.index(name)]) for names in table.rows]
        order = sorted(range(len(keys)), key=keys.__getitem__, reverse=down)
    elif name in headers:
        column = table.body.value[:, headers.index(name)]
        order = np.argsort(np.where(np.isnan(column), np.inf, -column if down else column), kind="stable").tolist()
    else:
        known = ", ".join([*table.row_names, *headers])
        raise GauntletError(f"The table cannot be sorted by {name!r}; its row names and columns are {known}.")
    rows, marks = (reordered(items, order) for items in (table.rows, table.row_marks))
    return replace(table, rows=rows, row_marks=marks, body=table.body.ordered(order))


def first_ranks(table: Table) -> np.ndarray | None:
    """(rows,) the first rank that each row may have, by the first column with rank sets; infinite where it has none."""
    for column in table.body.ranks.T:
        found = [int(match[1]) if (match := re.match(r"#(\d+)", text)) else np.inf for text in column]
        if np.isfinite(found).any():
            return np.array(found)
    return None


def _natural(text: str) -> tuple[int, float, str]:
    try:
        return 0, float(Fraction(text) if "/" in text else text), ""
    except (ValueError, ZeroDivisionError):
        return 1, 0.0, text
