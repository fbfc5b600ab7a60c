"""A table as a data frame of numbers, for formats that keep types."""

from __future__ import annotations

import pandas as pd

from .table import Table


def as_frame(table: Table) -> pd.DataFrame:
    """Row headers as text columns, then one float column per column of the table (NaN where there is no number)."""
    headers = [" / ".join(filter(None, names)) for names in table.columns]
    frame = pd.DataFrame(list(table.rows), columns=list(table.row_names), dtype=str)
    numbers = pd.DataFrame(table.body.value, columns=headers, dtype="float64")
    return pd.concat([frame, numbers], axis=1)
