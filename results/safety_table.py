"""The safety table: one row a model with what was measured of it, in means over cells."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from .aggregates import means, means_option, of_baselines
from .corruption_table import overall
from .declarations import TableSpec
from .layout import by_dataset, pivot
from .spec_tables import Made, Options


def safety_tables(frame: pd.DataFrame, spec: TableSpec, options: Options) -> Made:
    """One row a model: accuracy, calibration, robustness, OOD detection and what else was measured."""
    kind, options = means_option(options)
    given = {name: value for name, value in options.items() if value is not None}
    for dataset, part in by_dataset(frame[frame["evaluator"].isin({item.evaluator for item in SAFETY})]):
        rows = [summary for item in SAFETY if len(summary := summarised(part, item, kind))]
        names = list(dict.fromkeys(row["metric"].iloc[0] for row in rows))
        if names:
            settings = {"title": spec.title.format(dataset=dataset), "absent": spec.absent, **spec.options, **given}
            table = pivot(pd.concat(rows, ignore_index=True), spec.rows, spec.columns, names, **settings)
            titles = {item.name: item.title for item in SAFETY}
            blind = part["detector"][(part["evaluator"] == "ood") & of_baselines(part)].unique()
            note = [f"Means over detectors leave out {', '.join(blind)}: they see nothing."] if len(blind) else []
            columns = tuple((titles[name],) for name in names)
            yield dataset, replace(table, columns=columns, notes=(*table.notes, *note))


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


_CELLS = ("attack", "epsilon", "detector", "ood_dataset")

SAFETY = (
    SafetyColumn("Accuracy (%)", "accuracy", "accuracy"),
    SafetyColumn("ECE (%)", "calibration", "ece"),
    SafetyColumn("Accuracy under attack, mean (%)", "attack", "robust_accuracy"),
    SafetyColumn("AUROC near, mean (%)", "ood", "auroc", "near"),
    SafetyColumn("AUROC far, mean (%)", "ood", "auroc", "far"),
    SafetyColumn("Accuracy under corruption, mean (%)", "corruption", "accuracy", "corruption"),
)


def summarised(part: pd.DataFrame, item: SafetyColumn, means_over: str = "common") -> pd.DataFrame:
    """The column's value of every model and seed; of one without any cell that is ok, a status."""
    cells = part[(part["evaluator"] == item.evaluator) & (part["class"] == "")]
    cells = cells[cells["metric"].isin([item.metric, ""])]
    if item.evaluator == "corruption":
        cells = overall(cells, means_over)
    else:
        cells = cells[~cells["role"].isin(["worst-case", "mean"])]  # these are made of the others
    if item.evaluator == "calibration":  # of corrupted and attacked images it is no property of the model alone
        cells = cells[(cells["attack"] == "") & (cells["corruption"] == "")]
    if item.evaluator == "ood":
        cells = cells[cells["ood_group"] == item.group]
        cells = cells[~of_baselines(cells)]
    if cells.empty:
        return cells
    found = means(cells, ["model", "seed"], _CELLS, kind=means_over)
    return found.assign(metric=item.name, evaluator="", attack="", detector="", epsilon=np.nan, ood_dataset="")
