"""Means over cells that say over which: by default over those that all rows of a table have, so that means compare."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..registry import GauntletError, nearest
from .factorize import group_index
from .layout import shown
from .recorded import recorded, with_parts

MEANS = ("common", "own")
BASELINES = ("random", "constant")  # detectors that see nothing
_TITLES = {"ood_dataset": "OOD set"}
_NAMED = 8  # of one axis, in a note


class Side(NamedTuple):
    """Some of the cells that could be averaged, as the columns that tell them apart."""

    cells: pd.DataFrame
    axes: Sequence[str]

    def __str__(self) -> str:
        """``detector msp, knn x OOD set glyphs, tiles``; one by one where they are no full product."""
        columns = [list(dict.fromkeys(shown(name, value) for value in self.cells[name])) for name in self.axes]
        titles = [_TITLES.get(name, name) for name in self.axes]
        if math.prod(map(len, columns)) == len(self.cells):
            return " x ".join(f"{title} {_few(names)}" for title, names in zip(titles, columns, strict=True))
        rows = self.cells[list(self.axes)].itertuples(index=False)
        cells = [" / ".join(shown(*pair) for pair in zip(self.axes, row, strict=True)) for row in rows]
        return f"{' / '.join(titles)} {_few(cells)}"


def means_option(options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """What the option ``means`` of a table says (``common`` where it says nothing), and the other options.

    Raises:
        GauntletError: It is neither ``common`` nor ``own``.
    """
    rest = dict(options)
    kind = rest.pop("means", None) or MEANS[0]
    if kind not in MEANS:
        raise GauntletError(f"Means are over the common cells or each row's own, got {kind!r}; {nearest(kind, MEANS)}")
    return kind, rest


def means(cells: pd.DataFrame, by: Sequence[str], over: Sequence[str], *, kind: str = "common") -> pd.DataFrame:
    """One row for all cells that agree in the columns ``by``: their mean over the columns ``over``.

    Where a row lacks a cell (it failed, was skipped or never planned), no row's mean is over it, unless that would
    leave nothing; one that has none at all keeps a status. What each mean is over is recorded, for footnotes. Intervals
    are averaged, too: they are on the wide side, since the cells share their images and err together. The column
    ``cells`` says how many are averaged.

    Args:
        cells: Tidy rows, one for every value of ``by`` and ``over`` together.
        by: Columns that tell the means apart.
        over: Columns that tell the averaged cells apart.
        kind: ``own``: each mean is over all that its row has.
    """
    row_of, first = group_index(cells, by)
    cell_of, first_cell = group_index(cells, over)
    ok = (cells["status"] == "ok").to_numpy()
    has = np.zeros((len(first), len(first_cell)), dtype=bool)
    has[row_of[ok], cell_of[ok]] = True
    if kind == "common" and (shared := has[has.any(axis=1)].all(axis=0)).any():
        has &= shared
    used, measured = ok & has[row_of, cell_of], has.any(axis=1)
    place = np.where(measured, _first(used, row_of, len(first)), _worst(cells, row_of, first))
    found = cells.iloc[place].assign(cells=has.sum(axis=1))
    if len(first_cell) > 1:
        columns = ["value", "ci_low", "ci_high"]
        found.loc[measured, columns] = cells.loc[used, columns].groupby(row_of[used]).mean().to_numpy()
        texts = np.array(_texts(cells.iloc[first_cell], over, has, kind), dtype=object)
        params = found["params"].to_numpy(dtype=object, copy=True)
        order = np.flatnonzero(used)[np.argsort(row_of[used], kind="stable")]
        parts = np.split(cells["params"].to_numpy(dtype=object)[order], np.cumsum(np.bincount(row_of[used]))[:-1])
        params[measured] = [
            with_parts(own, base=text) for own, text in zip(filter(len, parts), texts[measured], strict=True)
        ]
        found["params"] = params
    return found


def of_baselines(cells: pd.DataFrame) -> pd.Series:
    """Which cells are of detectors that see nothing: means leave them out, if there are others."""
    found = recorded(cells, "detector", lambda detector: detector["name"] in BASELINES).eq(True)
    return found & (not found.all())


def _texts(cells: pd.DataFrame, over: Sequence[str], has: np.ndarray, kind: str) -> list[str]:
    """What each mean is over, and what not."""
    axes = [name for name in over if cells[name].nunique(dropna=False) > 1]
    texts: dict[bytes, str] = {}
    for row in has:
        if row.tobytes() not in texts:
            text = f"Mean over {Side(cells[row], axes)}"
            rest = "" if row.all() else f"; not over {Side(cells[~row], axes)}"
            texts[row.tobytes()] = text + rest + (", which not all have." if rest and kind == "common" else ".")
    return [texts[row.tobytes()] for row in has]


def _first(chosen: np.ndarray, row_of: np.ndarray, count: int) -> np.ndarray:
    """Of each row the place of its first chosen cell, 0 where it has none."""
    place, at = np.zeros(count, dtype=int), np.flatnonzero(chosen)[::-1]
    place[row_of[at]] = at
    return place


def _worst(cells: pd.DataFrame, row_of: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Of each row the place of a cell that is not just skipped, if there is one."""
    bad = ~cells["status"].isin(["ok", "skipped"]).to_numpy()
    there = np.bincount(row_of, bad, len(first)) > 0
    return np.where(there, _first(bad, row_of, len(first)), first)


def _few(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
