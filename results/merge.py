"""Stores joined into one, and tidy rows put back into a store."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ..registry import GauntletError
from .records import (
    FACT_COLUMNS,
    IDENTITY_COLUMNS,
    MISSING,
    CellResult,
    Facts,
    Identity,
    Measurement,
    PlannedCell,
    RunRecord,
)
from .store import FILE_NAME, Store


@dataclass(frozen=True)
class Conflict:
    """Two results under one key that differ, in the metric where they first do."""

    identity: str
    metric: str
    kept: float
    other: float
    source: Path

    def __str__(self) -> str:
        return f"{self.identity}: {self.metric} is {self.kept:g} here and {self.other:g} in {self.source}; kept ours."


def merge_stores(sources: Sequence[Path | str], out: Path | str) -> list[Conflict]:
    """Copy every run, cell, array and history of some stores into the one in the folder ``out``.

    The latest runs of a suite become one more run, which has the cells of all of them (seeds that were computed in
    several places, say); of cells with the same coordinates and different keys, the one that came first.

    Cells are told apart by their keys: what is there already is not copied again, an ok result replaces one that is
    not, and two ok results that differ in a value are a conflict, of which the one that came first stays.

    Raises:
        GauntletError: A source is absent or not a store, or is the target itself.
    """
    target = Path(out) / FILE_NAME
    paths = [path / FILE_NAME if path.is_dir() else path for path in map(Path, sources)]
    for path in paths:
        if path.resolve() == target.resolve():
            raise GauntletError(f"{path} is the store that takes the others; leave it out of the list.")
    conflicts: list[Conflict] = []
    opened = [Store.open(path, create=False) for path in paths]  # all of them, before anything is written
    try:
        with Store.open(target) as store:
            latest = [_latest(store), *map(_latest, opened)]  # of the target as it was
            for path, source in zip(paths, opened, strict=True):
                conflicts += _merge(source, store, path)
            _join_plans(store, latest)
    finally:
        for source in opened:
            source.close()
    return conflicts


def _latest(store: Store) -> dict[str, RunRecord]:
    """The last run of each suite, by the suite's name."""
    return {run.suite: run for run in store.runs()}


def _join_plans(store: Store, latest: Sequence[dict[str, RunRecord]]) -> None:
    """One more run for every suite whose latest runs differ."""
    for suite in dict.fromkeys(name for runs in latest for name in runs):
        runs = list({runs[suite].run_id: runs[suite] for runs in latest if suite in runs}.values())
        in_order: dict[Identity, PlannedCell] = {}
        for run in runs:
            for cell in store.planned(run.run_id):
                in_order.setdefault(cell.identity, cell)
        if len(store.planned(_latest(store)[suite].run_id)) == len(in_order):
            continue
        whole = store.begin_run(suite, runs[-1].suite_text, {"merged": [run.run_id for run in runs]})
        store.plan(whole, in_order.values())
        store.declare(whole, store.declarations([run.run_id for run in runs]).values())
        store.end_run(whole, "merged")


def _merge(source: Store, target: Store, path: Path) -> list[Conflict]:
    conflicts = []
    known = {run.run_id for run in target.runs()}
    for run in source.runs():
        if run.run_id not in known:
            target.adopt_run(run, source.planned(run.run_id))
            target.declare(run.run_id, source.declarations([run.run_id]).values())
    for key, run_id, created_at, identity in source.results_by_key():
        ours, theirs = target.result(key), source.result(key)
        assert theirs is not None
        if ours is None or (ours.status != "ok" and theirs.status == "ok"):
            target.put(run_id, key, theirs, created_at=created_at)
        elif ours.status == theirs.status == "ok" and (difference := _difference(ours, theirs)):
            conflicts.append(Conflict(identity, *difference, path))
    for key, label in source.history_labels().items():
        if target.history(key) is None:
            target.put_history(key, label, source.history(key) or [])
    return conflicts


def _difference(ours: CellResult, theirs: CellResult) -> tuple[str, float, float] | None:
    """Name and both values of the first measurement that differs by more than rounding."""
    values = {(m.metric, m.class_name): m.value for m in theirs.measurements}
    for mine in ours.measurements:
        other = values.get((mine.metric, mine.class_name), math.nan)
        both_nan = math.isnan(mine.value) and math.isnan(other)
        if not both_nan and not math.isclose(mine.value, other, rel_tol=1e-9, abs_tol=1e-12):
            return mine.metric, mine.value, other
    return None


def put_frame(store: Store, frame: pd.DataFrame, suite: str) -> str:
    """Put tidy rows into a store as a run of a suite; returns its id. Keys that are there already are kept."""
    run_id = store.begin_run(suite, "", {"imported": True})
    cells = []
    for _, rows in frame.groupby(list(IDENTITY_COLUMNS), sort=False, dropna=False):
        first = rows.iloc[0]
        cell = PlannedCell(
            Identity(**{name: _value(first[name]) for name in IDENTITY_COLUMNS}),
            str(first["key"]),
            Facts(**{name: first[name] for name in FACT_COLUMNS}),
            json.loads(first["params"] or "{}"),
        )
        cells.append((cell, rows))
    store.plan(run_id, [cell for cell, _ in cells])
    present = store.statuses([cell.key for cell, _ in cells])
    for cell, rows in cells:
        if rows["status"].iloc[0] != MISSING and present.get(cell.key) != "ok":
            store.put(run_id, cell.key, _result(rows), created_at=str(rows["created_at"].iloc[0]))
    store.end_run(run_id, "imported")
    return run_id


def _result(rows: pd.DataFrame) -> CellResult:
    first = rows.iloc[0]
    measurements: Iterable[Measurement] = (
        Measurement(
            row["metric"], row["value"], _value(row["ci_low"]), _value(row["ci_high"]), _value(row["n"]), row["class"]
        )
        for _, row in rows[rows["metric"] != ""].iterrows()
    )
    seconds = first["seconds"] if pd.notna(first["seconds"]) else 0.0
    return CellResult(first["status"], first["reason"], "", tuple(measurements), {}, float(seconds), first["device"])


def _value(value: Any) -> Any:
    """None for a gap, plain numbers otherwise."""
    if pd.isna(value):
        return None
    return value.item() if hasattr(value, "item") else value
