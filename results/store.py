"""The store: every run, planned cell, result and per-sample array in one SQLite file."""

from __future__ import annotations

import contextlib
import json
import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ..registry import GauntletError, nearest
from ..registry.safe_files import reading
from .database import BUSY_SECONDS, bindable, connect, explained, in_memory, is_whole, pack, unpack_all
from .declarations import EvaluatorDeclaration, as_json, from_json
from .records import (
    CRASH,
    FACT_COLUMNS,
    IDENTITY_COLUMNS,
    CellResult,
    Facts,
    Identity,
    Measurement,
    PlannedCell,
    RunRecord,
    check_distinct,
    coordinates,
    describe,
)

FILE_NAME = "store.sqlite"


class Store:
    """Results by content key, and runs that say which cells belong to them and under which identity.

    Several processes may write one store; one ``Store`` belongs to the thread that opened it. Every ``put`` is one
    transaction, committed when it returns: a process killed at any moment loses nothing that was put.

    Example:
        >>> import tempfile
        >>> from gauntlet.results import CellResult, Identity, Measurement, PlannedCell, Store
        >>> with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "store.sqlite") as store:
        ...     run_id = store.begin_run("quickstart", "", {})
        ...     store.plan(run_id, [PlannedCell(Identity("accuracy", "cnn", "digits"), "key-1")])
        ...     store.put(run_id, "key-1", CellResult(measurements=(Measurement("accuracy", 0.9, 0.8, 0.95, 100),)))
        ...     store.statuses(["key-1", "key-2"])
        {'key-1': 'ok'}
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self.path = path
        self._connection = connection

    @classmethod
    def open(cls, path: Path | str, *, create: bool = True, timeout: float = BUSY_SECONDS) -> Store:
        """Open the store in this file (or in this existing folder).

        Args:
            path: The file, usually ``gauntlet-out/store.sqlite``.
            create: Make file and folder where they are absent; otherwise that is an error.
            timeout: Seconds to wait for another process that writes.

        Raises:
            GauntletError: The file is absent, not writable, not a store, or made by a newer version.
        """
        path = Path(path)
        path = path / FILE_NAME if path.is_dir() else path
        return cls(connect(path, create=create, timeout=timeout), path)

    @classmethod
    def in_memory(cls) -> Store:
        """A store without a file, for as long as it is not closed."""
        return cls(in_memory(), Path("in memory") / FILE_NAME)

    @property
    def has_file(self) -> bool:
        """Whether it outlives the process."""
        return bool(self._connection.execute("PRAGMA database_list").fetchone()[2])

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled, it is its path: another process opens the file itself."""
        return Store.open, (self.path,)

    def copy_to(self, folder: Path) -> Path:
        """Write the store to a file in another folder, unless it lies there; returns the file.

        Raises:
            GauntletError: The folder cannot be written.
        """
        path = folder / FILE_NAME
        if path.resolve() != self.path.resolve():
            with Store.open(path) as other, explained(path):
                self._connection.backup(other._connection)
        return path

    def close(self) -> None:
        """Close the file; closing twice does nothing."""
        self._connection.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def begin_run(self, suite: str, suite_text: str, provenance: Mapping[str, Any]) -> str:
        """Record that a run of a suite starts; returns its id. ``provenance`` must be JSON-able."""
        now = _now()
        run_id = f"{now[:19].replace('-', '').replace(':', '').replace('T', '-')}-{secrets.token_hex(3)}"
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO runs (run_id, suite, suite_text, provenance, started_at) VALUES (?, ?, ?, ?, ?)",
                (run_id, suite, suite_text, _json(provenance), now),
            )
        return run_id

    def end_run(self, run_id: str, status: str) -> None:
        """Record how a run ended (``finished``, ``interrupted``, ...)."""
        with self._transaction() as connection:
            ended = connection.execute(
                "UPDATE runs SET status = ?, ended_at = ? WHERE run_id = ?", (status, _now(), run_id)
            )
            if not ended.rowcount:
                raise self._unknown_run(run_id)

    def adopt_run(self, run: RunRecord, cells: Iterable[PlannedCell]) -> None:
        """Take over a run of another store with its cells, id and dates as they are."""
        values = {**vars(run), "provenance": _json(run.provenance)}
        del values["cells"]
        columns, places = ", ".join(values), ", ".join("?" * len(values))
        with self._transaction() as connection:
            connection.execute(f"INSERT INTO runs ({columns}) VALUES ({places})", tuple(values.values()))
        self.plan(run.run_id, cells)

    def declare(self, run_id: str, declarations: Iterable[EvaluatorDeclaration]) -> None:
        """Record what the evaluators of a run are to tables, plots and the page; a later call replaces it."""
        with self._transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO declarations VALUES (?, ?)", (run_id, as_json(declarations)))

    def declarations(self, run_ids: Iterable[str] | None = None) -> dict[str, EvaluatorDeclaration]:
        """By name, the evaluators that some runs declare, or all; of several with one name that of the newest run."""
        query = "SELECT d.run_id, d.declarations FROM declarations AS d JOIN runs USING (run_id) ORDER BY runs.number"
        wanted = None if run_ids is None else set(run_ids)
        texts = [text for run_id, text in self._read(query) if wanted is None or run_id in wanted]
        with self._whole():
            return {one.name: one for text in texts for one in from_json(text)}

    def planned(self, run_id: str) -> list[PlannedCell]:
        """The cells of a run, in order."""
        names = (*IDENTITY_COLUMNS, *FACT_COLUMNS)
        rows = self._read(
            f"SELECT key, params, {', '.join(names)} FROM run_cells WHERE run_id = ? ORDER BY position", (run_id,)
        )
        cells = []
        with self._whole():
            for key, params, *values in rows:
                known = dict(zip(names, values, strict=True))
                identity = Identity(**{name: known[name] for name in IDENTITY_COLUMNS})
                facts = Facts(**{name: known[name] for name in FACT_COLUMNS})
                cells.append(PlannedCell(identity, key, facts, json.loads(params)))
        return cells

    def results_by_key(self) -> list[tuple[str, str, str, str]]:
        """Every result: key, run that computed it, when, and identity in words (of any run that holds it)."""
        names = ", ".join(f"p.{name}" for name in IDENTITY_COLUMNS)
        rows = self._read(
            f"SELECT c.key, c.run_id, c.created_at, {names} FROM cells AS c LEFT JOIN run_cells AS p ON p.key = c.key "
            "GROUP BY c.key ORDER BY c.rowid"
        )
        return [
            (key, run_id, created_at, describe(dict(zip(IDENTITY_COLUMNS, values, strict=True))))
            for key, run_id, created_at, *values in rows
        ]

    def runs(self) -> list[RunRecord]:
        """All runs, oldest first."""
        rows = self._read(
            "SELECT run_id, suite, suite_text, provenance, status, started_at, ended_at, "
            "(SELECT count(*) FROM run_cells WHERE run_cells.run_id = runs.run_id) FROM runs ORDER BY number"
        )
        with self._whole():
            return [RunRecord(run, suite, text, json.loads(origin), *rest) for run, suite, text, origin, *rest in rows]

    def plan(self, run_id: str, cells: Iterable[PlannedCell]) -> None:
        """Record the cells that belong to a run, in order; a later call adds to them.

        Raises:
            GauntletError: Two cells of the run have the same identity, or there is no such run.
        """
        cells = list(cells)
        check_distinct(cells)
        columns = ("run_id", "position", "key", *IDENTITY_COLUMNS, *FACT_COLUMNS, "params")
        statement = f"INSERT INTO run_cells ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
        with self._transaction() as connection:
            if not connection.execute("SELECT 1 FROM runs WHERE run_id = ?", (run_id,)).fetchone():
                raise self._unknown_run(run_id)
            count = "SELECT count(*) FROM run_cells WHERE run_id = ?"
            start = connection.execute(count, (run_id,)).fetchone()[0]
            try:
                connection.executemany(
                    statement,
                    (
                        (run_id, start + i, cell.key, *coordinates(cell), _json(cell.params))
                        for i, cell in enumerate(cells)
                    ),
                )
            except sqlite3.IntegrityError as error:
                raise GauntletError(f"Run {run_id} already has one of these cells; plan each cell once.") from error

    def put(self, run_id: str, key: str, result: CellResult, *, created_at: str = "") -> None:
        """Store a result under its key, at once; an ok result is never replaced by one that is not.

        ``created_at`` is when it was computed, if that was not now.

        Raises:
            GauntletError: An array cannot be stored without pickle, the disk is full, or the store is locked.
        """
        arrays = [(key, name, *pack(name, array)) for name, array in result.arrays.items()]
        measurements = [(key, i, *bindable(one)) for i, one in enumerate(result.measurements)]
        with self._transaction() as connection:
            old = connection.execute("SELECT status FROM cells WHERE key = ?", (key,)).fetchone()
            if old == ("ok",) and result.status != "ok":
                return
            for table in ("cells", "measurements", "arrays"):
                connection.execute(f"DELETE FROM {table} WHERE key = ?", (key,))
            outcome = (result.status, result.reason, result.traceback, result.seconds, result.device)
            connection.execute(
                "INSERT INTO cells VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (key, run_id, *outcome, created_at or _now(), result.error),
            )
            connection.executemany("INSERT INTO measurements VALUES (?, ?, ?, ?, ?, ?, ?, ?)", measurements)
            connection.executemany("INSERT INTO arrays VALUES (?, ?, ?, ?, ?, ?)", arrays)
            if result.facts:
                where = "WHERE run_id = ? AND key = ?"
                known = (_json(result.facts), run_id, key)
                connection.execute(f"UPDATE run_cells SET params = json_patch(params, ?) {where}", known)

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """The connection inside one transaction, so that what is read in it belongs together while others write."""
        with self._transaction("BEGIN") as connection:
            yield connection

    def statuses(self, keys: Iterable[str]) -> dict[str, str]:
        """Status of each key that has a result; keys without one are left out."""
        query = "SELECT key, status FROM cells WHERE key IN (SELECT value FROM json_each(?))"
        return dict(self._read(query, (json.dumps(list(keys)),)))

    def settled(self, keys: Iterable[str]) -> set[str]:
        """Those of the keys that are ok."""
        return {key for key, status in self.statuses(keys).items() if status == "ok"}

    def crashed(self, keys: Iterable[str]) -> set[str]:
        """Those of the keys whose computation ended its process."""
        query = "SELECT key FROM cells WHERE error = ? AND key IN (SELECT value FROM json_each(?))"
        return {key for (key,) in self._read(query, (CRASH, json.dumps(list(keys))))}

    def result(self, key: str) -> CellResult | None:
        """The stored result of a key with its arrays, or ``None``."""
        with self._transaction("BEGIN"):  # one snapshot, so that result and arrays belong together
            known = "status, reason, traceback, seconds, device, error"
            rows = self._read(f"SELECT {known} FROM cells WHERE key = ?", (key,))
            if not rows:
                return None
            facts = dict(zip(known.split(", "), rows[0], strict=True))
            query = (
                "SELECT metric, value, ci_low, ci_high, n, class_name FROM measurements WHERE key = ? ORDER BY position"
            )
            measurements = tuple(
                Measurement(metric, float("nan") if value is None else value, *rest)
                for metric, value, *rest in self._read(query, (key,))
            )
            with self._whole():
                return CellResult(measurements=measurements, arrays=self.arrays(key), **facts)

    def arrays(self, key: str) -> dict[str, np.ndarray]:
        """The per-sample arrays of a key, by name; empty where there are none."""
        query = "SELECT name, dtype, shape, data, checksum FROM arrays WHERE key = ? ORDER BY rowid"
        with self._whole():
            return unpack_all(self._read(query, (key,)), self.path)

    def put_arrays(self, key: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Store arrays under a key that is no cell's."""
        with self._transaction() as connection:
            rows = [(key, name, *pack(name, array)) for name, array in arrays.items()]
            connection.executemany("INSERT OR REPLACE INTO arrays VALUES (?, ?, ?, ?, ?, ?)", rows)

    def damaged(self, keys: Iterable[str]) -> set[str]:
        """Those of the keys of which an array is not what was written."""
        query = (
            "SELECT key, name, dtype, shape, data, checksum FROM arrays WHERE key IN (SELECT value FROM json_each(?))"
        )
        return {key for key, *array in self._read(query, (json.dumps(list(keys)),)) if not is_whole(*array)}

    def forget(self, keys: Iterable[str]) -> None:
        """Take results out; their cells stay planned."""
        with self._transaction() as connection:
            for table in ("cells", "measurements", "arrays"):
                connection.executemany(f"DELETE FROM {table} WHERE key = ?", [(key,) for key in keys])

    def put_history(self, key: str, label: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Store the history of a training (one JSON-able mapping per epoch) under its training key."""
        with self._transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO histories VALUES (?, ?, ?)", (key, label, _json(list(rows))))

    def history(self, key: str) -> list[dict[str, Any]] | None:
        """The history of a training, or ``None``."""
        rows = self._read("SELECT history FROM histories WHERE key = ?", (key,))
        with self._whole():
            return json.loads(rows[0][0]) if rows else None

    def history_labels(self) -> dict[str, str]:
        """Training key of every stored history, with its label."""
        return dict(self._read("SELECT key, label FROM histories ORDER BY rowid"))

    def _whole(self) -> contextlib.AbstractContextManager[None]:
        """Around what takes text of the store apart, which a flipped bit may have changed."""
        return reading(self.path, "is a damaged store ({error}); move it away or restore a copy of it")

    def _read(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with explained(self.path):
            return self._connection.execute(query, values).fetchall()

    @contextlib.contextmanager
    def _transaction(self, begin: str = "BEGIN IMMEDIATE") -> Iterator[sqlite3.Connection]:
        with explained(self.path):
            self._connection.execute(begin)
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # a full disk rolls back by itself
                    self._connection.execute("ROLLBACK")
                raise

    def _unknown_run(self, run_id: str) -> GauntletError:
        return GauntletError(
            f"{self.path} has no run {run_id!r}; {nearest(run_id, [run.run_id for run in self.runs()])}"
        )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
