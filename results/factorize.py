"""Columns as whole numbers: text as categories, and the groups of several columns as one array of numbers.

Grouping and matching by numbers keeps a million rows out of Python loops and out of string comparisons.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

_LARGEST = 2**62  # room for the product of the numbers of distinct values


def as_category(values: Sequence[str] | np.ndarray, place: np.ndarray | None = None) -> pd.Categorical:
    """A categorical of text, its categories in order of appearance; of the values at ``place``, or of all."""
    codes, known = pd.factorize(np.asarray(values, dtype=object))
    return pd.Categorical.from_codes(codes if place is None else codes[place], pd.Index(known, dtype=object))


def factorize(column: pd.Series) -> tuple[np.ndarray, list[Any]]:
    """Integer code per row (N,) and the distinct values, so that ``values[codes]`` is the column; a gap is a value."""
    if isinstance(column.dtype, pd.CategoricalDtype) and not column.hasnans:
        known = column.cat.codes.to_numpy().astype(np.int64)
        used = np.bincount(known, minlength=len(column.cat.categories)) > 0
        return (np.cumsum(used) - 1)[known], list(column.cat.categories[used])
    codes, values = pd.factorize(column.astype(object) if column.dtype == "category" else column, use_na_sentinel=False)
    return codes.astype(np.int64), list(values)


def group_index(frame: pd.DataFrame, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Group number per row (N,), and the position of each group's first row (G,).

    Rows with equal values in these columns are a group; groups are numbered in order of appearance.
    """
    combined, size = np.zeros(len(frame), dtype=np.int64), 1
    for name in names:
        codes, values = factorize(frame[name])
        if size * max(len(values), 1) > _LARGEST:
            combined, known = pd.factorize(combined)
            size = len(known)
        combined, size = combined * max(len(values), 1) + codes, size * max(len(values), 1)
    numbers, groups = pd.factorize(combined)
    first = np.empty(len(groups), dtype=np.int64)
    first[numbers[::-1]] = np.arange(len(frame))[::-1]
    return numbers, first


def constant_column(like: pd.Series, value: str) -> Any:
    """A column that holds ``value`` in every row: as a categorical like ``like`` if that has the category."""
    if isinstance(like.dtype, pd.CategoricalDtype) and value in like.cat.categories:
        codes = np.full(len(like), like.cat.categories.get_loc(value))
        return pd.Categorical.from_codes(codes, dtype=like.dtype)
    return value


def joint_keys(frames: Sequence[pd.DataFrame], names: Sequence[str]) -> list[np.ndarray]:
    """Integer key per row; rows of any frame with equal key columns get equal keys.

    Keys sort like the columns do, gaps last. Numbers that agree to nine digits are equal: 8/255 however computed.
    """
    rows = [len(frame) for frame in frames]
    combined, size = np.zeros(sum(rows), dtype=np.int64), 1
    for name in names:
        coded_columns = [factorize(frame[name]) for frame in frames]
        plain = [[_comparable(value) for value in values] for _, values in coded_columns]
        known = sorted({value for values in plain for value in values}, key=_gaps_last)
        rank = {value: i for i, value in enumerate(known)}
        ranks = [np.array([rank[value] for value in values], dtype=np.int64) for values in plain]
        codes = [own[codes] if len(own) else codes for own, (codes, _) in zip(ranks, coded_columns, strict=True)]
        if size * max(len(known), 1) > _LARGEST:
            groups, combined = np.unique(combined, return_inverse=True)
            size = len(groups)
        combined, size = combined * max(len(known), 1) + np.concatenate(codes), size * max(len(known), 1)
    return np.split(combined, np.cumsum(rows)[:-1])


def _comparable(value: Any) -> Any:
    if pd.isna(value):
        return None
    return float(f"{value:.9g}") if isinstance(value, float) else value


def _gaps_last(value: Any) -> tuple[bool, Any]:
    return value is None, 0 if value is None else value
