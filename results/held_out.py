"""Results on datasets that leave out one class after the other, which share a table."""

from __future__ import annotations

import pandas as pd

HELD_OUT, WITHOUT = "held-out", " without "


def left_out_in_turn(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Rows of ``NAME without CLASS`` under one dataset each NAME, and their mean over classes (no interval)."""
    held_out = in_turn(frame)
    if not held_out.any():
        return frame
    named = frame["dataset"].where(~held_out, frame["dataset"].str.split(WITHOUT).str[0] + ", one class left out")
    frame = frame.assign(dataset=named)
    rows = frame[held_out & (frame["metric"] == metric) & (frame["status"] == "ok")]
    means = rows.drop_duplicates(["model", "dataset", "detector", "seed"]).copy()
    keys = ["model", "dataset", "detector", "seed"]
    values = rows.groupby(keys)["value"].mean()
    means["value"] = [values[tuple(row)] for row in means[keys].itertuples(index=False)]
    return pd.concat([frame, means.assign(ood_dataset="mean", ci_low=float("nan"), ci_high=float("nan"))])


def in_turn(frame: pd.DataFrame) -> pd.Series:
    """Which rows are of a dataset that leaves out a class in turn."""
    return (frame["ood_group"] == HELD_OUT) & frame["dataset"].str.contains(WITHOUT)
