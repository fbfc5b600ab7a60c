"""The tables of open-set recognition: decisions, accuracy by label, and medians by label (report R3's table 19)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from .held_out import in_turn, left_out_in_turn
from .layout import pivot
from .metrics import metric as metric_named
from .table import Table

#: The metrics of the decisions.
DECISIONS = ("open_accuracy", "open_accuracy_id", "ood_rejected", "false_alarm_rate")
_OWN = ("median_h", "median_max_2_max")
#: The metrics of the medians by label.
MEDIANS = (*_OWN, "median_score")
_RATE = r" at [\d.e-]+ %$"


def open_set_table(frame: pd.DataFrame, **options: Any) -> list[Table]:
    """Accuracy, OOD images rejected and false alarms by model and detector, one table per ID dataset.

    Datasets that leave out one class after the other share a table for each metric, with the classes as columns.
    """
    cells = frame[(frame["evaluator"] == "open-set") & (frame["class"] == "")]
    tables = []
    for dataset, part in _by_dataset(cells[~in_turn(cells)]):
        rows = [name for name in ("ood_dataset", "model", "detector") if name == "detector" or part[name].nunique() > 1]
        title = f"Open-set recognition on {dataset}{_against(part)}"
        tables.append(pivot(part, rows, ["metric"], DECISIONS, evaluator="open-set", **{"title": title, **options}))
    for metric in DECISIONS if in_turn(cells).any() else ():
        for dataset, part in _by_dataset(left_out_in_turn(cells[in_turn(cells)], metric)):
            rows = ["model", "detector"] if part["model"].nunique() > 1 else ["detector"]
            title = f"{metric_named(metric).title} in % on {dataset}"
            tables.append(
                pivot(part, rows, ["ood_dataset"], metric, evaluator="open-set", **{"title": title, **options})
            )
    return tables


def label_table(frame: pd.DataFrame, **options: Any) -> list[Table]:
    """Share of each label's images (OOD is one more) that are told right, by model and detector."""
    cells = frame[(frame["evaluator"] == "open-set") & ~in_turn(frame)]
    return [
        pivot(
            part.assign(**{"class": part["class"].where(part["class"] != "", "all")}),
            ["class"],
            _columns(part),
            "open_accuracy",
            evaluator="open-set",
            **{"title": f"Accuracy by label on {dataset}{_against(part)} (%)", **options},
        )
        for dataset, part in _by_set(cells[cells["metric"].isin(["open_accuracy", ""])])
    ]


def median_table(frame: pd.DataFrame, **options: Any) -> list[Table]:
    """Medians by label: of h and Max-2-Max where a detector decides itself, of its score where none does."""
    cells = frame[(frame["evaluator"] == "open-set") & ~in_turn(frame) & (frame["status"] == "ok")]
    tables = []
    for dataset, part in _by_set(cells):
        own = part[part["metric"].isin(_OWN)]
        if own.empty:  # the score does not depend on the threshold
            own = part[part["metric"] == "median_score"]
            own = own.assign(detector=own["detector"].str.replace(_RATE, "", regex=True))
            own = own.drop_duplicates(["model", "detector", "ood_dataset", "seed", "class"])
        if len(own):
            tables.append(_medians(own, **{"title": f"Medians by label on {dataset}{_against(own)}", **options}))
    return tables


def _medians(own: pd.DataFrame, *, title: str, decimals: int | None = None, **_: Any) -> Table:
    """Means over seeds to so many significant digits: some are 1e-5, others near 1."""
    columns = [*_columns(own), "metric"]
    means = own.groupby(["class", *columns], sort=False)["value"].mean()
    across = list(dict.fromkeys(own[columns].itertuples(index=False, name=None)))
    names = list(dict.fromkeys(own["class"]))
    seeds = own["seed"].nunique()
    return Table(
        title=title,
        row_names=("class",),
        rows=tuple((name,) for name in names),
        columns=tuple((*key[:-1], metric_named(key[-1]).title) for key in across),
        cells=tuple(tuple(f"{means[(name, *key)]:.{decimals or 3}g}" for key in across) for name in names),
        notes=(f"Mean over {seeds} seeds.",) if seeds > 1 else (),
    )


def _columns(part: pd.DataFrame) -> list[str]:
    return [name for name in ("model", "detector") if name == "detector" or part[name].nunique() > 1]


def _against(part: pd.DataFrame) -> str:
    return f" against {part['ood_dataset'].iloc[0]}" if part["ood_dataset"].nunique() == 1 else ""


def _by_dataset(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    for dataset in frame["dataset"].unique():  # in order of the plan
        yield dataset, frame[frame["dataset"] == dataset]


def _by_set(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    for dataset, part in _by_dataset(frame):
        for outside in part["ood_dataset"].unique():
            yield dataset, part[part["ood_dataset"] == outside]
