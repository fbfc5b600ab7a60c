"""Tables of corrupted images: accuracy by corruption, and each model's mean and error relative to a baseline."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from .layout import by_dataset, pivot
from .metrics import metric_named
from .recorded import recorded
from .table import Table

CLEAN = "(clean)"
_LEAST = 1e-9  # error that counts as one
_RELATIVE = ("accuracy", "corruption_error", "relative_corruption_error")


def corruption_table(frame: pd.DataFrame, metric: str = "accuracy", **options: Any) -> list[Table]:
    """A metric by corruption (rows; the mean over its severities) and model (columns), clean images first, mean last.

    Where there are several models, a second table has their mean accuracy, and their mean corruption errors relative to
    the first model's (Hendrycks, Dietterich 2019, arXiv 1903.12261): mCE and relative mCE, 1 for the baseline itself.
    One pair per ID dataset; none where nothing was corrupted.
    """
    cells = frame[(frame["evaluator"] == "corruption") & (frame["class"] == "")]
    tables, known = [], metric_named(metric)
    for dataset, part in by_dataset(cells):
        rows = pd.concat([_clean(frame, dataset, metric), over_severities(part)], ignore_index=True)
        title = f"{known.title} on corrupted images of {dataset}{' (%)' if known.percent else ''}"
        tables.append(pivot(rows, ["corruption"], ["model"], metric, **{"title": title, **options}))
        errors = _errors(frame, dataset, part) if metric == "accuracy" else part.head(0)
        if len(errors):
            baseline = part["model"].iloc[0]
            title = f"Mean over the corruptions of {dataset}; errors relative to {baseline}"
            absent = f"{baseline} errs on no image of one of the corruptions, or on no more than on clean ones"
            measured = [name for name in _RELATIVE if (errors["metric"] == name).any()]
            tables.append(pivot(errors, ["model"], ["metric"], measured, absent=absent, **{"title": title, **options}))
    return tables


def over_severities(cells: pd.DataFrame) -> pd.DataFrame:
    """One row for each corruption: the mean over its severities, or its only one; the mean over all last."""
    last = _over_all(cells)
    parts = cells[~last]
    by_corruption = parts.groupby("corruption", observed=True, sort=False)
    single = by_corruption["severity"].transform("nunique") == 1
    place = by_corruption.ngroup()  # in the order of the plan, where means come last
    chosen = parts[parts["severity"].isna() | single].assign(place=place)
    return pd.concat([chosen.sort_values("place", kind="stable").drop(columns="place"), cells[last]])


def overall(cells: pd.DataFrame) -> pd.DataFrame:
    """The rows of the mean over all corruptions, or of the only corruption."""
    last = _over_all(cells)
    return cells[last] if last.any() else over_severities(cells)


def _over_all(cells: pd.DataFrame) -> pd.Series:
    """Which rows are means over several corruptions, not over the severities of one."""
    several = recorded(cells, "mean", lambda corruptions: len(corruptions) > 1)
    return (cells["role"] == "mean") & several.eq(True)


def _clean(frame: pd.DataFrame, dataset: str, metric: str) -> pd.DataFrame:
    """Clean images, where their metric was measured too."""
    same = frame[(frame["dataset"] == dataset) & (frame["metric"] == metric) & (frame["class"] == "")]
    clean = same[same["evaluator"].isin(["accuracy", "calibration"])]
    return clean.assign(evaluator="corruption", corruption=CLEAN)


def _errors(frame: pd.DataFrame, dataset: str, part: pd.DataFrame) -> pd.DataFrame:
    """Mean accuracy, mCE and relative mCE of every model and seed that has all the corruptions of the first model."""
    ok = part[(part["status"] == "ok") & (part["metric"] == "accuracy")]
    ok = ok.assign(corruption=ok["corruption"].astype(str), model=ok["model"].astype(str))
    levels = ok[ok["severity"].notna()]
    error = 1 - levels.pivot_table("value", ["model", "seed"], "corruption", aggfunc="mean", observed=True, sort=False)
    means = overall(ok)
    first, measured = part["model"].iloc[0], error.index.get_level_values("model")
    if measured.nunique() < 2 or first not in measured:
        return ok.head(0)
    baseline = error.xs(first, level="model")
    clean = _clean(frame, dataset, "accuracy").assign(model=lambda rows: rows["model"].astype(str))
    clean_error = 1 - clean.groupby(["model", "seed"], sort=False)["value"].mean()
    found = [means]
    for position, row in means[means["seed"].isin(baseline.index)].iterrows():
        own, other = error.loc[(row["model"], row["seed"])], baseline.loc[row["seed"]]
        rest = (clean_error.get((name, row["seed"]), np.nan) for name in (row["model"], first))
        more, more_other = (errors - least for errors, least in zip((own, other), rest, strict=True))
        ratios = {"corruption_error": (own, other), "relative_corruption_error": (more, more_other)}
        for name, (above, below) in ratios.items():
            value = (above / below).mean(skipna=False)
            if np.isfinite(value) and (below > _LEAST).all():
                one = means.loc[[position]].assign(metric=name, value=value, ci_low=np.nan, ci_high=np.nan)
                found.append(one)
    return pd.concat(found, ignore_index=True).assign(corruption="")
