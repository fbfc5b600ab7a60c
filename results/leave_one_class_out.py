"""Results on datasets that leave out one class after the other, which share a table."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from .factorize import constant_column, group_index
from .layout import by_dataset
from .recorded import recorded
from .records import IDENTITY_COLUMNS
from .seeds import mean_over_seeds
from .spec_tables import distinct

MEAN = "mean"  # header of the mean over classes


def held_out(frame: pd.DataFrame) -> pd.Series:
    """Which rows are about a class that its dataset leaves out in turn."""
    return frame["role"] == "held-out"


def by_origin(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The rows of each ID dataset; all that leave out a class of one dataset in turn are together under its name."""
    turned = held_out(frame)
    if turned.any():
        origin = recorded(frame, "held_out", lambda fact: f"{fact['of']}, one class left out")
        dataset = frame["dataset"].astype(object)  # no category of the command line's frames
        frame = frame.assign(dataset=dataset.where(~turned, origin))
    return by_dataset(frame)


def mean_over_classes(part: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The mean of a metric over the classes that are left out in turn, with its t interval; no rows where none is.

    One row per model and detector; not ok where one class is not, so that means compare. The class takes the place of
    the seed: each is first averaged over its seeds, and the interval is that of the spread between classes, which holds
    what the class is, how its network was trained and which images there are. Networks share most of their images, so
    that, as in cross-validation, it is on the narrow side for other training images.
    """
    rows = part[held_out(part) & part["metric"].isin([metric, ""])]
    if rows.empty:  # none is left out, or a metric that nothing has; the table names the nearest
        return rows
    classes = mean_over_seeds(rows.assign(metric=constant_column(rows["metric"], metric)))
    turns = classes.assign(seed=np.arange(len(classes)), role="mean", ood_dataset=distinct(MEAN, part["ood_dataset"]))
    cell = [name for name in IDENTITY_COLUMNS if name != "seed"]
    numbers, _ = group_index(turns, cell)
    failed = (turns["status"] != "ok").to_numpy()
    spoiled = np.bincount(numbers, failed)[numbers] > 0
    _, first_failed = group_index(turns[failed], cell)
    parts = [mean_over_seeds(turns[~spoiled], "seeds"), turns[failed].iloc[first_failed]]
    return pd.concat([part for part in parts if len(part)]).assign(seed=rows["seed"].min())[[*rows.columns]]
