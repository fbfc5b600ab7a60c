"""Leaderboards out of the tidy frame, column by column, as compact as JSON gets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ..display import VAGUE, decimals_of, rounded, shown_intervals
from ..factorize import factorize, group_index
from ..layout import header, reasons_of
from ..metrics import metric_named
from ..records import IDENTITY_COLUMNS
from ..seeds import mean_over_seeds

#: Rows of one view of one leaderboard; more than this nobody reads in a page, and results.csv has them all.
MOST_ROWS = 100_000

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
        "decimals": decimals_of(name),
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
    """Value, half the interval's width, its ends and n, cell by cell; ``null`` where there is none."""
    where = cell_of.loc[rows.index].to_numpy()
    inside = where < size
    rows, where = rows[inside], where[inside]
    low, high, vague = shown_intervals(rows)
    with np.errstate(invalid="ignore"):  # infinity has no interval
        half = (high - low) / 2
    columns = {"value": rows["value"].to_numpy(dtype=float), "half": half, "low": low, "high": high}
    placed = {key: _placed(column, where, size, name) for key, column in columns.items()}
    for at in where[vague].tolist():
        placed["half"][at] = VAGUE
    return {**placed, "n": _spread(rows["n"].to_numpy(dtype=float, na_value=np.nan), where, size, int)}


def _placed(values: np.ndarray, where: np.ndarray, size: int, name: str) -> list[Any]:
    """Numbers that the page rounds to what tables show: shares in hundredths of a percent, others to five digits.

    One that would round to something else, or is half way, is sent as it is shown.
    """
    percent, decimals = metric_named(name).percent, decimals_of(name)
    values = 100 * values if percent else values
    coarse, fine = rounded(values, decimals), rounded(values, 2 if percent else -5)
    with np.errstate(invalid="ignore"):
        alike = (np.abs(fine - coarse) < 0.49 * 10.0**-decimals) & ((coarse != 0) | (fine > 0))  # no -0.0
    sent = np.where(alike, fine, coarse)
    return _spread(np.round(100 * sent) if percent else sent, where, size, int if percent else float)


def _spread(values: np.ndarray, where: np.ndarray, size: int, kind: type[int] | type[float]) -> list[Any]:
    """The values at their places; JSON has no infinity, which the page shows as text."""
    full: list[Any] = [None] * size
    for at, value in zip(where.tolist(), values.tolist(), strict=True):
        if not math.isnan(value):
            full[at] = kind(value) if math.isfinite(value) else "∞" if value > 0 else "-∞"
    return full


def describe_runs(frame: pd.DataFrame, runs: Mapping[str, Any]) -> dict[str, Any]:
    """Provenance of the runs that the frame's cells come from, by id."""
    return {run_id: runs[run_id] for run_id in frame["run_id"].unique() if run_id in runs}
