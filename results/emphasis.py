"""What stands out in a table: the best values, those statistically tied with them, and footnotes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pandas as pd

from ..registry import GauntletError
from .factorize import factorize
from .footnotes import LETTERS, FailedChecks, Footnote, footnotes
from .metrics import directions
from .table import Table, reordered

BEST = ("", "row", "column")


def emphasise(table: Table, chosen: pd.DataFrame, where: np.ndarray, best: str, failed: FailedChecks) -> Table:
    """The table with signs of doubt, bold cells and footnotes.

    Args:
        table: As laid out.
        chosen: The tidy rows behind it.
        where: (rows, columns) position in ``chosen`` of each cell, -1 where there is none.
        best: Compare the cells of each ``row`` or ``column``, or not at all.
        failed: The checks that models fail.

    Raises:
        GauntletError: ``best`` is something else.
    """
    if best not in BEST:
        raise GauntletError(f"The best is that of each row or each column, got {best!r}.")
    found = footnotes(chosen, failed)
    sign = np.full(len(chosen) + 1, "", dtype=object)
    for note in found:
        sign[:-1][note.rows] = note.sign or sign[:-1][note.rows]
    body = replace(table.body, sign=sign[where])
    notes = [*table.notes, *(f"{note.sign} {note.text}" for note in found if note.sign)]
    if best:
        body = replace(body, bold=_best(chosen, body.value, where, down=best == "column"))
        bold = f"Bold: the best of each {best} and what is statistically tied with it (95 %)."
        notes += [bold] if body.bold.any() else []
    lettered = [note for note in found if not note.sign]
    return _with_letters(replace(table, body=body, notes=tuple(notes)), lettered, where)


def _best(chosen: pd.DataFrame, values: np.ndarray, where: np.ndarray, *, down: bool) -> np.ndarray:
    """Cells whose difference to the best of their line has an interval that holds zero, or that are the best.

    Only lines of one metric that has a better direction, with at least two numbers.
    """
    codes, names = factorize(chosen["metric"])
    half = np.nan_to_num(_placed((chosen["ci_high"] - chosen["ci_low"]) / 2, where))
    metrics = np.append(codes, -1)[where]
    if down:
        values, half, metrics = values.T, half.T, metrics.T
    if not values.size:
        return np.zeros(where.shape, dtype=bool)
    first = metrics.max(axis=1)
    alone = ((metrics == first[:, None]) | (metrics == -1)).all(axis=1)
    sign = np.where(alone, np.array(directions(names), dtype=int)[first], 0)[:, None]
    finite = np.isfinite(values)
    compared = finite & (sign != 0) & (finite.sum(axis=1) > 1)[:, None]
    best = np.where(compared, sign * values, -np.inf).argmax(axis=1)[:, None]
    reach = np.hypot(half, np.take_along_axis(half, best, axis=1)) + 1e-12
    with np.errstate(invalid="ignore"):
        bold = compared & (np.abs(values - np.take_along_axis(values, best, axis=1)) <= reach)
    return bold.T if down else bold


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


def _placed(column: pd.Series, where: np.ndarray) -> np.ndarray:
    return np.append(column.to_numpy(dtype=float), np.nan)[where]


def sort_rows(table: Table, by: str) -> Table:
    """The table with its rows sorted by a row name or a column header; ``-`` before it puts the largest first.

    Raises:
        GauntletError: There is no such row name or column.
    """
    name, down = (by[1:], True) if by.startswith("-") else (by, False)
    headers = [" / ".join(filter(None, names)) for names in table.columns]
    if name in table.row_names:
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


def _natural(text: str) -> tuple[int, float, str]:
    try:
        return 0, float(Fraction(text) if "/" in text else text), ""
    except (ValueError, ZeroDivisionError):
        return 1, 0.0, text
