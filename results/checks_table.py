"""The sanity checks of each model as a table, with the findings in words."""

from __future__ import annotations

import pandas as pd

from .check_flags import MARK
from .layout import Table


def checks_table(frame: pd.DataFrame) -> list[Table]:
    """The sanity checks by model (rows), with the finding of each in words; one table per ID dataset."""
    checks = frame[(frame["evaluator"] == "checks") & frame["metric"].isin(["check_passed", ""])]
    return [_table(str(name), checks[checks["dataset"] == name]) for name in checks["dataset"].unique()]


def _table(dataset: str, part: pd.DataFrame) -> Table:
    names = [name for name in ("model", "seed") if name == "model" or part[name].nunique() > 1]
    rows = [
        (*(str(row[name]) for name in names), str(row["attack"]), _result(row), str(row["reason"]))
        for _, row in part.iterrows()
    ]
    return Table(
        title=f"Sanity checks of the attacked models on {dataset}",
        row_names=(*names, "check", "result", "finding"),
        rows=tuple(rows),
        columns=(),
        cells=((),) * len(rows),
        notes=(f"A model that fails a check has its robust figures marked {MARK} in every table.",),
    )


def _result(row: pd.Series) -> str:
    if row["status"] != "ok":
        return str(row["status"])
    return "–" if row["metric"] == "" else "pass" if row["value"] else "FAIL"
