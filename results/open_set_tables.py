"""The tables of open-set recognition: decisions, accuracy by label, and medians by label (report R3's table 19)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from .declarations import TableSpec
from .layout import by_dataset
from .leave_one_class_out import by_origin, mean_over_classes
from .recorded import recorded
from .spec_tables import Made, Options, against, lay_out, wanted
from .table import Cell, Cells, Table

_OWN = ("median_h", "median_max_2_max")


def turned_tables(frame: pd.DataFrame, spec: TableSpec, options: Options) -> Made:
    """Datasets that leave out one class after the other: a table for each metric, with the classes as columns."""
    cells = wanted(frame, spec)
    cells = cells[cells["class"] == ""]
    for metric in spec.metrics if len(cells) else ():
        for dataset, part in by_origin(cells):
            rows = pd.concat([part, mean_over_classes(part, metric)], ignore_index=True)
            yield from (("", table) for _, table in lay_out(frame, rows, dataset, spec, {**options, "metric": metric}))


def label_tables(frame: pd.DataFrame, spec: TableSpec, options: Options) -> Made:
    """Share of each label's images (OOD is one more) that are told right, by model and decision.

    Of thresholds only those at the first of the false alarm rates are shown. One table for each OOD set.
    """
    cells = wanted(frame, spec)
    for dataset, part in _by_set(_first_rate(cells[cells["metric"].isin([*spec.metrics, ""])])):
        labels = part["class"].astype(object)
        yield from lay_out(frame, part.assign(**{"class": labels.where(labels != "", "all")}), dataset, spec, options)


def _first_rate(cells: pd.DataFrame) -> pd.DataFrame:
    """Own decisions, and those by a threshold at the rate that comes first."""
    rates = _rates(cells)
    thresholds = rates.dropna()
    return cells[rates.isna() | (rates == thresholds.iloc[0])] if len(thresholds) else cells


def _rates(cells: pd.DataFrame) -> pd.Series:
    """The false alarm rate of the threshold; None where the detector decides itself."""
    return recorded(cells, "decision", lambda decision: decision["false_alarm_rate"] if decision != "own" else None)


def median_tables(frame: pd.DataFrame, spec: TableSpec, options: Options) -> Made:
    """Medians by label: of h and each decision's Max-2-Max where one has them, of scores where none does.

    One table for each model, dataset and OOD set.
    """
    cells = wanted(frame, spec)
    for dataset, part in _by_set(cells[cells["status"] == "ok"]):
        for model in part["model"].unique():
            shown = _shown_medians(part[part["model"] == model])
            name = f"{model} on {dataset}" if part["model"].nunique() > 1 else dataset
            if len(shown):
                title = spec.title.format(dataset=name, against=against(shown))
                yield dataset, _medians(shown, **{"title": title, **options})


def _shown_medians(part: pd.DataFrame) -> pd.DataFrame:
    """Medians of one model under their column's name, ``column``."""
    own = part[part["metric"].isin(_OWN)]
    if own.empty:  # a score does not depend on the threshold
        own = part[part["metric"] == "median_score"]
        named = zip(own["detector"], _rates(own), strict=True)
        own = own.assign(column=[f"score of {_without_rate(*one)}" for one in named])
    else:  # h is the model's, whatever detector reads it
        gaps = "Max-2-Max of " + own["detector"].astype(object)
        own = own.assign(column=gaps.where(own["metric"] != "median_h", "h"))
    return own.drop_duplicates(["column", "seed", "class"])


def _without_rate(label: str, rate: float | None) -> str:
    """The label of a detector without what bench adds to it for a threshold."""
    return label if rate is None or rate != rate else label.removesuffix(f" at {100 * rate:g} %")


def _medians(own: pd.DataFrame, *, title: str, decimals: int | None = None, **_: Any) -> Table:
    """Means over seeds to so many significant digits: some are 1e-5, others near 1."""
    means = own.groupby(["class", "column"], sort=False)["value"].mean()
    columns, names = own["column"].unique(), own["class"].unique()
    seeds = own["seed"].nunique()
    return Table(
        title=title,
        row_names=("class",),
        rows=tuple((name,) for name in names),
        columns=tuple((column,) for column in columns),
        body=Cells.of([[Cell(means[name, column], digits=-(decimals or 3)) for column in columns] for name in names]),
        notes=(f"Mean over {seeds} seeds.",) if seeds > 1 else (),
    )


def _by_set(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    for dataset, part in by_dataset(frame):
        for outside in part["ood_dataset"].unique():
            yield dataset, part[part["ood_dataset"] == outside]
