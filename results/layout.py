"""A table out of the tidy frame: any columns as rows and columns, one metric (or several) in the cells."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd

from ..registry import GauntletError, nearest
from .best import Comparer, mark_best
from .comparison import Arrays
from .display import decimals_of, shown_intervals
from .emphasis import emphasise
from .factorize import constant_column, factorize, group_index
from .footnotes import failed_checks, general_notes
from .metrics import metric_named
from .records import IDENTITY_COLUMNS
from .seeds import mean_over_seeds
from .table import Cells, Table

NOT_PLANNED = "–"
Headers = tuple[tuple[str, ...], ...]


def select(frame: pd.DataFrame, conditions: Mapping[str, Any]) -> pd.DataFrame:
    """Rows of a tidy frame that meet every condition: column -> value, or pattern with ``*`` for text columns.

    Raises:
        GauntletError: A column is unknown, or nothing has one of the values.
    """
    _check_columns(frame, conditions)
    chosen = frame
    for name, wanted in conditions.items():
        values = list(wanted) if isinstance(wanted, (list, tuple)) else [wanted]
        found = [_matches(chosen[name], value) for value in values]
        if nothing := [str(value) for value, mask in zip(values, found, strict=True) if not mask.any()]:
            known = [shown(name, value) for value in chosen[name].unique()]
            raise GauntletError(f"No result has {name} {' or '.join(map(repr, nothing))}; {nearest(nothing[0], known)}")
        chosen = chosen[np.logical_or.reduce(found)]
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
    ranks: bool = False,
    over: str = "",
    arrays: Arrays | None = None,
    title: str = "",
    absent: str = "not part of the plan",
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
        best: Set in bold what is not significantly worse than the best of each ``column`` or ``row``.
        ranks: Say between which ranks of its column (or row) each value is, and its groups.
        over: What comparisons take as random: ``images``, ``seeds`` or ``both``; by default both where there are seeds.
        arrays: Reads the per-image arrays of a cell by its key, so that rows are compared image by image.
        title: Of the table; by default the metrics' titles.
        absent: What a note says of cells that were not planned, where there are any.

    Raises:
        GauntletError: A column or metric is unknown, nothing is selected, or a cell would hold several values.
    """
    dims = [*rows, *columns]
    metrics = [metric] if isinstance(metric, str) else list(metric)
    _check_columns(frame, dims)
    chosen = _choose(frame, metrics, evaluator, per_class="class" in dims)
    reasons = reasons_of(chosen[chosen["status"] != "ok"]).unique().tolist()
    several = "seed" not in dims and chosen["seed"].nunique() > 1
    each, chosen = chosen, mean_over_seeds(chosen, over or "both") if several else chosen.assign(seeds=1, planned=1)
    _check_unique(chosen, dims)
    row_of, row_headers = _axis(chosen, rows, percent)
    column_of, column_headers = _axis(chosen, columns, percent)
    where = np.full((len(row_headers), len(column_headers)), -1)
    where[row_of, column_of] = np.arange(len(chosen))
    table = Table(
        title=title or ", ".join(_metric_title(name, percent) for name in metrics),
        row_names=tuple(rows),
        rows=row_headers,
        columns=column_headers,
        body=_body(chosen, where, percent, decimals, intervals),
        notes=(
            *general_notes(chosen, reasons, intervals=intervals, several=several, over=over or "both"),
            *([f"{NOT_PLANNED}: {absent}."] if (where < 0).any() else []),
        ),
    )
    table = emphasise(table, chosen, where, failed_checks(frame))
    return mark_best(table, each, chosen, where, Comparer(best or "column" * ranks, ranks, over, arrays))


