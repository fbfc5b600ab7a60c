"""The safety table: one row a model with what was measured of it, in means over cells."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from .corruption_table import overall
from .declarations import TableSpec
from .layout import by_dataset, pivot
from .spec_tables import Made, Options


def safety_tables(frame: pd.DataFrame, spec: TableSpec, options: Options) -> Made:
    """One row a model: accuracy, calibration, robustness, OOD detection and what else was measured."""
    given = {name: value for name, value in options.items() if value is not None}
    for dataset, part in by_dataset(frame[frame["evaluator"].isin({item.evaluator for item in SAFETY})]):
        rows = [summary for item in SAFETY if len(summary := _summary(part, item))]
        names = list(dict.fromkeys(row["metric"].iloc[0] for row in rows))
        if names:
            settings = {"title": spec.title.format(dataset=dataset), "absent": spec.absent, **spec.options, **given}
            table = pivot(pd.concat(rows, ignore_index=True), spec.rows, spec.columns, names, **settings)
            titles = {item.name: item.title for item in SAFETY}
            yield dataset, replace(table, columns=tuple((titles[name],) for name in names))


@dataclass(frozen=True)
class SafetyColumn:
    """A column of the safety table: the mean of a metric over all cells of an evaluator (of one OOD group).

    A group also tells columns of one metric apart.
    """

    title: str
    evaluator: str
    metric: str
    group: str = ""

    @property
    def name(self) -> str:
        """Metric and group, what the pivot knows the column by."""
        return f"{self.metric}@{self.group}" if self.group else self.metric


SAFETY = (
    SafetyColumn("Accuracy (%)", "accuracy", "accuracy"),
    SafetyColumn("ECE (%)", "calibration", "ece"),
    SafetyColumn("Accuracy under attack, mean (%)", "attack", "robust_accuracy"),
    SafetyColumn("AUROC near, mean (%)", "ood", "auroc", "near"),
    SafetyColumn("AUROC far, mean (%)", "ood", "auroc", "far"),
    SafetyColumn("Accuracy under corruption, mean (%)", "corruption", "accuracy", "corruption"),
)


def _summary(part: pd.DataFrame, item: SafetyColumn) -> pd.DataFrame:
    """The column's value of every model and seed; of one with cells that failed, their status.

    Intervals are averaged, too: they are on the wide side, since the cells share their images and err together.
    """
    cells = part[(part["evaluator"] == item.evaluator) & (part["class"] == "")]
    cells = cells[cells["metric"].isin([item.metric, ""])]
    if item.evaluator == "corruption":
        cells = overall(cells)
    elif item.group:
        cells = cells[cells["ood_group"] == item.group]
    cells = cells[cells["role"] != "worst-case"]  # it is made of the others
    by_row = cells.groupby(["model", "seed"], sort=False, observed=True)
    single = len(cells) == by_row.ngroups
    found = []
    for _, own in by_row:
        ok = own["status"] == "ok"
        bad = ~own["status"].isin(["ok", "skipped"])
        # A mean over whatever was measured would rank models wrongly: the status stands there instead.
        own = own[bad] if bad.any() else own[ok] if ok.any() else own
        row = own.head(1).copy()
        if not single and ok.any() and not bad.any():
            row[["value", "ci_low", "ci_high"]] = own[["value", "ci_low", "ci_high"]].mean().to_numpy()
        found.append(row.assign(metric=item.name, evaluator="", attack="", detector="", epsilon=np.nan, ood_dataset=""))
    return pd.concat(found) if found else cells.head(0)
