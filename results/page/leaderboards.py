"""Leaderboards out of the tidy frame, column by column, as compact as JSON gets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ..factorize import factorize, group_index
from ..layout import header, reasons_of
from ..metrics import metric_named
from ..records import IDENTITY_COLUMNS
from ..seeds import mean_over_seeds

#: Rows of one view of one leaderboard; more than this nobody reads in a page, and results.csv has them all.
MOST_ROWS = 100_000
#: Shares are sent as whole multiples of this: finer than any interval, and it compresses well.
QUANTUM = 1e-4

_DIMENSIONS = {
    "model": "Model",
    "dataset": "Dataset",
    "detector": "Detector",
    "attack": "Attack",
    "norm": "Norm",
    "epsilon": "ε",
    "ood_dataset": "OOD set",
    "ood_group": "Group",
    "corruption": "Corruption",
    "severity": "Severity",
    "seed": "Seed",
    "source": "Source",
}

_FACTS = ("dataset", "architecture", "recipe", "seed", "norm")


def boards(frame: pd.DataFrame, titles: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """One leaderboard per evaluator, in order of the plan; each with a view of means over seeds and one of all.

    ``titles`` are those that evaluators declare, by name.
    """
    overall = frame[frame["class"] == ""]
    return [_board(name, part, titles or {}) for name, part in overall.groupby("evaluator", sort=False, observed=True)]


def _board(evaluator: Any, part: pd.DataFrame, titles: Mapping[str, str]) -> dict[str, Any]:
    part = part.reset_index(drop=True)
    measured = [name for name in dict.fromkeys(part["metric"]) if name]
    measured.sort(key=lambda name: not metric_named(name).headline)
    several = part["seed"].nunique() > 1
    views = {"each": _view(part, measured, seed=several)}
    if several:
        views["mean"] = _view(mean_over_seeds(part), measured, seed=False)
    return {
        "id": str(evaluator),
        "title": titles.get(str(evaluator), str(evaluator).replace("-", " ").capitalize()),
        "metrics": [_metric(name) for name in measured],
        "groups": [name for name in dict.fromkeys(part["ood_group"]) if name],
        "views": views,
    }


def _metric(name: str) -> dict[str, Any]:
    known = metric_named(name)
    better = {True: "higher", False: "lower", None: ""}[known.higher_is_better]
    return {
        "name": name,
        "title": known.title,
        "about": known.description,
        "better": better,
        "percent": known.percent,
        "headline": known.headline,
    }


def _view(part: pd.DataFrame, measured: list[str], *, seed: bool) -> dict[str, Any]:
    """One row per cell: its dimensions (dictionary-coded), its metrics, and where to find its provenance."""
    cell_of, cells = _cells(part)
    shown = [name for name in _DIMENSIONS if name in part and (seed or name != "seed")]
    dimensions = [_coded(cells[name], name) for name in shown if name == "model" or cells[name].nunique() > 1]
    metrics = {name: _values(part[part["metric"] == name], cell_of, len(cells), name) for name in measured}
    seeds = cells["seeds"].tolist() if "seeds" in cells else None
    return {
        "size": len(cells),
        "left_out": max(0, int(part.attrs.get("cells", len(cells))) - len(cells)),
        "dimensions": dimensions,
        "metrics": metrics,
        "status": _coded(reasons_of(cells), ""),
        "key": cells["key"].tolist(),
        "facts": {name: _coded(cells[name], name) for name in _FACTS},
        "params": _coded(cells["params"], ""),
        "run": _coded(cells["run_id"], ""),
        "device": _coded(cells["device"], ""),
        "seconds": [None if math.isnan(value) else round(value, 3) for value in cells["seconds"]],
        "created": [str(text)[:19] for text in cells["created_at"]],
        "seeds": seeds,
    }


def _cells(part: pd.DataFrame) -> tuple[pd.Series, pd.DataFrame]:
    """Number of the cell of every row, by identity, and one row of every cell."""
    number, first = group_index(part, IDENTITY_COLUMNS)
    part.attrs["cells"] = len(first)
    return pd.Series(number, part.index), part.iloc[first[:MOST_ROWS]].reset_index(drop=True)


def _coded(column: pd.Series, name: str) -> dict[str, Any]:
    """Dictionary coding: distinct values once, then one index a row."""
    codes, values = factorize(column)
    numeric = pd.api.types.is_numeric_dtype(column)
    texts = [_number(value) if numeric else header("", value) for value in values]
    return {"name": name, "title": _DIMENSIONS.get(name, name), "number": numeric, "of": texts, "at": codes.tolist()}


def _number(value: Any) -> float | int | None:
    if pd.isna(value):
        return None
    return int(value) if float(value).is_integer() else float(value)


def _values(rows: pd.DataFrame, cell_of: pd.Series, size: int, name: str) -> dict[str, list[Any]]:
    """Value, distance to both ends of the interval and n, cell by cell; ``null`` where there is none."""
    where = cell_of.loc[rows.index].to_numpy()
    inside = where < size
    rows, where = rows[inside], where[inside]
    value = rows["value"].to_numpy()
    with np.errstate(invalid="ignore"):  # infinity has no interval
        below, above = value - rows["ci_low"].to_numpy(), rows["ci_high"].to_numpy() - value
    counts = rows["n"].astype("float64").to_numpy()
    percent = metric_named(name).percent
    return {
        "value": _placed(value, where, size, percent),
        "below": _placed(below, where, size, percent),
        "above": _placed(above, where, size, percent),
        "n": _placed(counts, where, size, None),
    }


def _placed(values: np.ndarray, where: np.ndarray, size: int, percent: bool | None) -> list[Any]:
    full = np.full(size, np.nan)
    full[where] = np.round(values / QUANTUM) if percent else values
    finite = np.isfinite(full)
    if percent is False:
        with np.errstate(divide="ignore", invalid="ignore"):
            digits = np.where(finite & (full != 0), 4 - np.floor(np.log10(np.abs(full))), 0)
            scale = 10.0 ** np.clip(digits, -300, 300)
            full = np.where(finite & (full != 0), np.round(full * scale) / scale, full)
        return [_finite(number) for number in full.tolist()]
    return [int(number) if ok else None for number, ok in zip(full.tolist(), finite.tolist(), strict=True)]


def _finite(value: float) -> float | str | None:
    """JSON has no infinity; a page shows it as text."""
    if math.isnan(value):
        return None
    return value if math.isfinite(value) else ("∞" if value > 0 else "-∞")


def describe_runs(frame: pd.DataFrame, runs: Mapping[str, Any]) -> dict[str, Any]:
    """Provenance of the runs that the frame's cells come from, by id."""
    return {run_id: runs[run_id] for run_id in frame["run_id"].unique() if run_id in runs}
