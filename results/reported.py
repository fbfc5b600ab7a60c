"""Published numbers of others beside ours: a CSV with a column ``source``, marked as reported everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ..registry import GauntletError, nearest
from .frame import COLUMNS, as_tidy, read_text_columns, to_number
from .records import REPORTED

_NEEDED = ("source", "evaluator", "model", "dataset", "metric", "value")
_FLOATS = ("epsilon", "value", "ci_low", "ci_high")
_INTEGERS = ("seed", "severity", "n")


def read_reported(path: Path | str) -> pd.DataFrame:
    """Published numbers as tidy rows with the column ``source``; their model is called ``NAME (SOURCE)``.

    Args:
        path: CSV with at least the columns source, evaluator, model, dataset, metric and value; every other column of
            the tidy frame may be there.

    Raises:
        GauntletError: The file is absent, lacks a column or has an unknown one, a row without source, or text for a
            number.
    """
    given = read_text_columns(path, _NEEDED, others=True)
    for name in given.columns:
        if name not in (*COLUMNS, "source"):
            raise GauntletError(f"{path} has an unknown column {name!r}; {nearest(name, [*COLUMNS, 'source'])}")
    nameless = given["source"].str.strip() == ""
    if nameless.any():
        raise GauntletError(f"{path}, row {int(nameless.argmax()) + 2}: every reported number needs a source.")
    numbers = {name: to_number(given[name], float, path) for name in _FLOATS if name in given}
    numbers |= {name: to_number(given[name], int, path) for name in _INTEGERS if name in given}
    frame = given.assign(**numbers).reindex(columns=[*COLUMNS, "source"])
    frame["seed"] = frame["seed"].fillna(0)
    frame["role"] = frame["role"].astype(object).replace("", "measured").fillna("measured")
    frame["model"] = frame["model"] + " (" + frame["source"] + ")"
    frame["status"], frame["reason"] = "ok", REPORTED
    texts = [name for name in COLUMNS if name not in (*_FLOATS, *_INTEGERS, "seconds")]
    frame[texts] = frame[texts].astype(object).fillna("")
    frame["key"] = [f"{REPORTED}-{row}" for row in range(len(frame))]
    return as_tidy(frame).assign(source=frame["source"].to_numpy())


def with_reported(frame: pd.DataFrame, paths: Sequence[Path | str]) -> pd.DataFrame:
    """Our results followed by published ones; a column ``source`` (empty for ours) only where there are any."""
    if not paths:
        return frame
    parts = [frame.assign(source=""), *(read_reported(path) for path in paths)]
    return pd.concat(parts, ignore_index=True)
