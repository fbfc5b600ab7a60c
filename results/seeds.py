"""Means over seeds, with an interval that takes in the test images and the trainings."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import special

from .display import ranges
from .factorize import group_index
from .records import IDENTITY_COLUMNS

_Z95 = 1.959963984540054
_MANY = 1e9  # degrees of freedom of a normal distribution


def cell_of(chosen: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Of every row (N,) the number of its cell, metric and class, whatever its seed; and the first row of each."""
    return group_index(chosen, [name for name in (*IDENTITY_COLUMNS, "metric", "class") if name != "seed"])


def mean_over_seeds(chosen: pd.DataFrame, over: str = "both") -> pd.DataFrame:
    """One row per cell, metric and class with the mean over its seeds, and the 95 % interval of that mean.

    All seeds share the test images, so that averaging them takes nothing off what the images leave in doubt. Over
    ``both``, the variance is that over images, which the seeds' own intervals tell (their mean is never too narrow
    for that of the mean), plus the squared standard error between seeds; each end is so many roots of it away by
    Student's t with the degrees of freedom of such a sum (Satterthwaite 1946, the images' taken as known). Over
    ``images`` it is the first variance alone, over ``seeds`` the second; a single seed has its own interval.

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
    between = (grouped["value"].std() / np.sqrt(seeds)).to_numpy() * (over != "images")
    ends = [(means["value"] - means[name]).abs().to_numpy() for name in ("ci_low", "ci_high")]
    if over == "seeds":  # that agree to the last digit: then the mean of their own intervals, which are never empty
        ends = [np.where(between > 0, 0.0, end) for end in ends]
    below, above = (_reach(end / _Z95, between, seeds) for end in ends)
    low, high = ranges(result["metric"])
    return result.assign(
        value=means["value"],
        ci_low=result["ci_low"].where(~several, np.maximum(means["value"] - below, low)),
        ci_high=result["ci_high"].where(~several, np.minimum(means["value"] + above, high)),
        seeds=seeds,
        planned=planned,
    )


def _reach(own: np.ndarray, between: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Half an interval from the standard errors over images, NaN of metrics without intervals, and between seeds."""
    known = np.where(np.isnan(own), 0.0, own)
    variance = known**2 + between**2
    with np.errstate(divide="ignore", invalid="ignore"):
        degrees = np.minimum((seeds - 1) * (variance / between**2) ** 2, _MANY)
    t = np.where(between > 0, special.stdtrit(degrees, 0.975), _Z95)
    return np.asarray(np.where(np.isnan(own) & ~(between > 0), np.nan, t * np.sqrt(variance)))
