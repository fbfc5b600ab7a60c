"""Results: the store, the tidy frame, what metrics are, statistics, tables and the drift check. No torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .drift import Report, compare, make_baseline, read_baseline, write_baseline
    from .frame import COLUMNS, load_results, read_csv, write_csv
    from .metrics import HEADLINE, METRICS, Metric, metric
    from .records import STATUSES, CellResult, Facts, Identity, Measurement, PlannedCell, RunRecord
    from .statistics import (
        auroc_interval,
        calibration_bootstrap,
        mean_interval,
        median_interval,
        ood_bootstrap,
        paired_auroc,
        proportion_interval,
        tied_with_best,
    )
    from .store import Store
    from .tables import Table, attack_grid, calibration_table, ood_table, pivot, render, select, write_tables

# Where each public name lives; a module loads only when one of its names is asked for (PEP 562), since pandas and
# scipy take longer to import than `gauntlet --help` may take to answer.
_HOMES = {
    "drift": (
        "Report",
        "compare",
        "make_baseline",
        "read_baseline",
        "write_baseline",
    ),
    "frame": (
        "COLUMNS",
        "load_results",
        "read_csv",
        "write_csv",
    ),
    "metrics": (
        "HEADLINE",
        "METRICS",
        "Metric",
        "metric",
    ),
    "records": (
        "STATUSES",
        "CellResult",
        "Facts",
        "Identity",
        "Measurement",
        "PlannedCell",
        "RunRecord",
    ),
    "statistics": (
        "auroc_interval",
        "calibration_bootstrap",
        "mean_interval",
        "median_interval",
        "ood_bootstrap",
        "paired_auroc",
        "proportion_interval",
        "tied_with_best",
    ),
    "store": ("Store",),
    "tables": (
        "Table",
        "attack_grid",
        "calibration_table",
        "ood_table",
        "pivot",
        "render",
        "select",
        "write_tables",
    ),
}

__all__ = [
    "COLUMNS",
    "HEADLINE",
    "METRICS",
    "STATUSES",
    "CellResult",
    "Facts",
    "Identity",
    "Measurement",
    "Metric",
    "PlannedCell",
    "Report",
    "RunRecord",
    "Store",
    "Table",
    "attack_grid",
    "auroc_interval",
    "calibration_bootstrap",
    "calibration_table",
    "compare",
    "load_results",
    "make_baseline",
    "mean_interval",
    "median_interval",
    "metric",
    "ood_bootstrap",
    "ood_table",
    "paired_auroc",
    "pivot",
    "proportion_interval",
    "read_baseline",
    "read_csv",
    "render",
    "select",
    "tied_with_best",
    "write_baseline",
    "write_csv",
    "write_tables",
]


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f".{home}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
