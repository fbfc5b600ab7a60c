"""Line plots: ROC, precision-recall, sorted scores, risk-coverage, accuracy against epsilon and severity."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from ...registry import GauntletError
from ..curves import pr_curve, risk_coverage, roc_curve
from ..display import number
from ..layout import header, shown
from .kinds import Material, common, few, labels, plot
from .style import MARKERS, figure, legend_below, line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_REPLICATES = 200


@plot("roc")
def roc(material: Material) -> Figure:
    """ROC curves of OOD detectors with 95 % bootstrap bands."""
    return _curves(material, "roc")


@plot("pr")
def pr(material: Material) -> Figure:
    """Precision-recall curves of OOD detectors, OOD positive, with 95 % bootstrap bands."""
    return _curves(material, "pr")


def _curves(material: Material, kind: str) -> Figure:
    found = few(list(material.cells("ood", "id_score", "ood_score")), "curves")
    drawn, axes = figure(4.6, 4.2 + 0.2 * len(found))
    metric = "auroc" if kind == "roc" else "aupr_out"
    names = labels([cell for cell, _ in found])
    for i, ((cell, arrays), name) in enumerate(zip(found, names, strict=True)):
        inside, outside = arrays["id_score"], arrays["ood_score"]
        x, y = roc_curve(inside, outside) if kind == "roc" else pr_curve(inside, outside)
        axes.plot(x, y, label=f"{name} ({_value(material, cell, metric)})", **line(i))
        grid, low, high = _band(inside, outside, kind)
        axes.fill_between(grid, low, high, color=line(i)["color"], alpha=0.15, linewidth=0)
    if kind == "roc":
        axes.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle=":")
    across, up = ("ID images flagged", "OOD images caught") if kind == "roc" else ("Recall of OOD", "Precision")
    axes.set(xlabel=across, ylabel=up, xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
    axes.set_title(f"{'ROC' if kind == 'roc' else 'Precision-recall'}: {common([cell for cell, _ in found])}")
    axes.set_box_aspect(1)
    legend_below(drawn, axes)
    return drawn


def _band(inside: np.ndarray, outside: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """95 % pointwise bootstrap band on a grid; images of both sides are resampled."""
    rng, grid = np.random.default_rng(0), np.linspace(0, 1, 101)
    drawn = []
    for _ in range(_REPLICATES):
        again = rng.choice(inside, len(inside)), rng.choice(outside, len(outside))
        x, y = roc_curve(*again) if kind == "roc" else pr_curve(*again)
        drawn.append(np.interp(grid, x, y))
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return grid, low, high


def _value(material: Material, cell: pd.Series, metric: str) -> str:
    rows = material.frame[(material.frame["key"] == cell["key"]) & (material.frame["metric"] == metric)]
    if rows.empty:
        return "not measured"
    value, low, high = (100 * float(rows[name].iloc[0]) for name in ("value", "ci_low", "ci_high"))
    return f"{number(value, 1)} %, {number(low, 1)} to {number(high, 1)}"


@plot("sorted-scores")
def sorted_scores(material: Material) -> Figure:
    """Scores of ID and OOD images, each sorted: where the two curves part, a threshold separates them."""
    found = few(list(material.cells("ood", "id_score", "ood_score")), "detectors and sets", 6)
    return _panels(found, "Share of images", "Score", _sorted_panel)


def _sorted_panel(axes: Any, arrays: dict[str, np.ndarray]) -> None:
    for i, (name, key) in enumerate((("ID", "id_score"), ("OOD", "ood_score"))):
        values = np.sort(arrays[key])
        axes.plot(np.linspace(0, 1, len(values)), values, label=name, **line(i))


def _panels(found: list[Any], across: str, up: str, panel: Callable[..., None]) -> Figure:
    cells = [cell for cell, _ in found]
    columns = _columns(cells)
    rows = -(-len(found) // columns)
    drawn, grid = figure(max(4.2, 3.1 * columns), 2.7 * rows + 0.3, rows, columns)
    flat = np.atleast_1d(np.asarray(grid, dtype=object)).ravel()
    for axes, (_, arrays), name in zip(flat, found, labels(cells), strict=False):
        panel(axes, arrays)
        axes.set(title=name, xlabel=across, ylabel=up)
    for axes in flat[len(found) :]:
        axes.set_visible(False)
    flat[0].legend(loc="best")
    if len(found) > 1:
        drawn.suptitle(common(cells))
    return drawn


def _columns(cells: list[pd.Series], most: int = 4) -> int:
    """One column an OOD set where that makes a full grid, so that a detector's panels stand side by side."""
    sets = len({cell["ood_dataset"] for cell in cells})
    return sets if 1 < sets <= most and len(cells) % sets == 0 else min(3, len(cells))


@plot("risk-coverage")
def risks(material: Material) -> Figure:
    """Share of errors among the most confident images, by the share of images that is answered."""
    found = few(list(material.cells("accuracy", "confidence", "success")), "models")
    drawn, axes = figure()
    cells = [cell for cell, _ in found]
    for i, ((_, arrays), name) in enumerate(zip(found, labels(cells), strict=True)):
        coverage, risk = risk_coverage(arrays["confidence"], arrays["success"])
        axes.plot(100 * coverage, 100 * risk, label=f"{name} (AURC {100 * risk.mean():.2f} %)", **line(i))
    axes.set(xlabel="Coverage (%)", ylabel="Errors among the answered (%)", xlim=(0, 100), ylim=(0, None))
    axes.set_title(f"Risk and coverage: {common(cells)}")
    axes.legend(loc="best")
    return drawn


