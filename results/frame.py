"""The tidy frame: one row per measurement, in fixed columns, from the store or from a CSV file."""

from __future__ import annotations

import csv
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd

from ..registry import GauntletError, nearest
from ..registry.safe_files import reading
from .metrics import adopt
from .records import RunRecord
from .schema import old_params, old_role
from .store import FILE_NAME, Store
from .store_query import read

#: The columns of the tidy frame, in order, and what they hold.
COLUMN_HELP = {
    "evaluator": "What was measured: accuracy, attack, ood, calibration, ...",
    "role": "How the cell came about: measured, mean, worst-case, held-out or check.",
    "model": "Label of the model.",
    "architecture": "Network behind it.",
    "recipe": "How it was trained.",
    "seed": "Of training and draws.",
    "dataset": "In-distribution data set.",
    "detector": "Label of the detector.",
    "attack": "Label of the attack.",
    "norm": "Norm of the budget: linf, l2, l1 or l0.",
    "epsilon": "Budget, in units in which pixels span [0, 1].",
    "ood_dataset": "Out-of-distribution data set.",
    "ood_group": "Its group, such as near or far.",
    "corruption": "Corruption of the test images.",
    "severity": "Its severity, 1 to 5.",
    "class": "The class that a metric is of.",
    "metric": "Name of the metric.",
    "value": "Its value; shares lie in [0, 1].",
    "ci_low": "Lower end of the 95 % interval.",
    "ci_high": "Upper end.",
    "n": "Images behind the value.",
    "status": "ok, skipped, failed, timeout, out-of-memory or missing.",
    "reason": "Why a cell is not ok.",
    "params": "Parameters and recorded facts (JSON).",
    "seconds": "Time that the cell took.",
    "device": "Where it was computed.",
    "key": "Content hash that decides reuse.",
    "run_id": "The run that computed it.",
    "created_at": "When, in UTC.",
}
COLUMNS = tuple(COLUMN_HELP)
_FLOATS = ("epsilon", "value", "ci_low", "ci_high", "seconds")
_INTEGERS = ("seed", "severity", "n")  # pandas' nullable integers, so that an empty n does not turn 100 into 100.0


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
    return as_tidy(load_coded(out, suite=suite, run=run))


def load_coded(
    out: Path | str = "gauntlet-out",
    *,
    suite: str | None = None,
    run: str | None = None,
    metrics: Sequence[str] | None = None,
) -> pd.DataFrame:
    """The same with text columns as categories, in which a million rows load and group several times faster.

    With ``metrics``, only measurements of these, and cells that are not ok.
    """
    path = Path(out)
    path = path if path.is_file() else path / FILE_NAME
    with Store.open(path, create=False) as store:
        return coded(store, suite=suite, run=run, metrics=metrics)


def coded(
    store: Store, *, suite: str | None = None, run: str | None = None, metrics: Sequence[str] | None = None
) -> pd.DataFrame:
    """As :func:`load_coded`, from an open store."""
    chosen = _choose(store.runs(), store.path, suite, run)
    with reading(store.path, "is a damaged store ({error}); move it away or restore a copy of it"):
        columns = read(store, chosen, metrics)
        adopt(known for declared in store.declarations(chosen).values() for known in declared.metrics)
        return pd.DataFrame({name: columns[name] for name in COLUMNS}, copy=False)


def empty_frame() -> pd.DataFrame:
    """A tidy frame without rows."""
    return as_tidy(pd.DataFrame(columns=list(COLUMNS)))


