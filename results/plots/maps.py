"""Heat maps: robust accuracy, confusion matrix, AUROC over two hyper-parameters."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ...registry import GauntletError
from ..curves import confusion
from ..layout import shown
from .kinds import Material, few, labels, plot
from .style import figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@plot("robust-heatmap")
def robust_heatmap(material: Material) -> Figure:
    """Accuracy under attack as a map: attacks and budgets down, models across."""
    rows = material.rows("attack", "robust_accuracy")
    order = rows.drop_duplicates(["attack", "epsilon"])[["attack", "epsilon"]]
    names = [f"{attack}  ε {shown('epsilon', epsilon)}" for attack, epsilon in order.itertuples(index=False)]
    means = rows.groupby(["attack", "epsilon", "model"], sort=False, dropna=False)["value"].mean().unstack("model")
    models = list(dict.fromkeys(rows["model"]))
    table = 100 * means.loc[[tuple(pair) for pair in order.itertuples(index=False)], models].to_numpy()
    drawn, axes = figure(2.6 + 0.95 * len(models), 0.9 + 0.26 * len(names))
    _map(drawn, axes, table, names, models, "Accuracy (%)", (0, 100))
    axes.set_title("Accuracy under attack", pad=10)
    return drawn


@plot("confusion")
def confusion_matrix(material: Material) -> Figure:
    """Confusion matrix of clean test images: percent of the true class, and counts."""
    found = few(list(material.cells("accuracy", "label", "prediction", "classes")), "models", 4)
    return draw_confusions(found)


@plot("attacked-confusion")
def attacked_confusion(material: Material) -> Figure:
    """Confusion matrix under attack: of all evaluated images, those that are wrong without it as they are.

    Raises:
        GauntletError: No cell holds labels and predictions.
    """
    found = []
    for cell, attacked in material.cells("attack", "index", "attacked", "prediction"):
        clean = material.clean(cell)
        if {"label", "prediction", "classes"} <= clean.keys():
            prediction = clean["prediction"][attacked["index"]].astype(int)
            prediction[attacked["attacked"]] = attacked["prediction"]
            found.append((cell, {**clean, "label": clean["label"][attacked["index"]], "prediction": prediction}))
    if not found:
        raise GauntletError("No accuracy cell beside these attacks holds label and prediction; run the suite again.")
    return draw_confusions(few(found, "attack cells", 4))


def draw_confusions(found: list[tuple[pd.Series, dict[str, np.ndarray]]]) -> Figure:
    """One matrix a cell, from its arrays ``label``, ``prediction`` and ``classes``."""
    columns = min(2, len(found))
    size = 2.2 + 0.34 * max(len(arrays["classes"]) for _, arrays in found)
    rows = -(-len(found) // columns)
    drawn, grid = figure(size * columns + 0.6, size * rows, rows, columns)
    flat = np.atleast_1d(np.asarray(grid, dtype=object)).ravel()
    for axes, (_, arrays), name in zip(flat, found, labels([cell for cell, _ in found]), strict=False):
        names = [str(text) for text in arrays["classes"]]
        counts = confusion(arrays["label"], arrays["prediction"], len(names))
        shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        texts = [
            [f"{s:.0f}\n({c})" if c else "" for s, c in zip(*pair, strict=True)]
            for pair in zip(shares, counts, strict=True)
        ]
        _map(drawn, axes, shares, names, names, "Percent of the true class (count)", (0, 100), texts, small=True)
        axes.set(title=name, xlabel="Predicted", ylabel="True")
    for axes in flat[len(found) :]:
        axes.set_visible(False)
    return drawn


@plot("auroc-grid")
def auroc_grid(material: Material) -> Figure:
    """AUROC over temperature and epsilon of a detector such as ODIN.

    Raises:
        GauntletError: No detector of the results has both parameters.
    """
    rows = material.rows("ood", "auroc")
    parameters = [json.loads(text or "{}").get("detector", {}) for text in rows["params"]]
    rows = rows.assign(
        t=[known.get("temperature") for known in parameters], e=[known.get("epsilon") for known in parameters]
    )
    rows = rows[rows["t"].notna() & rows["e"].notna()]
    table = rows.pivot_table(index="t", columns="e", values="value", aggfunc="mean")
    if table.size < 2:
        raise GauntletError("The map needs a detector with temperature and epsilon at several values, such as odin.")
    drawn, axes = figure(2.2 + 0.8 * table.shape[1], 1.4 + 0.5 * table.shape[0])
    names = [f"{value:g}" for value in table.index], [f"{value:g}" for value in table.columns]
    _map(drawn, axes, 100 * table.to_numpy(), *names, "AUROC (%)", None, decimals=1)
    axes.set(xlabel="ε", ylabel="Temperature", title="Mean AUROC over the OOD sets")
    return drawn


def _map(
    drawn: Any,
    axes: Any,
    table: np.ndarray,
    down: list[str],
    across: list[str],
    what: str,
    limits: tuple[float, float] | None,
    texts: list[list[str]] | None = None,
    *,
    small: bool = False,
    decimals: int = 0,
) -> None:
    low, high = limits or (np.nanmin(table), np.nanmax(table))
    shown = axes.imshow(table, aspect="auto", vmin=low, vmax=high)
    axes.grid(False)
    slanted = max(map(len, across)) > (4 if small else 9)  # longer ones would run into each other
    axes.set_xticks(range(len(across)), across, rotation=30 if slanted else 0, ha="right" if slanted else "center")
    axes.set_yticks(range(len(down)), down)
    for (row, column), value in np.ndenumerate(table):
        text = texts[row][column] if texts else ("–" if pd.isna(value) else f"{value:.{decimals}f}")
        dark = not pd.isna(value) and (value - low) / max(high - low, 1e-9) < 0.55
        axes.text(
            column, row, text, ha="center", va="center", color="white" if dark else "black", fontsize=6 if small else 8
        )
    drawn.colorbar(shown, ax=axes, label=what, shrink=0.8)
