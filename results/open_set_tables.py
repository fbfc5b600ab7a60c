"""The tables of open-set recognition: decisions, accuracy by label, and medians by label (report R3's table 19)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from .layout import by_dataset, pivot
from .leave_one_class_out import by_origin, held_out, mean_over_classes
from .metrics import metric_named
from .recorded import recorded
from .table import Table

#: The metrics of the decisions.
DECISIONS = ("open_accuracy", "open_accuracy_id", "ood_rejected", "false_alarm_rate")
_OWN = ("median_h", "median_max_2_max")
#: The metrics of the medians by label.
MEDIANS = (*_OWN, "median_score")


def open_set_table(frame: pd.DataFrame, **options: Any) -> list[Table]:
    """Accuracy, OOD images rejected and false alarms by model and detector, one table per ID dataset.

    Datasets that leave out one class after the other share a table for each metric, with the classes as columns.
    """
    cells = frame[(frame["evaluator"] == "open-set") & (frame["class"] == "")]
    tables = []
    for dataset, part in by_dataset(cells[~held_out(cells)]):
        rows = [name for name in ("ood_dataset", "model", "detector") if name == "detector" or part[name].nunique() > 1]
        title = f"Open-set recognition on {dataset}{_against(part)}"
        tables.append(pivot(part, rows, ["metric"], DECISIONS, evaluator="open-set", **{"title": title, **options}))
    for metric in DECISIONS if held_out(cells).any() else ():
        for dataset, part in by_origin(cells[held_out(cells)]):
            part = pd.concat([part, mean_over_classes(part, metric)], ignore_index=True)
            rows = ["model", "detector"] if part["model"].nunique() > 1 else ["detector"]
            title = f"{metric_named(metric).title} in % on {dataset}"
            tables.append(
                pivot(part, rows, ["ood_dataset"], metric, evaluator="open-set", **{"title": title, **options})
            )
    return tables


def label_table(frame: pd.DataFrame, **options: Any) -> list[Table]:
    """Share of each label's images (OOD is one more) that are told right, by model and decision.

    Of thresholds only those at the first of the false alarm rates are shown.
    """
    cells = frame[(frame["evaluator"] == "open-set") & ~held_out(frame)]
    return [
        pivot(
            part.assign(**{"class": part["class"].astype(object).where(part["class"] != "", "all")}),
            ["model", "detector"] if part["model"].nunique() > 1 else ["detector"],
            ["class"],
            "open_accuracy",
            evaluator="open-set",
            **{
                "title": f"Accuracy by label in % on {dataset}{_against(part)}",
                "percent": True,
                "intervals": False,
                **options,
            },
        )
        for dataset, part in _by_set(_first_rate(cells[cells["metric"].isin(["open_accuracy", ""])]))
    ]


def _first_rate(cells: pd.DataFrame) -> pd.DataFrame:
    """Own decisions, and those by a threshold at the rate that comes first."""
    rates = _rates(cells)
    thresholds = rates.dropna()
    return cells[rates.isna() | (rates == thresholds.iloc[0])] if len(thresholds) else cells


def _rates(cells: pd.DataFrame) -> pd.Series:
    """The false alarm rate of the threshold; None where the detector decides itself."""
    return recorded(cells, "decision", lambda decision: decision["false_alarm_rate"] if decision != "own" else None)


def median_table(frame: pd.DataFrame, **options: Any) -> list[Table]:
    """Medians by label: of h and each decision's Max-2-Max where one has them, of scores where none does.

    One table for each model, dataset and OOD set.
    """
    cells = frame[(frame["evaluator"] == "open-set") & ~held_out(frame) & (frame["status"] == "ok")]
    tables = []
    for dataset, part in _by_set(cells):
        for model in part["model"].unique():
            shown = _shown_medians(part[part["model"] == model])
            name = f"{model} on {dataset}" if part["model"].nunique() > 1 else dataset
            if len(shown):
                tables.append(_medians(shown, **{"title": f"Medians by label: {name}{_against(shown)}", **options}))
    return tables


def _shown_medians(part: pd.DataFrame) -> pd.DataFrame:
    """Medians of one model under their column's name, ``column``."""
    own = part[part["metric"].isin(_OWN)]
    if own.empty:  # a score does not depend on the threshold
        own = part[part["metric"] == "median_score"]
        names = zip(own["detector"], _rates(own), strict=True)
        own = own.assign(column=[f"score of {name.removesuffix(f' at {100 * rate:g} %')}" for name, rate in names])
    else:  # h is the model's, whatever detector reads it
        gaps = "Max-2-Max of " + own["detector"].astype(object)
        own = own.assign(column=gaps.where(own["metric"] != "median_h", "h"))
    return own.drop_duplicates(["column", "seed", "class"])


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
        cells=tuple(tuple(f"{means[(name, column)]:.{decimals or 3}g}" for column in columns) for name in names),
        notes=(f"Mean over {seeds} seeds.",) if seeds > 1 else (),
    )


def _against(part: pd.DataFrame) -> str:
    return f" against {part['ood_dataset'].iloc[0]}" if part["ood_dataset"].nunique() == 1 else ""


def _by_set(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    for dataset, part in by_dataset(frame):
        for outside in part["ood_dataset"].unique():
            yield dataset, part[part["ood_dataset"] == outside]
