"""Results from one place to another: the tidy frame as CSV or Parquet, and stores joined into one."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ..registry import GauntletError, NotAvailable
from .frame import COLUMNS, as_tidy, read_csv, with_roles, write_csv

SUFFIXES = (".csv", ".parquet")


def export_frame(frame: pd.DataFrame, path: Path | str) -> Path:
    """Write tidy results as CSV or Parquet, by the suffix; :func:`import_frame` gives an equal frame back.

    Raises:
        GauntletError: The suffix is another one, or the file cannot be written.
    """
    return write_csv(frame, path) if _suffix(path) == ".csv" else write_parquet(frame, path)


def import_frame(path: Path | str) -> pd.DataFrame:
    """Read what :func:`export_frame` wrote.

    Raises:
        GauntletError: The file is absent or not tidy results.
    """
    if _suffix(path) == ".csv":
        return read_csv(path)
    try:
        frame = with_roles(pd.read_parquet(path))
    except ImportError:
        raise _no_parquet() from None
    except FileNotFoundError:
        raise GauntletError(f"There is no file {path}; check the path.") from None
    except (OSError, ValueError) as error:
        raise GauntletError(f"{path} cannot be read as Parquet: {' '.join(str(error).split())}.") from error
    lacking = [name for name in COLUMNS if name not in frame.columns]
    if lacking:
        raise GauntletError(f"{path} lacks the column {lacking[0]!r}; `gauntlet export` writes all of them.")
    return as_tidy(frame)


def write_parquet(frame: pd.DataFrame, path: Path | str) -> Path:
    """Write a frame as Parquet.

    Raises:
        NotAvailable: pyarrow is not installed.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.to_parquet(path, index=False)
    except ImportError:
        raise _no_parquet() from None
    except OSError as error:
        raise GauntletError(f"{path} cannot be written ({error.strerror}); choose another file.") from error
    return path


def _suffix(path: Path | str) -> str:
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise GauntletError(f"{path}: results are exchanged as .csv or .parquet, got {suffix or 'no suffix'!r}.")
    return suffix


def _no_parquet() -> NotAvailable:
    return NotAvailable("Parquet needs pyarrow: pip install 'gauntlet-bench[parquet]'.")
