"""Labels as people write them: numbers, numbers as floats, one row per image with a single one, or names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...registry import GauntletError, nearest

#: What stands for an unknown label in files of text.
_UNKNOWN = ("", "-1", "-1.0", "nan", "none", "null", "unknown", "?")


def read_labels(values: Any, classes: Sequence[str] | None, where: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels (N,) int64, -1 where unknown, and the names of the classes.

    Args:
        values: Integers; floats that are whole; (N, 1); (N, C) with a single one a row; or texts, of which those that
            spell numbers are numbers if all do, unless ``classes`` has them as names.
        classes: Names; without any, those that occur, sorted, or the numbers up to the largest.
        where: For messages.

    Raises:
        GauntletError: They are none of these, or a class is unknown.
    """
    array = np.asarray(values)
    if array.dtype.kind in "OUS":
        return _texts([_text(value) for value in array.reshape(-1).tolist()], classes, where)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 2:
        array = _one_hot(array, where)
    if array.ndim != 1:
        raise GauntletError(f"{where}: labels must be (N,) or one-hot (N, C), got {array.shape}.")
    if array.dtype.kind == "b":
        array = array.astype(np.int64)
    if array.dtype.kind == "f":
        array = _whole(array, where)
    if array.dtype.kind not in "iu":
        raise GauntletError(f"{where}: labels must be numbers or names, got {array.dtype}.")
    return _numbers(array.astype(np.int64), classes, where)


def _numbers(labels: np.ndarray, classes: Sequence[str] | None, where: str) -> tuple[np.ndarray, tuple[str, ...]]:
    low, high = (int(labels.min()), int(labels.max())) if len(labels) else (-1, -1)
    names = tuple(map(str, range(high + 1))) if classes is None else tuple(map(str, classes))
    if low < -1 or high >= len(names):
        raise GauntletError(
            f"{where}: labels must be -1 (unknown) or from 0 to {len(names) - 1}, the {len(names)} classes, got {low} "
            f"to {high}."
        )
    return labels, names


def _whole(array: np.ndarray, where: str) -> np.ndarray:
    known = np.where(np.isnan(array), -1, array)
    if not (np.isfinite(known).all() and (known == np.round(known)).all()):
        odd = known[known != np.round(known)][0]
        raise GauntletError(f"{where}: labels must be whole numbers, got {odd:g}.")
    return known.astype(np.int64)


def _one_hot(array: np.ndarray, where: str) -> np.ndarray:
    known = array.astype(np.float64)
    if not (np.isin(known, (0, 1)).all() and (known.sum(1) <= 1).all()):
        raise GauntletError(
            f"{where}: labels of shape {array.shape} must have a single one a row (one-hot); soft labels and several "
            "labels of one image have no place in an accuracy."
        )
    return np.where(known.sum(1) == 1, known.argmax(1), -1)


def _text(value: Any) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else "" if value is None else str(value)
    return text.strip()


def _texts(texts: list[str], classes: Sequence[str] | None, where: str) -> tuple[np.ndarray, tuple[str, ...]]:
    known = [text for text in texts if text.lower() not in _UNKNOWN]
    names = None if classes is None else tuple(map(str, classes))
    if names is None or not set(known) <= set(names):
        numbers = _as_numbers(texts)
        if numbers is not None:
            return _numbers(_whole(numbers, where), classes, where)
    if names is None:
        names = tuple(sorted(set(known)))
    places = {name: place for place, name in enumerate(names)}
    unknown = sorted(set(known) - set(places))
    if unknown:
        raise GauntletError(f"{where}: {unknown[0]!r} is none of the classes; {nearest(unknown[0], names)}")
    return np.array([places.get(text, -1) for text in texts], dtype=np.int64), names


def _as_numbers(texts: list[str]) -> np.ndarray | None:
    """The numbers that all texts spell (NaN where unknown), or None."""
    try:
        return np.array([np.nan if text.lower() in _UNKNOWN else float(text) for text in texts])
    except ValueError:
        return None
