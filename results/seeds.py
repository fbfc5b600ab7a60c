"""Means over seeds, with the t interval of the mean."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import special

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
    result["ci_low"] = result["ci_low"].where(~several, result["value"] - half)
    result["ci_high"] = result["ci_high"].where(~several, result["value"] + half)
    result["status"] = result["status"].where(result["seeds"] == 0, "ok")
    return result.reset_index()
