"""Tables from the tidy frame: pivots, the presets of the field, and their formats."""

from __future__ import annotations

from .check_flags import checks_of, failed_checks
from .checks_table import checks_table
from .formats import FORMATS, render
from .layout import pivot, select
from .presets import PRESETS, attack_grid, calibration_table, minimal_table, ood_table, safety_table, write_tables
from .table import Table

__all__ = [
    "FORMATS",
    "PRESETS",
    "Table",
    "attack_grid",
    "calibration_table",
    "checks_of",
    "checks_table",
    "failed_checks",
    "minimal_table",
    "ood_table",
    "pivot",
    "render",
    "safety_table",
    "select",
    "write_tables",
]
