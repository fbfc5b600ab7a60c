"""The sanity checks of each model as a table, with the findings in words."""

from __future__ import annotations

import pandas as pd

from .declarations import TableSpec
from .footnotes import DAGGER
from .layout import by_dataset
from .spec_tables import Made, Options, wanted
from .table import Cells, Table


def checks_tables(frame: pd.DataFrame, spec: TableSpec, options: Options) -> Made:
    """The sanity checks by model (rows), with the finding of each in words; one table per ID dataset."""
    checks = wanted(frame, spec)
    for dataset, part in by_dataset(checks[checks["metric"].isin([*spec.metrics, ""])]):
        names = [name for name in ("model", "seed") if name == "model" or part[name].nunique() > 1]
        rows = [
            (*(str(row[name]) for name in names), str(row["attack"]), _result(row), str(row["reason"]))
            for _, row in part.iterrows()
        ]
        yield (
            dataset,
            Table(
                title=spec.title.format(dataset=dataset),
                row_names=(*names, "check", "result", "finding"),
                rows=tuple(rows),
                columns=(),
                body=Cells.of([()] * len(rows)),
                notes=(f"A model that fails a check has its robust figures marked {DAGGER} in every table.",),
            ),
        )


def _result(row: pd.Series) -> str:
    if row["status"] != "ok":
        return str(row["status"])
    return "–" if row["metric"] == "" else "pass" if row["value"] else "FAIL"
