"""Means over seeds, with the t interval of the mean."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import special

from .display import ranges
from .factorize import group_index
from .records import IDENTITY_COLUMNS


def cell_of(chosen: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Of every row (N,) the number of its cell, metric and class, whatever its seed; and the first row of each."""
    return group_index(chosen, [name for name in (*IDENTITY_COLUMNS, "metric", "class") if name != "seed"])


def mean_over_seeds(chosen: pd.DataFrame) -> pd.DataFrame:
    """One row per cell, metric and class with the mean over its seeds, and the t interval of that mean.

    Adds the columns ``seeds`` (how many are behind the mean) and ``planned``. Everything else is of the first ok seed;
    a cell without one keeps the status and reason of its first.
    """
    numbers, first = cell_of(chosen)
    ok = (chosen["status"] == "ok").to_numpy()
    measured = np.flatnonzero(ok)[::-1]
    first[numbers[measured]] = measured
    result = chosen.iloc[first].reset_index(drop=True)
    seeds, planned = (np.bincount(numbers, weights, len(first)).astype(int) for weights in (ok, None))
    grouped = chosen[["value", "ci_low", "ci_high"]].groupby(numbers)
    means = grouped.mean()
    several = seeds > 1
    half = special.stdtrit(seeds - 1, 0.975) * grouped["value"].std() / np.sqrt(seeds)
    agree = ~(half > 0)  # to the last digit: then the mean of their own intervals, which are never empty
    low, high = ranges(result["metric"])
    below = means["ci_low"].where(agree, np.maximum(means["value"] - half, low))
    above = means["ci_high"].where(agree, np.minimum(means["value"] + half, high))
    return result.assign(
        value=means["value"],
        ci_low=result["ci_low"].where(~several, below),
        ci_high=result["ci_high"].where(~several, above),
        seeds=seeds,
        planned=planned,
    )
