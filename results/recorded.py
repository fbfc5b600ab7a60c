"""What bench records of a cell in its params (JSON), by row of a tidy frame."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from .factorize import factorize


def recorded(frame: pd.DataFrame, name: str, read: Callable[[Any], Any] = lambda value: value) -> pd.Series:
    """What the params of every row hold under ``name``, as ``read`` takes it; None where they do not hold it.

    Every text is read once, and only where the name occurs in it.
    """
    codes, texts = factorize(frame["params"])
    known = [parsed(text).get(name) if f'"{name}"' in text else None for text in map(str, texts)]
    found = np.empty(len(texts), dtype=object)
    found[:] = [None if value is None else read(value) for value in known]
    return pd.Series(found[codes], frame.index, dtype=object)


def parsed(params: str) -> Mapping[str, Any]:
    """The params of a cell; empty where the text is no JSON object."""
    try:
        known = json.loads(params or "{}")
    except json.JSONDecodeError:
        return {}
    return known if isinstance(known, dict) else {}
