"""What bench records of a cell in its params (JSON), by row of a tidy frame."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from .factorize import factorize

_PARTS = "parts"  # the params of what a mean is made of
_NOTED = ('"stand_in"', '"oracle": true', '"without"', '"exposed"')  # what footnotes read of them


def recorded(frame: pd.DataFrame, name: str, read: Callable[[Any], Any] = lambda value: value) -> pd.Series:
    """What the params of every row hold under ``name``, as ``read`` takes it; None where they do not hold it.

    Every text is read once, and only where the name occurs in it.
    """
    codes, texts = factorize(frame["params"])
    known = [parsed(text).get(name) if f'"{name}"' in text else None for text in map(str, texts)]
    found = np.empty(len(texts), dtype=object)
    found[:] = [None if value is None else read(value) for value in known]
    return pd.Series(found[codes], frame.index, dtype=object)


def rows_by_fact(frame: pd.DataFrame, name: str, read: Callable[[Any], Any]) -> dict[Any, np.ndarray]:
    """Which rows (a mask) hold each fact that ``read`` finds under ``name``; those of means hold what their parts do.

    ``read`` gives None where there is nothing to say; of a list each item is read.
    """
    codes, texts = factorize(frame["params"])
    found: dict[Any, list[int]] = {}
    for code, text in enumerate(map(str, texts)):
        for value in _values(parsed(text), name) if f'"{name}"' in text else ():
            if (fact := read(value)) is not None:
                found.setdefault(fact, []).append(code)
    return {fact: np.isin(codes, having) for fact, having in found.items()}


def _values(params: Mapping[str, Any], name: str) -> Iterator[Any]:
    for one in (params, *params.get(_PARTS, ())):
        value = one.get(name)
        yield from value if isinstance(value, list) else () if value is None else (value,)


def with_parts(parts: Iterable[str], **facts: Any) -> str:
    """The params of a mean: its own facts, and those of its parts."""
    noted = [text for text in dict.fromkeys(parts) if any(word in text for word in _NOTED)]
    distinct = map(parsed, noted)
    flat = [one for params in distinct for one in params.get(_PARTS, (params,))]
    return json.dumps({**facts, _PARTS: flat})


def parsed(params: str) -> Mapping[str, Any]:
    """The params of a cell; empty where the text is no JSON object."""
    try:
        known = json.loads(params or "{}")
    except json.JSONDecodeError:
        return {}
    return known if isinstance(known, dict) else {}
