"""A table out of the tidy frame: any columns as rows and columns, one metric (or several) in the cells."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..registry import GauntletError, nearest
from .emphasis import emphasise
from .metrics import metric as metric_named
from .records import IDENTITY_COLUMNS
from .seeds import mean_over_seeds
from .table import Table
from .trust import MARK, doubts, footnotes, in_doubt

NOT_PLANNED = "–"
_REASONS = 6  # as many reasons are spelled out below a table


def select(frame: pd.DataFrame, conditions: Mapping[str, Any]) -> pd.DataFrame:
    """Rows of a tidy frame that meet every condition: column -> value, or pattern with ``*`` for text columns.

    Raises:
        GauntletError: A column is unknown, or nothing is left.
    """
    _check_columns(frame, conditions)
    chosen = frame
    for name, wanted in conditions.items():
        kept = chosen[_matches(chosen[name], wanted)]
        if kept.empty:
            known = [header(name, value) for value in chosen[name].unique()]
            raise GauntletError(f"No result has {name} {str(wanted)!r}; {nearest(str(wanted), known)}")
        chosen = kept
    return chosen


def pivot(
    frame: pd.DataFrame,
    rows: Sequence[str],
    columns: Sequence[str],
    metric: str | Sequence[str],
    *,
    evaluator: str | None = None,
    percent: bool | None = None,
    decimals: int | None = None,
    intervals: bool | str = True,
    best: str = "",
    title: str = "",
) -> Table:
    """Lay out a metric by any columns of the tidy frame, in the order of the plan.

    A cell reads ``97.3 ± 0.6`` (value, half the width of its 95 % interval) or, with ``intervals="range"``,
    ``97.3 (96.6, 97.8)``; one that is not ok shows its status and one that was not planned a dash. Unless ``seed`` is
    among the rows or columns, seeds are averaged; a mean over fewer seeds than planned is marked ``(2/3)``.

    Args:
        frame: Tidy results.
        rows: Columns of the frame for the row headers.
        columns: Columns of the frame for the column headers.
        metric: One metric, or several where ``metric`` is among the rows or columns.
        evaluator: Only results of this evaluator.
        percent: Show percent; by default where the metric is a share.
        decimals: Digits after the point; by default 1 for percent and 3 otherwise.
        intervals: Whether to show ``±``; or ``range`` for both ends.
        best: Set the best of each ``column`` or ``row`` in bold, and what is statistically tied with it.
        title: Of the table; by default the metrics' titles.

    Raises:
        GauntletError: A column or metric is unknown, nothing is selected, or a cell would hold several values.
    """
    dims = [*rows, *columns]
    metrics = [metric] if isinstance(metric, str) else list(metric)
    _check_columns(frame, dims)
    failed = doubts(frame)
    chosen = _choose(frame, metrics, evaluator, per_class="class" in dims)
    several = "seed" not in dims and chosen["seed"].nunique() > 1
    chosen = mean_over_seeds(chosen) if several else chosen.assign(seeds=1, planned=1)
    _check_unique(chosen, dims)
    keys = _keys(chosen, dims)
    marked = in_doubt(chosen, failed)
    marks = zip(_texts(chosen, percent, decimals, intervals), marked, strict=True)
    texts = dict(zip(keys, (f"{text} {MARK}" if mark else text for text, mark in marks), strict=True))
    row_keys, column_keys = _in_order(chosen, rows), _in_order(chosen, columns)
    table = Table(
        title=title or ", ".join(_metric_title(name, percent) for name in metrics),
        row_names=tuple(rows),
        rows=tuple(_headers(rows, key, percent) for key in row_keys),
        columns=tuple(_headers(columns, key, percent) for key in column_keys),
        cells=tuple(tuple(texts.get((*row, *column), NOT_PLANNED) for column in column_keys) for row in row_keys),
        notes=(*_notes(chosen, intervals=intervals, several=several), *footnotes(chosen[marked], failed)),
    )
    place = {key: number for number, key in enumerate(keys)}
    where = np.array([[place.get((*row, *column), -1) for column in column_keys] for row in row_keys], dtype=int)
    return emphasise(table, chosen, where.reshape(len(row_keys), len(column_keys)), best)


def header(name: str, value: Any) -> str:
    """A value of an identity column as text: whole numbers plain, other numbers short, gaps empty."""
    if pd.isna(value):
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def reasons_of(bad: pd.DataFrame) -> pd.Series:
    """``status: reason`` of cells that are not ok, or only the status where there is no reason."""
    return (bad["status"] + ": " + bad["reason"]).where(bad["reason"] != "", bad["status"])


def number(value: float, decimals: int = 3) -> str:
    """A number as tables show it; -0.0 reads 0.0."""
    return f"{value:.{decimals}f}" if round(value, decimals) != 0 or not np.isfinite(value) else f"{0:.{decimals}f}"


def _matches(column: pd.Series, wanted: Any) -> pd.Series:
    if isinstance(wanted, (list, tuple)):
        return pd.concat([_matches(column, value) for value in wanted], axis=1).any(axis=1)
    if pd.api.types.is_numeric_dtype(column):
        try:
            near = np.isclose(column.astype("float64"), float(wanted), rtol=1e-9, atol=0)
        except ValueError:
            raise GauntletError(f"{column.name} is a number, got {wanted!r}.") from None
        return pd.Series(near, column.index)
    keep = {value for value in column.unique() if value == wanted or fnmatch.fnmatchcase(value, str(wanted))}
    return column.isin(keep)


def _check_columns(frame: pd.DataFrame, names: Sequence[str] | Mapping[str, Any]) -> None:
    for name in names:
        if name not in frame.columns:
            raise GauntletError(f"The results have no column {name!r}; {nearest(name, frame.columns, limit=30)}")


def _choose(frame: pd.DataFrame, metrics: Sequence[str], evaluator: str | None, *, per_class: bool) -> pd.DataFrame:
    """Values of the metrics, and the cells that are not ok of the evaluators that measure them, in plan order."""
    frame = frame.reset_index(drop=True)
    frame = frame if evaluator is None else frame[frame["evaluator"] == evaluator]
    frame = frame if per_class else frame[frame["class"] == ""]
    ok = frame["status"] == "ok"
    values = frame[ok & frame["metric"].isin(metrics)]
    measuring = [evaluator] if evaluator else values["evaluator"].unique()
    bad = frame[~ok & frame["evaluator"].isin(measuring)]
    chosen = pd.concat([values, *(bad.assign(metric=name) for name in metrics)]).sort_index(kind="stable")
    if chosen.empty:
        known = set(frame["metric"]) - {""}
        what = " or ".join(map(repr, metrics))
        raise GauntletError(f"No result has the metric {what}; {nearest(metrics[0] if metrics else '', known)}")
    return chosen


def _check_unique(chosen: pd.DataFrame, dims: Sequence[str]) -> None:
    repeated = chosen.duplicated(dims) if dims else pd.Series([False] + [True] * (len(chosen) - 1), chosen.index)
    if not repeated.any():
        return
    example = ", ".join(f"{name} {header(name, chosen.loc[repeated, name].iloc[0])!r}" for name in dims)
    others = [name for name in (*IDENTITY_COLUMNS, "metric", "class") if name not in dims]
    varying = [name for name in others if chosen[name].nunique(dropna=False) > 1]
    enough = [name for name in varying if not chosen.duplicated([*dims, name]).any()][:1] or varying
    names = " and ".join(map(repr, enough))
    raise GauntletError(
        f"The table would hold several values in one cell ({example or 'the only one'}); "
        f"add {names} to its rows or columns, or select one value of it."
    )


def _keys(chosen: pd.DataFrame, names: Sequence[str]) -> list[tuple[Any, ...]]:
    """The values of some columns, row by row, with ``None`` for a gap (NaN does not equal itself)."""
    columns = [chosen[name].astype(object).where(chosen[name].notna(), None) for name in names]
    return list(zip(*columns, strict=True)) if columns else [()] * len(chosen)


def _in_order(chosen: pd.DataFrame, names: Sequence[str]) -> list[tuple[Any, ...]]:
    """Distinct keys, level by level in order of first appearance, so that equal outer headers stand together."""
    keys = list(dict.fromkeys(_keys(chosen, names)))
    ranks = [
        {value: i for i, value in enumerate(dict.fromkeys(key[level] for key in keys))} for level in range(len(names))
    ]
    return sorted(keys, key=lambda key: tuple(rank[value] for rank, value in zip(ranks, key, strict=True)))


def _headers(names: Sequence[str], key: Sequence[Any], percent: bool | None) -> tuple[str, ...]:
    return tuple(
        _metric_title(value, percent) if name == "metric" else header(name, value)
        for name, value in zip(names, key, strict=True)
    )


def _metric_title(name: str, percent: bool | None) -> str:
    known = metric_named(name)
    return f"{known.title} (%)" if (known.percent if percent is None else percent) else known.title


def _texts(chosen: pd.DataFrame, percent: bool | None, decimals: int | None, intervals: bool | str) -> Iterator[str]:
    in_percent = {
        name: metric_named(name).percent if percent is None else percent for name in chosen["metric"].unique()
    }
    names = ("metric", "value", "ci_low", "ci_high", "status", "seeds", "planned")
    for name, value, low, high, status, seeds, planned in zip(
        *(chosen[column].tolist() for column in names), strict=True
    ):
        if status != "ok":
            yield status
            continue
        scale, digits = (100, 1) if in_percent[name] else (1, 3)
        digits = digits if decimals is None else decimals
        text = number(scale * value, digits)
        if intervals == "range" and np.isfinite(high - low):
            text += f" ({number(scale * low, digits)}, {number(scale * high, digits)})"
        elif intervals and np.isfinite(high - low):
            text += f" ± {number(scale * (high - low) / 2, digits)}"
        yield text if seeds == planned else f"{text} ({seeds}/{planned})"


def _notes(chosen: pd.DataFrame, *, intervals: bool | str, several: bool) -> Iterator[str]:
    if several and intervals == "range":
        yield f"Mean over up to {chosen['planned'].max()} seeds; in brackets the 95 % interval of that mean."
    elif several:
        yield f"Mean over up to {chosen['planned'].max()} seeds; ± is half the 95 % interval of that mean."
    elif intervals == "range":
        yield "In brackets the ends of the 95 % interval."
    elif intervals and (chosen["ci_high"] - chosen["ci_low"]).notna().any():
        yield "± is half the width of the 95 % interval."
    bad = chosen[chosen["status"] != "ok"]
    reasons = reasons_of(bad).unique()
    yield from reasons[:_REASONS]
    if len(reasons) > _REASONS:
        yield f"... and {len(reasons) - _REASONS} more reasons; results.csv has them all."
