"""Tables from the tidy frame: pivots, the presets of the field, and their formats."""

from __future__ import annotations

from .formats import FORMATS, render
from .layout import pivot, select
from .presets import PRESETS, attack_grid, calibration_table, ood_table, safety_table, write_tables
from .table import Table

__all__ = [
    "FORMATS",
    "PRESETS",
    "Table",
    "attack_grid",
    "calibration_table",
    "ood_table",
    "pivot",
    "render",
    "safety_table",
    "select",
    "write_tables",
]
