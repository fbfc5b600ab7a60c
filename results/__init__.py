"""Results: the store, the tidy frame, what metrics are, statistics, tables and the drift check. No torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .frame import COLUMNS, load_results, read_csv, write_csv
    from .records import STATUSES, CellResult, Facts, Identity, Measurement, PlannedCell, RunRecord
    from .store import Store

# Where each public name lives; a module loads only when one of its names is asked for (PEP 562), since pandas and
# scipy take longer to import than `gauntlet --help` may take to answer.
_HOMES = {
    "COLUMNS": "frame",
    "STATUSES": "records",
    "CellResult": "records",
    "Facts": "records",
    "Identity": "records",
    "Measurement": "records",
    "PlannedCell": "records",
    "RunRecord": "records",
    "Store": "store",
    "load_results": "frame",
    "read_csv": "frame",
    "write_csv": "frame",
}

__all__ = [
    "COLUMNS",
    "STATUSES",
    "CellResult",
    "Facts",
    "Identity",
    "Measurement",
    "PlannedCell",
    "RunRecord",
    "Store",
    "load_results",
    "read_csv",
    "write_csv",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
