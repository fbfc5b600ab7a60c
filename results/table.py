"""A table: what stands in its cells as numbers, intervals, marks and reasons; formats make text of them at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from .display import VAGUE, numbers


class Cell(NamedTuple):
    """One cell: ``words``, or a value with the ends of its interval (NaN where it has none).

    ``digits`` stand after the point, of ``scale`` times the value; negative: so many significant ones.
    """

    value: float = np.nan
    low: float = np.nan
    high: float = np.nan
    scale: float = 1.0
    digits: int = 3
    words: str = ""


class Fragments(NamedTuple):
    """The text of every cell in parts: number, interval (half of its width, or both ends), and what follows."""

    number: np.ndarray
    spread: np.ndarray
    tail: np.ndarray


_ARRAYS = (
    *("value", "low", "high", "scale", "digits", "words"),
    *("seeds", "planned", "vague", "sign", "ranks", "letters", "bold"),
)


@dataclass(frozen=True, eq=False)
class Cells:
    """All cells of a table; every array has the shape (rows, columns).

    Attributes:
        value: Numbers, NaN where there is none.
        low: Lower ends of their 95 % intervals.
        high: Upper ends.
        scale: What a number is multiplied with to be shown: 100 for percent.
        digits: After the point; negative: significant ones.
        words: What stands there instead of a number, such as a status; empty where there is one.
        intervals: Whether intervals are shown, by half their width; ``range``: by both ends.
        seeds: How many seeds are behind a mean.
        planned: How many should be.
        vague: Whose interval says nothing.
        sign: Of figures that are in doubt.
        ranks: Between which ranks a value is, and the letters of its groups, in words.
        letters: Of footnotes.
        bold: What is not significantly worse than the best.
    """

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    scale: np.ndarray
    digits: np.ndarray
    words: np.ndarray
    intervals: bool | str = True
    seeds: np.ndarray = field(default_factory=lambda: np.ones(1, dtype=int))
    planned: np.ndarray = field(default_factory=lambda: np.ones(1, dtype=int))
    vague: np.ndarray = field(default_factory=lambda: np.zeros(1, dtype=bool))
    sign: np.ndarray = field(default_factory=lambda: np.array([""], dtype=object))
    ranks: np.ndarray = field(default_factory=lambda: np.array([""], dtype=object))
    letters: np.ndarray = field(default_factory=lambda: np.array([""], dtype=object))
    bold: np.ndarray = field(default_factory=lambda: np.zeros(1, dtype=bool))

    def __post_init__(self) -> None:
        for name in _ARRAYS:  # what all cells share may be given once
            object.__setattr__(self, name, np.broadcast_to(getattr(self, name), self.value.shape))

    @classmethod
    def of(cls, rows: Sequence[Sequence[str | Cell]]) -> Cells:
        """Cells written by hand; text is words."""
        shape = (len(rows), len(rows[0]) if len(rows) else 0)
        cells = [Cell(words=cell) if isinstance(cell, str) else cell for row in rows for cell in row]
        parts = zip(*cells, strict=True) if cells else [()] * len(Cell._fields)
        types = (float, float, float, float, int, object)
        arrays: list[Any] = [np.array(part, dtype=kind) for part, kind in zip(parts, types, strict=True)]
        return cls(*(array.reshape(shape) for array in arrays))

    def ordered(self, order: Sequence[int]) -> Cells:
        """The rows in another order."""
        arrays: dict[str, Any] = {name: getattr(self, name)[np.asarray(order, dtype=int)] for name in _ARRAYS}
        return replace(self, **arrays)

    @cached_property
    def measured(self) -> np.ndarray:
        """Which cells hold a number, which may be infinite or NaN."""
        return self.words == ""

    @cached_property
    def fragments(self) -> Fragments:
        """Their text in parts."""
        parts = [np.full(self.value.shape, "", dtype=object) for _ in range(3)]
        number, spread, tail = parts
        number[~self.measured] = self.words[~self.measured]
        with np.errstate(invalid="ignore"):
            shown = np.isfinite(self.high - self.low) & ~self.vague & bool(self.intervals)
        for scale, digits in np.unique(np.stack([self.scale, self.digits], -1)[self.measured], axis=0).tolist():
            chosen = self.measured & (self.scale == scale) & (self.digits == digits)
            number[chosen] = numbers(scale * self.value[chosen], int(digits))
            chosen &= shown
            low, high = scale * self.low[chosen], scale * self.high[chosen]
            if self.intervals == "range":
                ends = zip(numbers(low, int(digits)), numbers(high, int(digits)), strict=True)
                spread[chosen] = [f"({a}, {b})" for a, b in ends]
            else:
                spread[chosen] = numbers((high - low) / 2, int(digits))
        tail[self.measured & self.vague & bool(self.intervals)] = f" ({VAGUE})"
        partial = self.measured & (self.seeds != self.planned)
        counts = zip(self.seeds[partial].tolist(), self.planned[partial].tolist(), strict=True)
        tail[partial] += [f" ({seeds}/{planned})" for seeds, planned in counts]
        for more in (self.ranks, self.sign):
            there = more != ""
            tail[there] += " " + more[there]
        return Fragments(number, spread, tail)

    @cached_property
    def texts(self) -> tuple[tuple[str, ...], ...]:
        """Their text: ``97.3 ± 0.6 (2/3) †``."""
        number, spread, tail = self.fragments
        between = np.where(spread != "", " " if self.intervals == "range" else " ± ", "").astype(object)
        return tuple(map(tuple, (number + between + spread + tail).tolist()))


@dataclass(frozen=True, eq=False)
class Table:
    """A table, not yet in any format.

    Attributes:
        title: What it shows.
        row_names: Names of the row headers, left to right.
        rows: Row headers, one tuple per row.
        columns: Column headers, one tuple (outer to inner level) per column.
        body: What stands in the cells.
        notes: Sentences that belong below it.
        row_marks: Letters of footnotes that concern a whole row; empty where there are none.
        column_marks: The same by column.
    """

    title: str
    row_names: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    columns: tuple[tuple[str, ...], ...]
    body: Cells
    notes: tuple[str, ...] = ()
    row_marks: tuple[str, ...] = ()
    column_marks: tuple[str, ...] = ()

    @property
    def cells(self) -> tuple[tuple[str, ...], ...]:
        """Text by row and column."""
        return self.body.texts

    @property
    def marks(self) -> tuple[tuple[str, ...], ...]:
        """Letters of footnotes by row and column."""
        return tuple(map(tuple, self.body.letters.tolist()))

    @property
    def bold(self) -> tuple[tuple[bool, ...], ...]:
        """Which cells are bold, by row and column."""
        return tuple(map(tuple, self.body.bold.tolist()))


def reordered(items: tuple[Any, ...], order: Sequence[int]) -> tuple[Any, ...]:
    """The items in another order, if there are any."""
    return tuple(items[place] for place in order) if items else ()
