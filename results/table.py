"""A table as text with what belongs to it, before it takes on a format."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """A table as text, not yet in any format.

    Attributes:
        title: What it shows.
        row_names: Names of the row headers, left to right.
        rows: Row headers, one tuple per row.
        columns: Column headers, one tuple (outer to inner level) per column.
        cells: Text by row and column, the same shape as ``rows`` by ``columns``.
        notes: Sentences that belong below it.
        values: Numbers behind the cells, NaN where there is none; empty where nobody asked.
        bold: Which cells are the best or statistically tied with it; empty where nobody asked.
        marks: Letters of footnotes by cell; empty where there are none.
        row_marks: The same by row, of footnotes that concern the whole row.
        column_marks: The same by column.
    """

    title: str
    row_names: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    columns: tuple[tuple[str, ...], ...]
    cells: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    values: tuple[tuple[float, ...], ...] = ()
    bold: tuple[tuple[bool, ...], ...] = ()
    marks: tuple[tuple[str, ...], ...] = ()
    row_marks: tuple[str, ...] = ()
    column_marks: tuple[str, ...] = ()