@plot("accuracy-epsilon")
def accuracy_epsilon(material: Material) -> Figure:
    """Accuracy under attack against epsilon, one panel an attack, one line a model, with 95 % intervals."""
    rows = material.rows("attack", "robust_accuracy")
    return _against(material, rows, "epsilon", "attack", "ε", _clean(material, "accuracy", "accuracy"), _ACCURACY)


@plot("reconstruction-epsilon")
def reconstruction_epsilon(material: Material) -> Figure:
    """Reconstruction error under attack against epsilon, one panel an attack, one line a model, with 95 % intervals."""
    rows = material.rows("reconstruction", "reconstruction_mse")
    clean = _clean(material, "reconstruction", "reconstruction_mse")
    return _against(material, rows[rows["attack"] != ""], "epsilon", "attack", "ε", clean, _ERROR)


@plot("corruption-severity")
def corruption_severity(material: Material) -> Figure:
    """Accuracy against the severity of corruptions that have several, one panel a corruption, one line a model."""
    rows = material.rows("corruption", "accuracy")
    rows = rows[rows["severity"].notna()]  # the others are means
    rows = rows[rows.groupby("corruption", observed=True)["severity"].transform("nunique") > 1]
    clean = _clean(material, "accuracy", "accuracy")
    return _against(material, rows, "severity", "corruption", "severity", clean, _ACCURACY)


class _Scale(NamedTuple):
    """How a metric is drawn upwards: its title, label, factor, and the ends of the axis (None: the largest value)."""

    title: str
    label: str
    factor: float
    ends: tuple[float, float | None]


_ACCURACY = _Scale("Accuracy", "Accuracy (%)", 100, (-2, 102))
_ERROR = _Scale("Reconstruction error", "Mean squared error", 1, (0, None))


def _clean(material: Material, evaluator: str, metric: str) -> pd.Series:
    """The metric of every model on clean test images, which a line starts at."""
    frame = material.frame
    rows = frame[(frame["evaluator"] == evaluator) & (frame["metric"] == metric) & (frame["class"] == "")]
    rows = rows[(rows["attack"] == "") & (rows["ood_dataset"] == "")]
    return rows.groupby("model")["value"].mean()


def _against(
    material: Material, rows: pd.DataFrame, step: str, family: str, across: str, untouched: pd.Series, up: _Scale
) -> Figure:
    if rows.empty:
        raise GauntletError(f"These results have nothing by {family}; select others with --where.")
    names = few(list(dict.fromkeys(rows[family])), f"{family}s", 16)
    models = few(list(dict.fromkeys(rows["model"])), "models")
    if rows["dataset"].nunique() > 1:
        raise GauntletError("The plot is about one dataset; select one with --where dataset=NAME.")
    columns = min(4, len(names))
    tall = -(-len(names) // columns)
    steps = sorted(rows[step].dropna().unique())
    drawn, grid = figure(max(4.2, max(2.5, 0.5 * len(steps) + 0.8) * columns), 2.3 * tall + 0.6, tall, columns)
    flat = np.atleast_1d(np.asarray(grid, dtype=object)).ravel()
    low, high = up.ends
    top = high if high is not None else 1.05 * float(rows[["value", "ci_high"]].max().max())  # the same in each panel
    for axes, name in zip(flat, names, strict=False):
        for i, model in enumerate(models):
            _line(
                axes,
                rows[(rows[family] == name) & (rows["model"] == model)],
                step,
                steps,
                untouched.get(model),
                i,
                model,
                up.factor,
            )
        ticks = ([("0", 0)] if len(untouched) else []) + [
            (text if "/" in (text := shown(step, value)) else header(step, round(value, 4)), steps.index(value) + 1)
            for value in steps
        ]
        axes.set(title=name, ylim=(low, top), xticks=[at for _, at in ticks], xticklabels=[text for text, _ in ticks])
        axes.set(xlabel=across, ylabel=up.label)
    drawn.suptitle(f"{up.title} against {across} on {rows['dataset'].iloc[0]}")
    for axes in flat[len(names) :]:
        axes.set_visible(False)
    spare = flat[len(names)] if len(flat) > len(names) else None
    handles, texts = flat[0].get_legend_handles_labels()
    if spare is not None:
        spare.set_visible(True)
        spare.axis("off")
        spare.legend(handles, texts, loc="center")
    elif len(models) > 1:
        drawn.legend(handles, texts, loc="outside lower center", ncols=len(models))
    return drawn


def _line(
    axes: Any,
    rows: pd.DataFrame,
    step: str,
    steps: list[float],
    clean: float | None,
    index: int,
    model: str,
    factor: float,
) -> None:
    """Mean over seeds with the widest interval, at evenly spaced steps; the clean value stands at step 0."""
    by = rows.groupby(step)[["value", "ci_low", "ci_high"]].mean()
    at = [steps.index(value) + 1 for value in by.index]
    values = factor * by.to_numpy().T
    if clean is not None:
        at, values = [0, *at], np.column_stack([[factor * clean] * 3, values])
    spread = np.abs(values[1:] - values[0])
    style = {**line(index), "marker": MARKERS[index % len(MARKERS)], "markersize": 4, "capsize": 2}
    axes.errorbar(at, values[0], yerr=np.nan_to_num(spread), label=model, elinewidth=0.9, **style)
