"""Per-image arrays of cells as one long table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..registry import GauntletError
from .frame import write_bytes
from .store import Store

_COORDINATES = (
    *("evaluator", "model", "dataset", "seed", "detector", "attack", "epsilon", "ood_dataset", "corruption"),
    "severity",
)


def per_image(frame: pd.DataFrame, store: Store) -> pd.DataFrame:
    """A row for each image of each ok cell: its coordinates, ``side`` (id or ood), ``image`` (its position), arrays.

    Args:
        frame: Tidy rows of the cells.
        store: Where their arrays are.
    """
    cells = frame[frame["status"] == "ok"].drop_duplicates("key")
    parts = []
    for _, cell in cells.iterrows():
        known = {name: cell[name] for name in _COORDINATES if name in cell}
        for side, columns in _sides(store.arrays(cell["key"])):
            count = len(next(iter(columns.values())))
            where = {name: [value] * count for name, value in known.items()}
            parts.append(pd.DataFrame({**where, "side": side, "image": np.arange(count), **columns}))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[*_COORDINATES, "side", "image"])


def write_scores(scores: pd.DataFrame, path: Path) -> Path:
    """Write what :func:`per_image` gives as .csv, .npz (an array a column) or .parquet.

    Raises:
        GauntletError: The suffix is another one, or the file cannot be written.
    """
    columns: dict[str, Any] = {str(name): _plain(scores[name]) for name in scores}
    writers: dict[str, Callable[[Any], Any]] = {
        ".csv": lambda file: file.write(scores.to_csv(index=False).encode()),
        ".npz": lambda file: np.savez_compressed(file, **columns),
        ".parquet": lambda file: scores.to_parquet(file, index=False),
    }
    if path.suffix not in writers:
        raise GauntletError(
            f"{path.name}: scores are written as {', '.join(writers)}, got {path.suffix or 'no suffix'!r}."
        )
    return write_bytes(writers[path.suffix], path)


def _plain(column: pd.Series) -> np.ndarray:
    """Numbers as they are, whole ones with gaps as floats, anything else as text: nothing that would be pickled."""
    if pd.api.types.is_numeric_dtype(column):
        return column.to_numpy(dtype=float, na_value=np.nan) if column.isna().any() else np.asarray(column.to_numpy())
    return np.array(column.astype(str).tolist(), dtype=np.str_)


def _sides(arrays: dict[str, np.ndarray]) -> list[tuple[str, dict[str, Any]]]:
    """Columns of equal length by side; names such as ``id_score`` belong to one."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for name, values in arrays.items():
        if values.ndim != 1 or values.dtype.kind not in "biuf":
            continue
        prefix, _, rest = name.partition("_")
        side, column = (prefix, rest) if prefix in ("id", "ood") and rest else ("id", name)
        found.setdefault((side, len(values)), {})[column] = values
    return [(side, columns) for (side, _), columns in found.items()]
