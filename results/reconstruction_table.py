"""Reconstruction errors as tables: under attack, and on other sets of images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from .layout import Table, pivot

CLEAN = "(clean)"


def reconstruction_table(frame: pd.DataFrame, **options: Any) -> list[Table]:
    """Reconstruction MSE by attack and epsilon, and by OOD set (rows, the clean test split first) and model (columns).

    Two tables per ID dataset, each where there is something to show; figures have five digits after the point, since
    errors on pixels in [0, 1] are small.
    """
    rows = frame[(frame["evaluator"] == "reconstruction") & frame["metric"].isin(["reconstruction_mse", ""])]
    return [table for name in rows["dataset"].unique() for table in _tables(name, rows, options)]


def _tables(dataset: str, rows: pd.DataFrame, options: dict[str, Any]) -> Iterator[Table]:
    rows = rows[rows["dataset"] == dataset]
    attacked, outside = rows["attack"] != "", rows["ood_dataset"] != ""
    clean = rows[~attacked & ~outside]
    if attacked.any() or not outside.any():
        part = pd.concat([clean.assign(attack=CLEAN), rows[attacked]], ignore_index=True)
        title = f"Reconstruction MSE under attack on {dataset}"
        yield _pivot(part, ["attack", "epsilon"], title, options)
    if outside.any():
        part = pd.concat([clean.assign(ood_dataset=f"{dataset} (ID)"), rows[outside]], ignore_index=True)
        title = f"Reconstruction MSE of models for {dataset} by set of images"
        yield _pivot(part, ["ood_dataset"], title, {**options, "best": ""})  # on OOD sets neither end is better


def _pivot(part: pd.DataFrame, rows: list[str], title: str, options: dict[str, Any]) -> Table:
    given = {name: value for name, value in options.items() if value is not None}
    settings: dict[str, Any] = {"title": title, "decimals": 5, **given}
    return pivot(part, rows, ["model"], "reconstruction_mse", evaluator="reconstruction", **settings)