def as_tidy(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with the columns in order and in their types: text, float64 or nullable Int64."""
    frame = frame.loc[:, list(COLUMNS)].reset_index(drop=True)
    frame = frame.assign(**{name: _text(frame[name]) for name in COLUMNS if frame[name].dtype == "category"})
    types = dict.fromkeys(_FLOATS, "float64") | dict.fromkeys(_INTEGERS, "Int64")
    return frame.astype({name: types.get(name, str) for name in COLUMNS})


def _text(column: pd.Series) -> pd.Index:
    """What ``astype(str)`` makes of categories, without a string operation a row."""
    return column.cat.categories.astype(str).take(column.cat.codes.to_numpy())


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
    columns = present_columns(path, COLUMNS)
    return as_tidy(with_roles(read_columns(path, columns, floats=_FLOATS, integers=_INTEGERS)))


def present_columns(path: Path | str, columns: Sequence[str]) -> list[str]:
    """Those columns, without ``role`` where a CSV file was written before there were roles."""
    try:
        present = pd.read_csv(path, nrows=0).columns
    except Exception:  # reading the columns will say what is wrong
        return list(columns)
    return [name for name in columns if name != "role" or name in present]


def with_roles(frame: pd.DataFrame) -> pd.DataFrame:
    """Tidy rows with their roles, also of a file that was written before there were roles."""
    if "role" in frame:
        return frame
    cells = [frame[name].astype(str) for name in ("evaluator", "dataset", "ood_group", "params")]
    added = {
        "role": [old_role(*cell) for cell in zip(*cells, strict=True)],
        "params": [old_params(*cell) for cell in zip(*cells[1:], strict=True)],
    }
    return frame.assign(**{name: pd.Series(values, frame.index, dtype=object) for name, values in added.items()})


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


def read_columns(
    path: Path | str, columns: Sequence[str], *, floats: Sequence[str], integers: Sequence[str]
) -> pd.DataFrame:
    """Read a CSV file in these columns: floats exact to the last bit, nullable Int64, and text as categories.

    Raises:
        GauntletError: The file is absent, is not CSV, lacks one of the columns, or has text for a number.
    """
    types: Any = (
        dict.fromkeys(columns, "category") | dict.fromkeys(floats, "float64") | dict.fromkeys(integers, "Int64")
    )
    gaps: Any = {name: [""] for name in (*floats, *integers)}
    try:
        frame = pd.read_csv(path, dtype=types, keep_default_na=False, na_values=gaps)
        # pandas makes numbers of categories that all look like some, and "00" would come back as "0".
        text = [name for name in columns if types[name] == "category"]
        if changed := [name for name in text if not pd.api.types.is_string_dtype(frame[name].cat.categories)]:
            plain = pd.read_csv(path, dtype=object, keep_default_na=False, usecols=changed)
            frame = frame.assign(**{name: plain[name].astype("category") for name in changed})
        return frame.loc[:, list(columns)]
    except Exception:  # of any kind: read it again as text, which can say what is wrong, and where
        frame = read_text_columns(path, columns)
    numbers = {name: to_number(frame[name], float, path) for name in floats}
    return frame.assign(**numbers, **{name: to_number(frame[name], int, path) for name in integers})


def read_text_columns(path: Path | str, columns: Sequence[str], *, others: bool = False) -> pd.DataFrame:
    """Read a CSV file as text in these columns, and ``others`` if wanted.

    Raises:
        GauntletError: The file is absent, is not CSV, or lacks one of the columns.
    """
    try:
        frame = pd.read_csv(path, dtype=object, keep_default_na=False, encoding="utf-8")
    except FileNotFoundError:
        raise GauntletError(f"There is no file {path}; check the path.") from None
    except UnicodeDecodeError:
        raise GauntletError(f"{path} is not UTF-8 text, and so no CSV file.") from None
    except Exception as error:  # pandas' parser errors are ValueErrors, most of them
        raise GauntletError(f"{path} cannot be read as CSV: {' '.join(str(error).split())}.") from error
    lacking = [name for name in columns if name not in frame.columns]
    if lacking:
        raise GauntletError(f"{path} lacks the column {lacking[0]!r}; it must have {', '.join(columns)}.")
    return frame if others else frame.loc[:, list(columns)]


def to_number(column: pd.Series, kind: type[int] | type[float], path: Path | str) -> pd.Series:
    """Numbers of a text column, exact to the last bit; empty text is a gap, other text an error that names the row.

    Raises:
        GauntletError: A text is no such number.
    """
    texts = column.to_numpy(dtype=object)
    given = texts != ""
    try:
        numbers = np.array([kind(text) for text in texts[given].tolist()], dtype=kind)
    except ValueError:
        line = next(line for line, text in enumerate(texts, start=2) if text and not _is_number(text, kind))
        wanted = "a number" if kind is float else "a whole number"
        text = texts[line - 2]
        raise GauntletError(f"{path}, row {line}: {column.name} must be {wanted} or empty, got {text!r}.") from None
    values = np.full(len(texts), np.nan if kind is float else 0, dtype=kind)
    values[given] = numbers
    array: Any = values if kind is float else pd.arrays.IntegerArray(values, ~given)
    return pd.Series(array, index=column.index)


def _is_number(text: str, kind: type[int] | type[float]) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True


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
