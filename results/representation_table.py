"""Embeddings side by side, and what switching one augmentation of SimCLR's views on or off does to them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from .declarations import TableSpec
from .intervals import mean_interval
from .layout import by_dataset
from .spec_tables import Made, Options, wanted
from .table import Cell, Cells, Table

#: What report R4 (section 4.4) says of each transformation of the views; it does not name the others.
R4_VERDICTS: Mapping[str, str] = {
    "resized-crop": "yes (random crop)",
    "crop": "yes (random crop)",
    "enlarge": "no",
    "rotation": "maybe, small",
    "noise": "yes",
    "stretch": "no",
    "greyscale": "yes",
}
_MEASURES = ("probe_accuracy", "knn20_accuracy")


def augmentation_tables(frame: pd.DataFrame, spec: TableSpec, options: Options) -> Made:
    """What switching one augmentation of the views on or off does; none where no two models differ by one."""
    for dataset, part in by_dataset(wanted(frame, spec)):
        yield from ((dataset, table) for table in _ablation(part, spec.title.format(dataset=dataset)))


class _Variant(NamedTuple):
    """One model as a change of another's views: what takes part, and whose accuracy is with and without it."""

    name: str
    switched: str
    with_it: str
    without: str


def _ablation(part: pd.DataFrame, title: str) -> Iterator[Table]:
    variants = list(_variants(part))
    if not variants:
        return
    rows, cells = [], []
    for variant in variants:
        line: list[str | Cell] = [R4_VERDICTS.get(variant.name.partition(" ")[0], "–")]
        for metric in _MEASURES:
            inside, outside = (_by_seed(part, model, metric) for model in (variant.with_it, variant.without))
            means = (Cell(side["value"].mean(), scale=100, digits=1) for side in (inside, outside))
            line += [*means, *_difference(inside, outside)]
        rows.append((variant.name, variant.switched))
        cells.append(line)
    measures = ("Linear probe (%)", "kNN, k 20 (%)")
    columns = [("", "R4 says"), *((m, c) for m in measures for c in ("with", "without", "difference", "verdict"))]
    seeds = part["seed"].nunique()
    several = f"Means over {seeds} seeds; ± is half the 95 % interval (Student) of the mean difference of equal seeds."
    single = "One seed: ± covers the choice of test images (normal approximation), not the randomness of training."
    yield Table(
        title=title,
        row_names=("transformation", "in the policy"),
        rows=tuple(rows),
        columns=tuple(columns),
        body=Cells.of(cells),
        notes=(several if seeds > 1 else single, "Unclear: the interval of the difference holds 0."),
    )


def _variants(part: pd.DataFrame) -> Iterator[_Variant]:
    """Models of a simclr recipe that differ from another one of the results in their views alone."""
    recipes = {}
    for _, row in part.drop_duplicates("model").iterrows():
        recipe = json.loads(row["params"] or "{}").get("model", {}).get("recipe") or {}
        if recipe.get("name") == "simclr":
            recipes[str(row["model"])] = recipe
    for model, recipe in recipes.items():
        added = [spec if isinstance(spec, str) else next(iter(spec)) for spec in recipe.get("add", ())]
        dropped = list(recipe.get("drop", ()))
        base = next((other for other, its in recipes.items() if its == {**recipe, "add": [], "drop": []}), None)
        if base is None or not (added or dropped):
            continue
        if added:
            name = " ".join([*added, *(["instead of", *dropped] if dropped else [])])
            yield _Variant(name, "off", model, base)
        else:
            yield _Variant(" ".join(dropped), "on", base, model)


def _by_seed(part: pd.DataFrame, model: str, metric: str) -> pd.DataFrame:
    """Value and number of images by seed."""
    rows = part[(part["model"] == model) & (part["metric"] == metric) & (part["class"] == "")]
    return rows.set_index("seed")[["value", "n"]].sort_index()


def _difference(inside: pd.DataFrame, outside: pd.DataFrame) -> tuple[str | Cell, str]:
    """The mean difference of equal seeds with its 95 % interval, and the verdict."""
    differences = (inside["value"] - outside["value"]).dropna().to_numpy()
    if not len(differences):
        return "–", "–"
    middle = float(differences.mean())
    if len(differences) > 1:
        low, high = mean_interval(differences)
        half = (high - low) / 2
    else:
        half = 1.96 * float(
            np.sqrt(sum((side["value"] * (1 - side["value"]) / side["n"]).sum() for side in (inside, outside)))
        )
    verdict = "helps" if middle > half else "hurts" if middle < -half else "unclear"
    return Cell(middle, middle - half, middle + half, scale=100, digits=1), verdict
