"""Tables of corrupted images: accuracy by corruption, and each model's mean and error relative to a baseline."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from .aggregates import means, means_option
from .declarations import TableSpec
from .layout import by_dataset
from .recorded import recorded
from .spec_tables import CLEAN, Made, Options, distinct, lay_out, wanted

MEAN = "mean"  # header of the mean over corruptions where none was recorded
_LEAST = 1e-9  # error that counts as one


def corruption_tables(frame: pd.DataFrame, spec: TableSpec, options: Options) -> Made:
    """A metric by corruption (the mean over its severities) and model, clean images first, the mean over all last."""
    metric, (kind, options) = options.get("metric") or spec.metrics[0], means_option(options)
    for dataset, part in by_dataset(_cells(frame, spec)):
        part = part[part["metric"].isin([metric, ""])]
        single, last = over_severities(part[~_over_all(part)]), _over_all(part)
        clean = _clean(frame, dataset, metric).assign(corruption=distinct(CLEAN, part["corruption"]))
        whole = overall(part, kind) if last.any() else part.head(0)
        whole = whole.assign(corruption=[distinct(label, single["corruption"]) for label in whole["corruption"]])
        rows = pd.concat([clean, single, whole], ignore_index=True)
        yield from lay_out(frame, rows, dataset, spec, options)


def error_tables(frame: pd.DataFrame, spec: TableSpec, options: Options) -> Made:
    """Of several models the mean accuracy, and the mean corruption errors relative to the first one's.

    mCE and relative mCE of Hendrycks, Dietterich 2019, arXiv 1903.12261; both are 1 for the first model itself.
    """
    kind, options = means_option(options)
    if options.get("metric") in (None, "accuracy"):
        for dataset, part in by_dataset(_cells(frame, spec)):
            if len(errors := _errors(frame, dataset, part, kind)):
                baseline = str(part["model"].iloc[0])
                own = replace(spec, absent=spec.absent.format(baseline=baseline))
                yield from lay_out(frame, errors, dataset, own, {**options, "metric": None}, baseline=baseline)


def _cells(frame: pd.DataFrame, spec: TableSpec) -> pd.DataFrame:
    cells = wanted(frame, spec)
    return cells[cells["class"] == ""]


def over_severities(cells: pd.DataFrame) -> pd.DataFrame:
    """One row for each corruption: the mean over its severities, or its only one."""
    by_corruption = cells.groupby("corruption", observed=True, sort=False)
    single = by_corruption["severity"].transform("nunique") == 1
    place = by_corruption.ngroup()  # in the order of the plan, where means come last
    chosen = cells[cells["severity"].isna() | single].assign(place=place)
    return chosen.sort_values("place", kind="stable").drop(columns="place")


def overall(cells: pd.DataFrame, means_over: str = "common") -> pd.DataFrame:
    """The mean over all corruptions of every model and seed, or its only corruption.

    Where one of the recorded means is not ok, all are made anew, over the corruptions that all have.
    """
    last, rows = _over_all(cells), ["model", "seed"]
    ok = cells["status"] == "ok"
    if last.any() and len(cells[last & ok]) == cells[ok | last].groupby(rows, sort=False, observed=True).ngroups:
        return cells[last]
    single = over_severities(cells[~last])
    label = cells["corruption"][last].iloc[0] if last.any() else MEAN
    if single["corruption"].nunique() < 2:
        return single
    return means(single, rows, ["corruption"], kind=means_over).assign(corruption=label, role="mean")


def _over_all(cells: pd.DataFrame) -> pd.Series:
    """Which rows are means over several corruptions, not over the severities of one."""
    several = recorded(cells, "mean", lambda corruptions: len(corruptions) > 1)
    return (cells["role"] == "mean") & several.eq(True)


def _clean(frame: pd.DataFrame, dataset: str, metric: str) -> pd.DataFrame:
    """Clean images, where their metric was measured too."""
    same = frame[(frame["dataset"] == dataset) & (frame["metric"] == metric) & (frame["class"] == "")]
    clean = same[same["evaluator"].isin(["accuracy", "calibration"])]
    return clean.assign(evaluator="corruption")


def _errors(frame: pd.DataFrame, dataset: str, part: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Mean accuracy, mCE and relative mCE of every model and seed that has all the corruptions of the first model."""
    ok = part[(part["status"] == "ok") & (part["metric"] == "accuracy")]
    ok = ok.assign(corruption=ok["corruption"].astype(str), model=ok["model"].astype(str))
    levels = ok[ok["severity"].notna()]
    error = 1 - levels.pivot_table("value", ["model", "seed"], "corruption", aggfunc="mean", observed=True, sort=False)
    whole = overall(ok, kind)
    first, measured = part["model"].iloc[0], error.index.get_level_values("model")
    if measured.nunique() < 2 or first not in measured:
        return ok.head(0)
    baseline = error.xs(first, level="model")
    clean = _clean(frame, dataset, "accuracy").assign(model=lambda rows: rows["model"].astype(str))
    clean_error = 1 - clean.groupby(["model", "seed"], sort=False)["value"].mean()
    found = [whole]
    for position, row in whole[whole["seed"].isin(baseline.index)].iterrows():
        own, other = error.loc[(row["model"], row["seed"])], baseline.loc[row["seed"]]
        rest = (clean_error.get((name, row["seed"]), np.nan) for name in (row["model"], first))
        more, more_other = (errors - least for errors, least in zip((own, other), rest, strict=True))
        ratios = {"corruption_error": (own, other), "relative_corruption_error": (more, more_other)}
        for name, (above, below) in ratios.items():
            value = (above / below).mean(skipna=False)
            if np.isfinite(value) and (below > _LEAST).all():
                one = whole.loc[[position]].assign(metric=name, value=value, ci_low=np.nan, ci_high=np.nan)
                found.append(one)
    return pd.concat(found, ignore_index=True).assign(corruption="")
