"""Tables from the tidy frame: pivots, the presets of the field, and their formats."""

from __future__ import annotations

from .formats import FORMATS, render
from .layout import Table, pivot, select
from .presets import PRESETS, attack_grid, calibration_table, ood_table, write_tables

__all__ = [
    "FORMATS",
    "PRESETS",
    "Table",
    "attack_grid",
    "calibration_table",
    "ood_table",
    "pivot",
    "render",
    "select",
    "write_tables",
]
