"""Means over seeds, with the t interval of the mean."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import special

from .metrics import METRICS
from .records import IDENTITY_COLUMNS


def mean_over_seeds(chosen: pd.DataFrame) -> pd.DataFrame:
    """One row per cell, metric and class with the mean over its seeds, and the t interval of that mean.

    Adds the columns ``seeds`` (how many are behind the mean) and ``planned``; a cell without an ok seed keeps its
    status.
    """
    by = [name for name in (*IDENTITY_COLUMNS, "metric", "class") if name != "seed"]
    ok = (chosen["status"] == "ok").astype(int)
    grouped = chosen.assign(seeds=ok, planned=1).groupby(by, sort=False, dropna=False)
    result = grouped.first()  # of every column the first that is not empty
    result["seeds"], result["planned"] = grouped["seeds"].sum(), grouped["planned"].sum()
    result["value"] = grouped["value"].mean()
    several = result["seeds"] > 1
    half = special.stdtrit(result["seeds"] - 1, 0.975) * grouped["value"].std() / np.sqrt(result["seeds"])
    agree = ~(half > 0)  # to the last digit: then the mean of their own intervals, which are never empty
    low, high = _range(result.index.get_level_values("metric"))
    means = grouped[["ci_low", "ci_high"]].mean()
    below = means["ci_low"].where(agree, np.maximum(result["value"] - half, low))
    above = means["ci_high"].where(agree, np.minimum(result["value"] + half, high))
    result["ci_low"] = result["ci_low"].where(~several, below)
    result["ci_high"] = result["ci_high"].where(~several, above)
    result["status"] = result["status"].where(result["seeds"] == 0, "ok")
    return result.reset_index()


def _range(metrics: pd.Index) -> tuple[list[float], list[float]]:
    """The least and the largest value that each metric can have."""
    known = [METRICS.get(name) for name in metrics]
    return [-np.inf if one is None else one.low for one in known], [
        np.inf if one is None else one.high for one in known
    ]