def by_dataset(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The rows of each ID dataset, in order of the plan."""
    for dataset in frame["dataset"].unique():
        yield dataset, frame[frame["dataset"] == dataset]


def header(name: str, value: Any) -> str:
    """A value of an identity column as text: whole numbers plain, other numbers short, gaps empty."""
    if pd.isna(value):
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def shown(name: str, value: Any) -> str:
    """The same for people to read: an epsilon that came as a fraction of 255 is one, unless its decimals are few."""
    text = header(name, value)
    if name != "epsilon" or not text or isinstance(value, str):
        return text
    k = round(value * 255)
    long = not math.isclose(float(f"{value:.4g}"), value, rel_tol=1e-9)
    return f"{k}/255" if long and 1 <= k <= 254 and math.isclose(value * 255, k, rel_tol=1e-9) else text


def reasons_of(cells: pd.DataFrame) -> pd.Series:
    """``status: reason`` of cells, or only the status where there is no reason."""
    status, reason = cells["status"].astype(object), cells["reason"].astype(object)
    return (status + ": " + reason).where(reason != "", status)


def _matches(column: pd.Series, wanted: Any) -> pd.Series:
    if pd.api.types.is_numeric_dtype(column):
        try:
            number = float(Fraction(wanted) if "/" in str(wanted) else wanted)
            near = np.isclose(column.astype("float64"), number, rtol=1e-9, atol=0)
        except (ValueError, ZeroDivisionError):
            raise GauntletError(f"{column.name} is a number, got {wanted!r}.") from None
        return pd.Series(near, column.index)
    codes, values = factorize(column)
    fitting = np.array([value == wanted or fnmatch.fnmatchcase(value, str(wanted)) for value in values], dtype=bool)
    return pd.Series(fitting[codes], column.index)


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
    bad = frame[~ok & frame["evaluator"].isin(measuring) & (frame["metric"] == "")]
    named = frame[~ok & frame["metric"].isin(metrics)]  # a summary says itself which figure it lacks
    labelled = [bad.assign(metric=constant_column(bad["metric"], name)) for name in metrics]
    parts = [part for part in (values, named, *labelled) if len(part)]
    chosen = pd.concat(parts).sort_index(kind="stable") if len(parts) > 1 else parts[0] if parts else values
    present = set(chosen["metric"].unique())
    absent = [name for name in metrics if name not in present]
    if absent or chosen.empty:
        known = set(frame["metric"].unique()) - {""}
        what = " or ".join(map(repr, absent))
        raise GauntletError(f"No result has the metric {what}; {nearest(absent[0] if absent else '', known)}")
    return chosen


def _check_unique(chosen: pd.DataFrame, dims: Sequence[str]) -> None:
    _, first = group_index(chosen, dims)
    if len(first) == len(chosen):
        return
    repeated = chosen.iloc[int(np.setdiff1d(np.arange(len(chosen)), first)[0])]
    example = ", ".join(f"{name} {header(name, repeated[name])!r}" for name in dims)
    others = [name for name in (*IDENTITY_COLUMNS, "metric", "class") if name not in dims]
    varying = [name for name in others if chosen[name].nunique(dropna=False) > 1]
    enough = [name for name in varying if len(group_index(chosen, [*dims, name])[1]) == len(chosen)][:1] or varying
    names = " and ".join(map(repr, enough))
    raise GauntletError(
        f"The table would hold several values in one cell ({example or 'the only one'}); "
        f"add {names} to its rows or columns, or select one value of it."
    )


def _axis(chosen: pd.DataFrame, names: Sequence[str], percent: bool | None) -> tuple[np.ndarray, Headers]:
    """Place of every result along an axis, and the headers there.

    Level by level in order of first appearance, so that equal outer headers stand together.
    """
    numbers, first = group_index(chosen, names)
    levels = []
    for name in names:
        codes, values = factorize(chosen[name])
        titles = [_metric_title(value, percent) if name == "metric" else shown(name, value) for value in values]
        levels.append((pd.factorize(codes[first])[0], np.array(titles, dtype=object)[codes[first]]))
    order = np.lexsort([rank for rank, _ in reversed(levels)]) if levels else np.arange(len(first))
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    headers = zip(*(titles[order].tolist() for _, titles in levels), strict=True) if levels else [()] * len(first)
    return place[numbers], tuple(headers)


def _metric_title(name: str, percent: bool | None) -> str:
    known = metric_named(name)
    return f"{known.title} (%)" if (known.percent if percent is None else percent) else known.title


def _body(
    chosen: pd.DataFrame, where: np.ndarray, percent: bool | None, decimals: int | None, intervals: bool | str
) -> Cells:
    """The results at their places; a cell that is not ok shows its status, one that was not planned a dash."""
    codes, names = factorize(chosen["metric"])
    shares = [bool(metric_named(name).percent) if percent is None else percent for name in names]
    in_percent = np.array(shares, dtype=bool)[codes]
    digits = np.array([decimals_of(name, percent) if decimals is None else decimals for name in names], dtype=int)[
        codes
    ]
    ok = (chosen["status"] == "ok").to_numpy()
    low, high, vague = shown_intervals(chosen)
    numbers = (np.where(ok, column, np.nan) for column in (chosen["value"].to_numpy(dtype=float), low, high))
    columns: dict[str, tuple[Any, Any]] = {  # each with what stands where nothing was planned
        **{name: (column, np.nan) for name, column in zip(("value", "low", "high"), numbers, strict=True)},
        "scale": (np.where(in_percent, 100.0, 1.0), 1.0),
        "digits": (digits, 3),
        "vague": (vague & ok, False),
        "words": (np.where(ok, "", chosen["status"].to_numpy(dtype=object)), NOT_PLANNED),
        **{name: (chosen[name].to_numpy(dtype=int), 1) for name in ("seeds", "planned")},
    }
    placed = {name: np.append(column, gap)[where] for name, (column, gap) in columns.items()}
    return Cells(**placed, intervals=intervals)
