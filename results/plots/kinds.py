"""The registry of plot kinds, and what a plot is drawn from: tidy rows, per-sample arrays, examples, histories."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ...registry import GauntletError, nearest
from ..examples import read_examples
from ..frame import as_tidy, coded
from ..layout import header, shown
from ..store import Store

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_LINES = 8  # that a reader can tell apart


@dataclass(frozen=True)
class Material:
    """Tidy rows of the selected cells and the store behind them."""

    frame: pd.DataFrame
    store: Store

    def cells(self, evaluator: str, *arrays: str) -> Iterator[tuple[pd.Series, dict[str, np.ndarray]]]:
        """Ok cells of an evaluator, one row each, with the per-sample arrays that a plot needs.

        Raises:
            GauntletError: There are none, or none that has these arrays.
        """
        found = False
        for _, cell in self.rows(evaluator).drop_duplicates("key").iterrows():
            known = self.store.arrays(cell["key"])
            if set(arrays) <= known.keys():
                found = True
                yield cell, known
        if not found:
            lacking = " and ".join(arrays)
            raise GauntletError(f"No {evaluator} cell holds {lacking}; run the suite again to have them stored.")

    def rows(self, evaluator: str, metric: str | None = None) -> pd.DataFrame:
        """Rows of ok cells of an evaluator (and of one metric over all classes).

        Raises:
            GauntletError: The results have none.
        """
        chosen = self.frame[(self.frame["evaluator"] == evaluator) & (self.frame["status"] == "ok")]
        if metric is not None:
            chosen = chosen[(chosen["metric"] == metric) & (chosen["class"] == "")]
        if chosen.empty:
            what = f"the metric {metric!r} of the evaluator" if metric else "the evaluator"
            raise GauntletError(f"These results have nothing of {what} {evaluator!r}; select others with --where.")
        return chosen

    def examples(self, evaluator: str, *names: str) -> Iterator[tuple[pd.Series, dict[str, np.ndarray]]]:
        """Ok cells of an evaluator with the image examples that the run kept.

        Raises:
            GauntletError: The run kept none.
        """
        found = False
        for _, cell in self.rows(evaluator).drop_duplicates("key").iterrows():
            known = read_examples(self.store.path.parent, (cell["model"], cell["dataset"]), cell["key"])
            if set(names) <= known.keys():
                found = True
                yield cell, known
        if not found:
            raise GauntletError("The run kept no image examples; add `examples: 8` to the suite and run it again.")

    def clean(self, cell: pd.Series) -> dict[str, np.ndarray]:
        """Per-sample arrays of the accuracy cell of the cell's model, dataset and seed; empty where there is none.

        A selection of attacks leaves accuracy cells out, so that the whole store is searched after the selection.
        """
        names = ["model", "dataset", "seed"]
        for frame in (self.frame, self._whole):
            rows = frame[frame["evaluator"] == "accuracy"]
            same = (rows[names].astype(str) == cell[names].astype(str)).all(axis=1)  # as text: a seed may be absent
            for key in rows[same]["key"].unique():
                if known := self.store.arrays(key):
                    return known
        return {}

    @cached_property
    def _whole(self) -> pd.DataFrame:
        return as_tidy(coded(self.store))

    def classes(self, cell: pd.Series) -> list[str]:
        """Class names of the cell's model and dataset, as its accuracy cell knows them."""
        return [str(name) for name in self.clean(cell).get("classes", [])]


@dataclass(frozen=True)
class PlotKind:
    """A kind of plot: its name, what it shows, and the function that draws it."""

    name: str
    summary: str
    draw: Callable[..., Figure]


PLOTS: dict[str, PlotKind] = {}


def plot(name: str) -> Callable[[Callable[..., Figure]], Callable[..., Figure]]:
    """Register a function ``(material) -> Figure`` as a kind of plot; its docstring's first line says what it shows.

    Raises:
        GauntletError: The name is taken.
    """

    def register(function: Callable[..., Figure]) -> Callable[..., Figure]:
        if name in PLOTS:
            raise GauntletError(f"There are two plots named {name!r}; choose another name.")
        PLOTS[name] = PlotKind(name, (function.__doc__ or "").strip().splitlines()[0], function)
        return function

    return register


def kinds() -> Mapping[str, PlotKind]:
    """Every kind of plot, by name."""
    for module in pkgutil.iter_modules(importlib.import_module(__package__).__path__):
        importlib.import_module(f".{module.name}", __package__)
    return PLOTS


def draw(name: str, material: Material) -> Figure:
    """Draw one plot.

    Raises:
        GauntletError: There is no such kind, or the results do not hold what it needs.
    """
    known = kinds()
    if name not in known:
        raise GauntletError(f"There is no plot {name!r}; {nearest(name, known, limit=30)}")
    from .style import styled

    with styled():
        return known[name].draw(material)


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as SVG, PNG or PDF, by the suffix of the path; the same figure gives the same bytes.

    Raises:
        GauntletError: The suffix is another one, or the file cannot be written.
    """
    from .style import styled

    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("svg", "png", "pdf"):
        raise GauntletError(
            f"{path.name}: a plot is written as .svg, .png or .pdf, got {path.suffix or 'no suffix'!r}."
        )
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with styled():
            figure.savefig(path, metadata=metadata)
    except OSError as error:
        raise GauntletError(f"{path} cannot be written ({error.strerror}); choose another with --file.") from error
    return path


def few(cells: list[Any], what: str, most: int = MOST_LINES) -> list[Any]:
    """The cells, if there are few enough to tell apart.

    Raises:
        GauntletError: There are too many.
    """
    if len(cells) > most:
        raise GauntletError(
            f"{len(cells)} {what} are too many for one plot (at most {most}); narrow them with --where."
        )
    return cells


def labels(cells: list[pd.Series]) -> list[str]:
    """Names that tell cells apart: the coordinates in which they differ."""
    table = pd.DataFrame(cells)
    dims = ("model", "dataset", "detector", "attack", "epsilon", "ood_dataset", "corruption", "severity", "seed")
    differing = [name for name in dims if name in table and table[name].nunique(dropna=False) > 1] or ["model"]
    return [", ".join(filter(None, (shown(name, cell[name]) for name in differing))) for cell in cells]


def common(cells: list[pd.Series]) -> str:
    """The coordinates that all cells share, for titles."""
    table = pd.DataFrame(cells)
    dims = ("model", "detector", "attack", "ood_dataset", "dataset")
    shared = [header(name, table[name].iloc[0]) for name in dims if table[name].nunique(dropna=False) == 1]
    return ", ".join(filter(None, shared))
