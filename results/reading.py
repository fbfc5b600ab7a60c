"""The store's rows as a tidy frame: two plain queries, one over cells and one over measurements, joined in numpy."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from .coding import coded
from .records import FACT_COLUMNS, IDENTITY_COLUMNS, MISSING
from .store import Store

_CELL_COLUMNS = (*IDENTITY_COLUMNS, *FACT_COLUMNS, "params", "key", "status", "reason", "seconds", "device", "run_id")
_CELLS = f"""
SELECT {", ".join(f"p.{name}" for name in (*IDENTITY_COLUMNS, *FACT_COLUMNS))}, p.params, p.key,
       ifnull(c.status, '{MISSING}'), ifnull(c.reason, 'planned but not computed'), c.seconds, ifnull(c.device, ''),
       ifnull(c.run_id, p.run_id), ifnull(c.created_at, '')
FROM runs AS r JOIN run_cells AS p ON p.run_id = r.run_id LEFT JOIN cells AS c ON c.key = p.key
WHERE p.run_id IN (SELECT value FROM json_each(?))
ORDER BY r.number, p.position
"""
_MEASUREMENTS = """
SELECT w.place, ifnull(m.metric, ''), ifnull(m.class_name, ''), ifnull(m.value, 'nan'), ifnull(m.ci_low, 'nan'),
       ifnull(m.ci_high, 'nan'), ifnull(m.n, -1)
FROM wanted AS w LEFT JOIN measurements AS m
    ON m.key = w.key AND (?1 IS NULL OR m.metric IN (SELECT value FROM json_each(?1)))
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
    names = None if metrics is None else json.dumps(list(metrics))
    with store.snapshot() as connection:
        rows = connection.execute(_CELLS, (json.dumps(list(run_ids)),)).fetchall()
        cells = dict(zip((*_CELL_COLUMNS, "created_at"), zip(*rows, strict=True), strict=True))
        keep = _newest(cells) if len(run_ids) > 1 else range(len(rows))
        connection.execute("CREATE TEMP TABLE wanted (place INTEGER PRIMARY KEY, key TEXT)")
        # measurements that an earlier attempt left behind do not count where the cell is not ok
        keys = ((i, cells["key"][i] if cells["status"][i] == "ok" else None) for i in keep)
        connection.executemany("INSERT INTO wanted VALUES (?, ?)", keys)
        measured = np.fromiter(connection.execute(_MEASUREMENTS, (names,)), dtype=_MEASUREMENT)
        connection.execute("DROP TABLE wanted")
    if metrics is not None:
        ok = np.array(cells["status"], dtype=object) == "ok"
        measured = measured[(measured["metric"] != "") | ~ok[measured["place"]]]
    place = measured["place"]
    columns = {name: _column(name, values, place) for name, values in cells.items()}
    columns |= {name: coded(measured[name]) for name in ("metric", "class")}
    columns |= {name: np.ascontiguousarray(measured[name]) for name in ("value", "ci_low", "ci_high")}
    return columns | {"n": pd.arrays.IntegerArray(np.ascontiguousarray(measured["n"]), measured["n"] == -1)}


def _column(name: str, values: Sequence[Any], place: np.ndarray) -> Any:
    if name in _FLOATS:
        return np.array(values, dtype=float)[place]
    if name in _INTEGERS:
        return pd.array(values, dtype="Int64").take(place)
    return coded(values, place)


def _newest(cells: dict[str, Any]) -> list[int]:
    """Rows of the cells that no later row repeats."""
    last = {identity: i for i, identity in enumerate(zip(*(cells[name] for name in IDENTITY_COLUMNS), strict=True))}
    return sorted(last.values())
