"""The table of detectors against adversarial images."""

from __future__ import annotations

from typing import Any

import pandas as pd

from .layout import by_dataset, pivot
from .metrics import metric_named
from .table import Table


def adversarial_table(frame: pd.DataFrame, metric: str = "auroc", **options: Any) -> list[Table]:
    """How well each detector (columns) tells clean images from those that an attack at an epsilon (rows) made of them.

    One table per ID dataset; none where nothing was attacked for detectors. Models are further rows where there are
    several.
    """
    cells = frame[frame["evaluator"] == "adversarial-detection"]
    known = metric_named(metric)
    tables = []
    for dataset, part in by_dataset(cells):
        rows = ["model", "attack", "epsilon"] if part["model"].nunique() > 1 else ["attack", "epsilon"]
        title = f"{known.title}{' in %' if known.percent else ''} of adversarial images as OOD on {dataset}"
        evaluator = "adversarial-detection"
        tables.append(pivot(part, rows, ["detector"], metric, evaluator=evaluator, **{"title": title, **options}))
    return tables
