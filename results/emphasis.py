"""What stands out in a table: the best values, those statistically tied with them, and footnotes."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd

from ..registry import GauntletError
from . import footnotes
from .factorize import factorize
from .metrics import directions
from .table import Table

BEST = ("", "row", "column")


def emphasise(table: Table, chosen: pd.DataFrame, where: np.ndarray, best: str) -> Table:
    """The table with numbers, bold cells and footnotes.

    Args:
        table: As laid out.
        chosen: The tidy rows behind it.
        where: (rows, columns) position in ``chosen`` of each cell, -1 where there is none.
        best: Compare the cells of each ``row`` or ``column``, or not at all.

    Raises:
        GauntletError: ``best`` is something else.
    """
    if best not in BEST:
        raise GauntletError(f"The best is that of each row or each column, got {best!r}.")
    values = _placed(chosen["value"].where(chosen["status"] == "ok"), where)
    table = replace(table, values=tuple(map(tuple, values.tolist())))
    if best:
        bold = _best(chosen, values, where, down=best == "column")
        note = f"Bold: the best of each {best} and what is statistically tied with it (95 %)."
        table = replace(
            table, bold=tuple(map(tuple, bold.tolist())), notes=(*table.notes, note) if bold.any() else table.notes
        )
    return _with_footnotes(table, chosen, where)


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


def _with_footnotes(table: Table, chosen: pd.DataFrame, where: np.ndarray) -> Table:
    """Letters where footnotes apply: at a column or row header if all its cells are concerned, else in the cells."""
    found = footnotes.notes(chosen)
    if not found or not where.size:
        return table
    used = where >= 0
    cells = np.full(where.shape, "", dtype=object)
    rows, columns = np.full(where.shape[0], "", dtype=object), np.full(where.shape[1], "", dtype=object)
    for letter, (mask, _) in zip(footnotes.MARKS, found, strict=False):
        concerned = np.append(mask.to_numpy(), False)[where]
        whole = used.any(axis=0) & (concerned | ~used).all(axis=0)
        columns[whole] += letter
        rest = concerned & ~whole
        lines = rest.any(axis=1) & (rest | ~used).all(axis=1)
        rows[lines] += letter
        cells[rest & ~lines[:, None]] += letter
    notes = [f"{letter}: {text}" for letter, (_, text) in zip(footnotes.MARKS, found, strict=False)]
    return replace(
        table,
        marks=tuple(map(tuple, cells.tolist())),
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
        column = np.array([row[headers.index(name)] for row in table.values])
        order = np.argsort(np.where(np.isnan(column), np.inf, -column if down else column), kind="stable").tolist()
    else:
        known = ", ".join([*table.row_names, *headers])
        raise GauntletError(f"The table cannot be sorted by {name!r}; its row names and columns are {known}.")
    parts = ("rows", "cells", "values", "bold", "marks", "row_marks")
    changes: dict[str, Any] = {part: _ordered(getattr(table, part), order) for part in parts}
    return replace(table, **changes)


def _ordered(items: tuple[Any, ...], order: list[int]) -> tuple[Any, ...]:
    return tuple(items[place] for place in order) if items else ()


def _natural(text: str) -> tuple[int, float, str]:
    try:
        return 0, float(Fraction(text) if "/" in text else text), ""
    except (ValueError, ZeroDivisionError):
        return 1, 0.0, text
