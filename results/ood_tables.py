"""The table of OOD detection: by set, by group of sets, or by model; classes left out in turn share one."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from ..registry import GauntletError, nearest
from .aggregates import means, means_option
from .declarations import TableSpec
from .factorize import constant_column
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
    kind, options = means_option(options)
    layout, metric = options.pop("layout", None) or "sets", options.get("metric") or spec.metrics[0]
    if layout not in LAYOUTS:
        raise GauntletError(f"There is no layout {layout!r} of the OOD table; {nearest(layout, LAYOUTS)}")
    for dataset, part in by_origin(wanted(frame, spec)):
        parts = [_mended(part, metric, kind), mean_over_classes(part, metric)]
        if layout == "groups" and (part["ood_group"] != "").any():
            parts = [parts[1], group_means(part, metric, kind)]  # that over classes knows its interval
        part = pd.concat([some for some in parts if len(some)] or [part], ignore_index=True)
        own = replace(spec, rows=("ood_dataset?", "detector"), columns=("model",))
        if layout != "models":
            grouped = ("ood_group",) if (part["ood_group"] != "").any() else ()
            own = replace(spec, rows=("model?", "detector"), columns=(*grouped, "ood_dataset"))
        yield from lay_out(frame, part, dataset, own, options)


def _mended(part: pd.DataFrame, metric: str, kind: str) -> pd.DataFrame:
    """With the recorded means over a group made anew where one of them is not ok."""
    recorded = part["role"] == "mean"
    for group in part["ood_group"][recorded & (part["status"] != "ok")].unique():
        old = recorded & (part["ood_group"] == group)
        made = group_means(part[(part["ood_group"] == group)], metric, kind)
        made = made.assign(ood_dataset=part["ood_dataset"][old].iloc[0])
        part = pd.concat([part[~old], made], ignore_index=True)
        recorded = part["role"] == "mean"
    return part


def group_means(frame: pd.DataFrame, metric: str, kind: str = "common") -> pd.DataFrame:
    """The mean of a metric over the OOD sets of every group, for each detector of each model."""
    cells = frame[(frame["role"] == "measured") & frame["metric"].isin([metric, ""]) & (frame["class"] == "")]
    cells = cells.assign(metric=constant_column(cells["metric"], metric))
    by, found = [name for name in IDENTITY_COLUMNS if name != "ood_dataset"], [cells.head(0)]
    for _, sets in cells.groupby("ood_group", sort=False, observed=True):
        made = means(sets, by, ["ood_dataset"], kind=kind)
        known, count = sets["ood_dataset"].nunique(), int(made["cells"].max())
        label = f"mean of {count}" + (f" of {known}" if 0 < count < known else "")
        found.append(made.assign(role="mean", ood_dataset=label)[[*frame.columns]])
    return pd.concat(found[1:] or found, ignore_index=True)
