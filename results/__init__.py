"""Results: the store, the tidy frame, what metrics are, statistics, tables and the drift check. No torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .drift import Report, compare, make_baseline, read_baseline, write_baseline
    from .estimates import Estimate, bootstrap_intervals, estimate
    from .frame import COLUMNS, load_results, read_csv, write_csv
    from .intervals import mean_interval, median_interval, proportion_interval
    from .metrics import METRICS, Metric, headline_metrics, metric_named
    from .paired_tests import paired_auroc, tied_with_best
    from .records import STATUSES, CellResult, Facts, Identity, Measurement, PlannedCell, RunRecord
    from .roc_intervals import auroc_interval
    from .samples import Confidences, Sample, Scores, Values
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
    "estimates": (
        "Estimate",
        "bootstrap_intervals",
        "estimate",
    ),
    "frame": (
        "COLUMNS",
        "load_results",
        "read_csv",
        "write_csv",
    ),
    "roc_intervals": ("auroc_interval",),
    "intervals": (
        "mean_interval",
        "median_interval",
        "proportion_interval",
    ),
    "metrics": (
        "METRICS",
        "Metric",
        "metric_named",
        "headline_metrics",
    ),
    "paired_tests": (
        "paired_auroc",
        "tied_with_best",
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
    "samples": (
        "Confidences",
        "Sample",
        "Scores",
        "Values",
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
    "METRICS",
    "STATUSES",
    "CellResult",
    "Confidences",
    "Estimate",
    "Facts",
    "Identity",
    "Measurement",
    "Metric",
    "PlannedCell",
    "Report",
    "RunRecord",
    "Sample",
    "Scores",
    "Store",
    "Table",
    "Values",
    "attack_grid",
    "auroc_interval",
    "bootstrap_intervals",
    "calibration_table",
    "compare",
    "estimate",
    "headline_metrics",
    "load_results",
    "make_baseline",
    "mean_interval",
    "median_interval",
    "metric_named",
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
