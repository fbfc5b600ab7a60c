"""Results on datasets that leave out one class after the other, which share a table."""

from __future__ import annotations

import numpy as np
import pandas as pd

from .factorize import constant_column, group_index
from .records import IDENTITY_COLUMNS
from .seeds import mean_over_seeds

HELD_OUT, WITHOUT, MEAN = "held-out", " without ", "mean"


def left_out_in_turn(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Rows of ``NAME without CLASS`` under one dataset each NAME, and their mean over classes with its t interval."""
    held_out = in_turn(frame)
    if not held_out.any():
        return frame
    dataset = frame["dataset"].astype(object)  # no category of the command line's frames
    named = dataset.where(~held_out, dataset.str.split(WITHOUT).str[0] + ", one class left out")
    frame = frame.assign(dataset=named)
    rows = frame[held_out & frame["metric"].isin([metric, ""])]
    if rows.empty:  # a metric that nothing has; the table names the nearest
        return frame
    return pd.concat([frame, _mean_over_classes(rows.assign(metric=constant_column(rows["metric"], metric)))])


def in_turn(frame: pd.DataFrame) -> pd.Series:
    """Which rows are of a dataset that leaves out a class in turn."""
    return (frame["ood_group"] == HELD_OUT) & frame["dataset"].str.contains(WITHOUT)


def _mean_over_classes(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per model and detector: the mean over classes; not ok where one class is not, so that means compare.

    The class takes the place of the seed: each is first averaged over its seeds, and the interval is that of the spread
    between classes, which holds what the class is, how its network was trained and which images there are. Networks
    share most of their images, so that, as in cross-validation, it is on the narrow side for other training images.
    """
    classes = mean_over_seeds(rows)
    turns = classes.assign(seed=np.arange(len(classes)), ood_dataset=MEAN)
    cell = [name for name in IDENTITY_COLUMNS if name != "seed"]
    numbers, _ = group_index(turns, cell)
    failed = (turns["status"] != "ok").to_numpy()
    spoiled = np.bincount(numbers, failed)[numbers] > 0
    _, first_failed = group_index(turns[failed], cell)
    parts = [mean_over_seeds(turns[~spoiled]), turns[failed].iloc[first_failed]]
    return pd.concat([part for part in parts if len(part)]).assign(seed=rows["seed"].min())[[*rows.columns]]
