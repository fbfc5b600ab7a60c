"""How a number is shown: one rule for tables, plots and the page, so that a value reads alike everywhere."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import pandas as pd

from .factorize import factorize
from .metrics import METRICS, metric_named

VAGUE = "n too small"  # in place of an interval that says nothing
_TIE = 1e-9  # of the last digit: so near a half, a binary number stands for the decimal that ends in 5
_WHOLE = 2.0**52  # floats are whole numbers from here on
_TOO_WIDE = 10  # times a quantity that cannot be negative, half of its interval says nothing


def number(value: float, decimals: int = 3) -> str:
    """A number as tables show it; -0.0 reads 0.0."""
    return numbers([value], decimals)[0]


def numbers(values: Iterable[float], decimals: int = 3) -> list[str]:
    """Numbers as tables show them: so many digits after the point, or (negative) so many significant ones.

    Example:
        >>> numbers([8.148148, 0.15, -0.04], 1), numbers([0.000123456], -3)
        (['8.1', '0.2', '0.0'], ['0.000123'])
    """
    given = np.asarray(values if isinstance(values, np.ndarray) else list(values), dtype=float)
    form = f".{decimals}f" if decimals >= 0 else f".{-decimals}g"
    return list(map(format, rounded(given, decimals).tolist(), itertools.repeat(form)))


def rounded(values: np.ndarray, decimals: int) -> np.ndarray:
    """The nearest decimals, halves away from zero, as on paper.

    The half is that of the decimal: 3 of 2,000 is 0.15 %, shown as 0.2, although its binary number is a little less.

    Args:
        values: Any shape; what is not finite stays.
        decimals: Digits after the point; negative: so many significant ones.
    """
    with np.errstate(all="ignore"):
        places = decimals if decimals >= 0 else -decimals - 1 - np.floor(np.log10(np.abs(values)))
        factor = 10.0 ** np.clip(np.nan_to_num(places), -300, 300)
        scaled = np.abs(values) * factor
        near = np.copysign(np.floor(scaled + 0.5 + _TIE) / factor, values)
    return np.where(scaled < _WHOLE, near, values) + 0.0  # no -0.0


def decimals_of(metric: str, percent: bool | None = None) -> int:
    """Digits after the point of a metric: 1 in percent, else 3 unless it declares how many."""
    known = metric_named(metric)
    return 1 if (known.percent if percent is None else percent) else known.decimals


def ranges(metrics: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """The least and the largest value that each metric can have."""
    codes, names = factorize(metrics)
    known = [METRICS.get(name.partition("@")[0]) for name in names]
    low = np.array([-np.inf if one is None else one.low for one in known])
    high = np.array([np.inf if one is None else one.high for one in known])
    return low[codes], high[codes]


def shown_intervals(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both ends of the interval of each row of a tidy frame inside the metric's range, and which ones say nothing.

    Those have an infinite end, or are ten times wider than a quantity that cannot be negative.
    """
    least, most = ranges(rows["metric"])
    value, low, high = (rows[name].to_numpy(dtype=float) for name in ("value", "ci_low", "ci_high"))
    low, high = np.maximum(low, np.minimum(least, value)), np.minimum(high, np.maximum(most, value))
    with np.errstate(invalid="ignore"):
        far = np.isposinf(most) & np.isfinite(least) & ((high - low) / 2 > _TOO_WIDE * (value - least))
    return low, high, np.isfinite(value) & (far | np.isinf(low) | np.isinf(high))
