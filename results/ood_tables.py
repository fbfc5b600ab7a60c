"""The table of OOD detection: by set, by group of sets, or by model; classes left out in turn share one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from ..registry import GauntletError, nearest
from .declarations import TableSpec
from .leave_one_class_out import by_origin, mean_over_classes
from .records import IDENTITY_COLUMNS
from .spec_tables import Made, Options, lay_out, wanted

LAYOUTS = ("sets", "groups", "models")


def ood_tables(frame: pd.DataFrame, spec: TableSpec, options: Options) -> Made:
    """One table per ID dataset; of those that leave out one class after the other, one with classes and their mean.

    The option ``layout``: ``sets``: models and detectors down, OOD sets across, grouped near/far; ``groups``: the same
    with one mean per group (OpenOOD's); ``models``: OOD sets and detectors down, models across (report R2's).

    Raises:
        GauntletError: There is no such layout.
    """
    options = dict(options)
    layout, metric = options.pop("layout", None) or "sets", options.get("metric") or spec.metrics[0]
    if layout not in LAYOUTS:
        raise GauntletError(f"There is no layout {layout!r} of the OOD table; {nearest(layout, LAYOUTS)}")
    for dataset, part in by_origin(wanted(frame, spec)):
        parts = [part, mean_over_classes(part, metric)]
        if layout == "groups" and (part["ood_group"] != "").any():
            parts = [parts[1], group_means(part)]  # that over classes knows its interval
        part = pd.concat([some for some in parts if len(some)] or parts, ignore_index=True)
        own = replace(spec, rows=("ood_dataset?", "detector"), columns=("model",))
        if layout != "models":
            grouped = ("ood_group",) if (part["ood_group"] != "").any() else ()
            own = replace(spec, rows=("model?", "detector"), columns=(*grouped, "ood_dataset"))
        yield from lay_out(frame, part, dataset, own, options)


def group_means(frame: pd.DataFrame) -> pd.DataFrame:
    """The mean over the OOD sets of every group; not ok where one of its sets is not, so that means compare.

    The interval is that of a mean whose parts err together (they share the ID images): it errs on the wide side.
    """
    by = [name for name in (*IDENTITY_COLUMNS, "ood_group", "metric", "class") if name != "ood_dataset"]
    frame = frame[frame["role"] == "measured"]  # not the recorded means of named groups
    if frame.empty:
        return frame
    bad = frame[frame["status"] != "ok"]
    good = frame[frame["status"] == "ok"]
    marked = good["params"].str.contains('"stand_in"', regex=False)
    good = good.iloc[np.argsort(~marked.to_numpy(), kind="stable")]  # a mean bears the mark of any of its sets
    grouped = good.groupby(by, sort=False, dropna=False)
    means = grouped.first()
    means[["value", "ci_low", "ci_high"]] = grouped[["value", "ci_low", "ci_high"]].mean()
    sets = frame.groupby("ood_group")["ood_dataset"].nunique()
    means = means.reset_index()
    broken = [name for name in by if name not in ("metric", "class")]
    spoiled = means.merge(bad[broken].drop_duplicates(), how="left", on=broken, indicator="found")["found"].eq("both")
    means = pd.concat([means[~spoiled.to_numpy()], bad.drop_duplicates(broken)])
    labels = [f"mean of {sets[group]}" for group in means["ood_group"]]
    return means.assign(role="mean", ood_dataset=labels).loc[:, [*frame.columns]].reset_index(drop=True)
