"""Tables from the tidy frame: pivots, the presets of the field, and their formats."""

from __future__ import annotations

from .footnotes import checks_of, failed_checks
from .formats import FORMATS, render
from .layout import pivot, select
from .presets import PRESETS, attack_grid, calibration_table, ood_table, presets, write_tables
from .table import Table

__all__ = [
    "FORMATS",
    "PRESETS",
    "Table",
    "attack_grid",
    "calibration_table",
    "checks_of",
    "failed_checks",
    "ood_table",
    "pivot",
    "presets",
    "render",
    "select",
    "write_tables",
]
