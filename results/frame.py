"""The tidy frame: one row per measurement, in fixed columns, from the store or from a CSV file."""

from __future__ import annotations

import csv
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import pandas as pd

from ..registry import GauntletError, nearest
from .records import IDENTITY_COLUMNS, MISSING, RunRecord
from .store import FILE_NAME, Store

COLUMNS = (
    "evaluator",
    "model",
    "architecture",
    "recipe",
    "seed",
    "dataset",
    "detector",
    "attack",
    "norm",
    "epsilon",
    "ood_dataset",
    "ood_group",
    "corruption",
    "severity",
    "class",
    "metric",
    "value",
    "ci_low",
    "ci_high",
    "n",
    "status",
    "reason",
    "params",
    "seconds",
    "device",
    "key",
    "run_id",
    "created_at",
)
_FLOATS = ("epsilon", "value", "ci_low", "ci_high", "seconds")
_INTEGERS = ("seed", "severity", "n")  # pandas' nullable integers, so that an empty n does not turn 100 into 100.0

_IDENTITY = ", ".join(IDENTITY_COLUMNS)
_QUERY = f"""
WITH chosen AS (
    SELECT *, row_number() OVER (PARTITION BY {_IDENTITY} ORDER BY number DESC) AS age
    FROM run_cells JOIN (SELECT run_id, number FROM runs) USING (run_id)
    WHERE run_id IN (SELECT value FROM json_each(?)))
SELECT p.evaluator, p.model, p.architecture, p.recipe, p.seed, p.dataset, p.detector, p.attack, p.norm, p.epsilon,
       p.ood_dataset, p.ood_group, p.corruption, p.severity, ifnull(m.class_name, ''), ifnull(m.metric, ''),
       m.value, m.ci_low, m.ci_high, m.n, ifnull(c.status, '{MISSING}'),
       CASE WHEN c.status IS NULL THEN 'planned but not computed' ELSE c.reason END, p.params,
       c.seconds, ifnull(c.device, ''), p.key, ifnull(c.run_id, p.run_id), ifnull(c.created_at, '')
FROM chosen AS p
LEFT JOIN cells AS c ON c.key = p.key
LEFT JOIN measurements AS m ON m.key = p.key AND c.status = 'ok'
WHERE p.age = 1
ORDER BY p.number, p.position, m.position
"""  # of a cell that several runs hold, the newest is 1


def load_results(out: Path | str = "gauntlet-out", *, suite: str | None = None, run: str | None = None) -> pd.DataFrame:
    """Tidy results of a store: the latest run of every suite, of one suite, or one run.

    A cell that is not ok has one row with empty metric and value, and its reason; one that was planned and not
    computed has the status ``missing``. Where two suites hold the same cell, the newer run's row stands.

    Args:
        out: Output folder of a run, or the store file itself.
        suite: Only this suite.
        run: Only the run with this id.

    Returns:
        One row per measurement, with the columns :data:`COLUMNS`, in the order of the plan.

    Raises:
        GauntletError: There is no store, no such suite or run, or no run has planned anything.
    """
    path = Path(out)
    path = path if path.is_file() else path / FILE_NAME
    with Store.open(path, create=False) as store:
        chosen = _choose(store.runs(), path, suite, run)
        return as_tidy(pd.DataFrame(store.tidy_rows(_QUERY, chosen), columns=list(COLUMNS)))


def empty_frame() -> pd.DataFrame:
    """A tidy frame without rows."""
    return as_tidy(pd.DataFrame(columns=list(COLUMNS)))


def as_tidy(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with the columns in order and in their types: text, float64 or nullable Int64."""
    frame = frame.loc[:, list(COLUMNS)].reset_index(drop=True)
    types = dict.fromkeys(_FLOATS, "float64") | dict.fromkeys(_INTEGERS, "Int64")
    return frame.astype({name: types.get(name, str) for name in COLUMNS})


def write_csv(frame: pd.DataFrame, path: Path | str) -> Path:
    """Write a frame as CSV, whole or not at all; what :func:`read_csv` reads back is equal to it.

    Raises:
        GauntletError: The folder is not writable.
    """
    text = frame.to_csv(index=False, lineterminator="\n")
    if "\r" in text:  # the csv module leaves a lone carriage return unquoted, and readers take it for a line end
        text = frame.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    return write_text(text, path)


def read_csv(path: Path | str) -> pd.DataFrame:
    """Read a tidy frame that :func:`write_csv` wrote.

    Raises:
        GauntletError: The file is absent, is not CSV, or lacks a column.
    """
    frame = read_text_columns(path, COLUMNS)
    numbers = {name: to_number(frame[name], float, path) for name in _FLOATS}
    numbers |= {name: to_number(frame[name], int, path) for name in _INTEGERS}
    return as_tidy(frame.assign(**numbers))


def write_text(text: str, path: Path | str) -> Path:
    """Write a text file through a temporary one beside it, so that a reader never sees half of it."""
    return write_bytes(lambda file: file.write(text.encode()), path)


def write_bytes(write: Callable[[IO[bytes]], Any], path: Path | str) -> Path:
    """Let ``write`` fill a file that takes its name only once it is whole.

    Raises:
        GauntletError: The folder is not writable.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            write(file)
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(path)
    except OSError as error:
        raise GauntletError(
            f"{path} cannot be written ({error.strerror}); choose another folder with `--out`."
        ) from error
    finally:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
    return path


def read_text_columns(path: Path | str, columns: Sequence[str], *, others: bool = False) -> pd.DataFrame:
    """Read a CSV file as text in these columns (and ``others``, if wanted); a lacking one is an error."""
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
    except FileNotFoundError:
        raise GauntletError(f"There is no file {path}; check the path.") from None
    except (OSError, ValueError) as error:  # pandas' parser errors and undecodable bytes are ValueErrors
        raise GauntletError(f"{path} cannot be read as CSV: {' '.join(str(error).split())}.") from error
    lacking = [name for name in columns if name not in frame.columns]
    if lacking:
        raise GauntletError(f"{path} lacks the column {lacking[0]!r}; it must have {', '.join(columns)}.")
    return frame if others else frame.loc[:, list(columns)]


def to_number(column: pd.Series, kind: type[int] | type[float], path: Path | str) -> pd.Series:
    """Numbers of a text column, exact to the last bit; empty text is a gap, other text an error that names the row."""
    values: list[object] = []
    for line, text in enumerate(column, start=2):
        try:
            values.append(kind(text) if text else None)
        except ValueError:
            wanted = "a number" if kind is float else "a whole number"
            raise GauntletError(f"{path}, row {line}: {column.name} must be {wanted} or empty, got {text!r}.") from None
    return pd.Series(values, index=column.index, dtype="float64" if kind is float else "Int64")


def _choose(runs: Sequence[RunRecord], path: Path, suite: str | None, run: str | None) -> list[str]:
    """Ids of the wanted runs, oldest first."""
    if run is not None and run not in (known := [record.run_id for record in runs]):
        raise GauntletError(f"{path} has no run {run!r}; {nearest(run, known)}")
    if suite is not None and suite not in (suites := {record.suite for record in runs}):
        raise GauntletError(f"{path} has no results of suite {suite!r}; {nearest(suite, suites)}")
    wanted = [
        record
        for record in runs
        if record.cells and (suite is None or record.suite == suite) and (run is None or record.run_id == run)
    ]
    if not wanted:
        raise GauntletError(f"{path} holds no results yet; `gauntlet run` computes them.")
    latest = {record.suite: record.run_id for record in wanted}  # runs come oldest first
    return [record.run_id for record in wanted if latest[record.suite] == record.run_id]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
