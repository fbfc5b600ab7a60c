"""The store's rows as a tidy frame: two plain queries, one over cells and one over measurements, joined in numpy."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from .factorize import as_category
from .records import FACT_COLUMNS, IDENTITY_COLUMNS, MISSING
from .store import Store

_CELL_COLUMNS = (
    *IDENTITY_COLUMNS,
    *FACT_COLUMNS,
    "params",
    "key",
    "status",
    "reason",
    "seconds",
    "device",
    "run_id",
    "created_at",
)
_CHOSEN = """
FROM runs AS r JOIN run_cells AS p ON p.run_id = r.run_id LEFT JOIN cells AS c ON c.key = p.key
WHERE p.run_id IN (SELECT value FROM json_each(?))
ORDER BY r.number, p.position
"""
_CELLS = f"""
SELECT {", ".join(f"p.{name}" for name in (*IDENTITY_COLUMNS, *FACT_COLUMNS))}, p.params, p.key,
       ifnull(c.status, '{MISSING}'), ifnull(c.reason, 'planned but not computed'), c.seconds, ifnull(c.device, ''),
       ifnull(c.run_id, p.run_id), ifnull(c.created_at, '')
{_CHOSEN}"""
# What an earlier attempt measured does not count where the cell is not ok now.
_WANTED = f"INSERT INTO wanted (key) SELECT CASE WHEN c.status = 'ok' THEN p.key END {_CHOSEN}"
_MEASUREMENTS = """
SELECT w.place - 1, ifnull(m.metric, ''), ifnull(m.class_name, ''), ifnull(m.value, 'nan'), ifnull(m.ci_low, 'nan'),
       ifnull(m.ci_high, 'nan'), ifnull(m.n, -1)
FROM wanted AS w LEFT JOIN measurements AS m
    ON m.key = w.key {only}
ORDER BY w.place, m.position
"""
_MEASUREMENT = np.dtype(
    [("place", "i8"), ("metric", "O"), ("class", "O"), *((name, "f8") for name in ("value", "ci_low", "ci_high")),
     ("n", "i8")]
)  # fmt: skip
_FLOATS = ("epsilon", "seconds")
_INTEGERS = ("seed", "severity")


def read(store: Store, run_ids: Sequence[str], metrics: Sequence[str] | None = None) -> dict[str, Any]:
    """Columns of the tidy frame of some runs, oldest first; text is coded as categories.

    Of a cell that several of the runs hold, the newest run's row stands. A cell without measurements has one row;
    where only some metrics are wanted, that holds for cells that are not ok.
    """
    only = "" if metrics is None else f"AND m.metric IN ({', '.join('?' * len(metrics))})"
    with store.snapshot() as connection:
        chosen = (json.dumps(list(run_ids)),)
        rows = connection.execute(_CELLS, chosen).fetchall()
        connection.execute("CREATE TEMP TABLE wanted (place INTEGER PRIMARY KEY, key TEXT)")
        connection.execute(_WANTED, chosen)
        measured = np.fromiter(
            connection.execute(_MEASUREMENTS.format(only=only), tuple(metrics or ())), dtype=_MEASUREMENT
        )
        connection.execute("DROP TABLE wanted")
    cells = dict(zip(_CELL_COLUMNS, zip(*rows, strict=True), strict=True))
    if len(run_ids) > 1:
        measured = measured[_newest(cells)[measured["place"]]]
    if metrics is not None:
        ok = np.array(cells["status"], dtype=object) == "ok"
        measured = measured[(measured["metric"] != "") | ~ok[measured["place"]]]
    place = measured["place"]
    columns = {name: _column(name, values, place) for name, values in cells.items()}
    columns |= {name: as_category(measured[name]) for name in ("metric", "class")}
    columns |= {name: np.ascontiguousarray(measured[name]) for name in ("value", "ci_low", "ci_high")}
    return columns | {"n": pd.arrays.IntegerArray(np.ascontiguousarray(measured["n"]), measured["n"] == -1)}


def _column(name: str, values: Sequence[Any], place: np.ndarray) -> Any:
    if name in _FLOATS:
        return np.array(values, dtype=float)[place]
    if name in _INTEGERS:
        return pd.array(values, dtype="Int64").take(place)
    return as_category(values, place)


def _newest(cells: dict[str, Any]) -> np.ndarray:
    """Whether no later row is about the same cell."""
    last = {identity: i for i, identity in enumerate(zip(*(cells[name] for name in IDENTITY_COLUMNS), strict=True))}
    newest = np.zeros(len(cells["key"]), dtype=bool)
    newest[list(last.values())] = True
    return newest
