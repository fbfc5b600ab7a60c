"""Bold, rank sets and groups in a table: line by line, what its values can be told apart by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from ..registry import GauntletError
from .comparison import MOST_RANKED, Arrays, Row, Standing, stand
from .display import number
from .factorize import factorize
from .metrics import directions, metric_named
from .seeds import cell_of
from .table import Table

BEST = ("", "row", "column")
_IMAGES = ("dataset", "ood_dataset")  # cells that differ in these are of other images


@dataclass(frozen=True)
class Comparer:
    """How the cells of a table are compared: of each ``row`` or ``column`` (or not at all), and over what."""

    best: str = ""
    ranks: bool = False
    over: str = ""
    arrays: Arrays | None = None

    def __post_init__(self) -> None:
        if self.best not in BEST:
            raise GauntletError(f"The best is that of each row or each column, got {self.best!r}.")


def mark_best(table: Table, each: pd.DataFrame, chosen: pd.DataFrame, where: np.ndarray, how: Comparer) -> Table:
    """The table with bold cells, rank sets and groups, and the notes that say what they mean.

    Args:
        table: As laid out.
        each: The tidy rows of every seed.
        chosen: The same with seeds averaged, one row a cell.
        where: (rows, columns) position in ``chosen`` of each cell, -1 where there is none.
        how: The comparison.

    Raises:
        GauntletError: A comparison over seeds was asked for and there are none.
    """
    if not how.best:
        return table
    bold, ranks = np.zeros(where.shape, dtype=bool), np.full(where.shape, "", dtype=object)
    cells, found = _Cells(each, len(chosen)), []
    for line, metric, positions in _lines(chosen, where, down=how.best == "column"):
        standing = stand(metric, cells.rows(positions), how.arrays, over=how.over, ranks=how.ranks)
        found.append((metric, standing))
        bold[line] = standing.tied
        ranks[line] = [_words(*one) for one in zip(standing.low, standing.high, standing.groups, strict=True)]
    body = replace(table.body, bold=bold, ranks=ranks)
    return replace(table, body=body, notes=(*table.notes, *_notes(how, found, ranks)))


class _Cells:
    """The rows of a comparison, by their position among the cells."""

    def __init__(self, each: pd.DataFrame, count: int) -> None:
        ok = (each["status"] == "ok").to_numpy()
        number = cell_of(each)[0] if len(each) > count else np.arange(count)
        self._order = np.flatnonzero(ok)[np.argsort(number[ok], kind="stable")]
        self._ends = np.bincount(number[ok], minlength=count).cumsum()
        self._columns = {name: each[name].to_numpy() for name in (*_IMAGES, "key", "value", "ci_low", "ci_high")}
        self._seed = each["seed"].to_numpy(dtype=float, na_value=0)

    def rows(self, positions: np.ndarray) -> list[Row]:
        """One for each position, of all its seeds that are ok."""
        starts = np.append(0, self._ends)
        return [self._row(self._order[starts[place] : starts[place + 1]]) for place in positions]

    def _row(self, at: np.ndarray) -> Row:
        columns = self._columns
        halves = (columns["ci_high"][at] - columns["ci_low"][at]).astype(float) / 2
        images = tuple(str(columns[name][at[0]]) for name in _IMAGES)
        seeds = self._seed[at].astype(int).tolist()
        return Row(images, columns["key"][at].tolist(), seeds, columns["value"][at].astype(float), halves)


def _lines(
    chosen: pd.DataFrame, where: np.ndarray, *, down: bool
) -> Iterator[tuple[tuple[np.ndarray, np.ndarray], str, np.ndarray]]:
    """Cells to compare, their metric and positions: lines of one metric with a better direction, and of two numbers."""
    finite = np.append(np.isfinite(chosen["value"].to_numpy(dtype=float)), False)
    codes, names = factorize(chosen["metric"])
    metrics, signs = np.append(codes, -1)[where], directions(names)
    for place in range(where.shape[1 if down else 0]):
        line = (slice(None), place) if down else (place, slice(None))
        own = np.unique(metrics[line][metrics[line] >= 0])
        there = np.flatnonzero(finite[where[line]])
        if len(own) == 1 and signs[own[0]] and len(there) > 1:
            at = np.full(len(there), place)
            yield (there, at) if down else (at, there), names[own[0]], where[line][there]


def _words(low: int, high: int, groups: str) -> str:
    if not low:
        return ""
    return f"#{low}{f' to #{high}' if high > low else ''} {groups}"


def _notes(how: Comparer, found: list[tuple[str, Standing]], ranks: np.ndarray) -> Iterator[str]:
    """What bold and ranks mean, by which test, over what, at which level; and what could have been found."""
    tests = "; or ".join(dict.fromkeys(standing.how for _, standing in found))
    if found:
        yield f"Bold: not significantly worse than the best of each {how.best} (95 %, Holm; {tests})."
        yield from _detectable(found)
    if (ranks != "").any():
        yield (
            f"#1 to #3: between these ranks of the {how.best}, for all rows together with 95 % confidence (step-down, "
            "Mogstad, Romano, Shaikh, Wilhelm 2024; over few seeds Holm over all pairs); rows that share a capital "
            "letter cannot be told apart."
        )
    elif how.ranks and found:
        yield f"No rank sets: they need two rows with an interval, and at most {MOST_RANKED}."


def _detectable(found: list[tuple[str, Standing]]) -> Iterator[str]:
    """The smallest difference that these images could show, over all lines of a metric."""
    for metric in dict.fromkeys(name for name, _ in found):
        sizes = [standing.detectable for name, standing in found if name == metric]
        if np.isfinite(sizes).any():
            known = metric_named(metric)
            size = float(np.nanmedian(sizes))
            words = f"{number(100 * size, 2)} points" if known.percent else number(size, -2)
            yield f"A single comparison finds a difference in {known.title} of {words} with 80 % power."
