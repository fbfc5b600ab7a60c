"""Distributions: scores of ID and OOD images, scores by class, and the reliability diagram."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..curves import reliability
from ..display import number
from .curves import _panels
from .kinds import Material, common, few, labels, plot
from .style import COLOURS, ID, OOD, figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BINS = 25
_RELIABILITY_BINS = 15


@plot("score-histogram")
def score_histogram(material: Material) -> Figure:
    """Densities of the scores of ID and OOD images, one panel a detector and OOD set."""
    found = few(list(material.cells("ood", "id_score", "ood_score")), "detectors and sets", 12)
    return _panels(found, "Score (higher is more OOD)", "Density", _score_panel)


def _score_panel(axes: Any, arrays: dict[str, np.ndarray]) -> None:
    both = np.concatenate([arrays["id_score"], arrays["ood_score"]])
    edges = np.linspace(both.min(), both.max() if both.max() > both.min() else both.min() + 1, _BINS + 1)
    for name, key, colour, hatch in (("ID", "id_score", ID, ""), ("OOD", "ood_score", OOD, "///")):
        style = {"histtype": "stepfilled", "alpha": 0.45, "color": colour, "edgecolor": colour, "hatch": hatch}
        axes.hist(arrays[key], edges, density=True, label=name, **style)


@plot("class-scores")
def class_scores(material: Material) -> Figure:
    """Distribution of a detector's score for every ID class, and for the OOD images."""
    found = few(list(material.cells("ood", "id_score", "ood_score", "id_label")), "detectors and sets", 4)
    columns = min(2, len(found))
    drawn, grid = figure(5.4 * columns, 3.4 * -(-len(found) // columns), -(-len(found) // columns), columns)
    flat = np.atleast_1d(np.asarray(grid, dtype=object)).ravel()
    cells = [cell for cell, _ in found]
    for axes, (cell, arrays), name in zip(flat, found, labels(cells), strict=False):
        inside, label = arrays["id_score"], arrays["id_label"]
        numbers = sorted(set(label.tolist()))
        names = material.classes(cell)
        groups = [inside[label == number] for number in numbers] + [arrays["ood_score"]]
        box_plots(axes, groups, [ID] * len(numbers) + [OOD])
        texts = [names[number] if 0 <= number < len(names) else str(number) for number in numbers]
        axes.set_xticks(range(1, len(groups) + 1), [*texts, cell["ood_dataset"] or "OOD"], rotation=45, ha="right")
        axes.set(ylabel="Score (higher is more OOD)", title=name if len(found) > 1 else common(cells))
    for axes in flat[len(found) :]:
        axes.set_visible(False)
    return drawn


def box_plots(axes: Any, groups: list[np.ndarray], colours: list[str]) -> None:
    """One box a group, side by side."""
    boxes = axes.boxplot(groups, patch_artist=True, widths=0.65, flierprops={"markersize": 2, "alpha": 0.4})
    for box, colour in zip(boxes["boxes"], colours, strict=True):
        box.set(facecolor=colour, alpha=0.5)
    for middle in boxes["medians"]:
        middle.set(color="black")


@plot("reliability")
def reliability_diagram(material: Material) -> Figure:
    """Accuracy by confidence with the histogram of confidences, before and after temperature scaling."""
    found = few(list(material.cells("calibration", "confidence", "correct")), "models", 4)
    panels = [
        (f"{name}{suffix}", arrays[f"confidence{key}"], arrays["correct"])
        for (_, arrays), name in zip(found, labels([cell for cell, _ in found]), strict=True)
        for key, suffix in (("", ""), ("_scaled", ", scaled"))
        if f"confidence{key}" in arrays
    ]
    drawn, _ = figure(0.1, 0.1)
    drawn.clear()
    drawn.set_size_inches(3.0 * max(len(panels), 1.4), 4.2)
    grid = drawn.subplots(2, len(panels), squeeze=False, height_ratios=[3, 1], sharex="col")
    for i, (name, confidence, correct) in enumerate(panels):
        _reliability_panel(grid[0, i], grid[1, i], name, confidence, correct)
    grid[0, 0].legend(loc="upper left")
    drawn.suptitle(f"Reliability: {common([cell for cell, _ in found])}")
    return drawn


def _reliability_panel(top: Any, below: Any, name: str, confidence: np.ndarray, correct: np.ndarray) -> None:
    centre, accuracy, share = reliability(confidence, correct, _RELIABILITY_BINS)
    width, used = 1 / _RELIABILITY_BINS, share > 0
    top.bar(centre[used], accuracy[used], width * 0.92, color=COLOURS[0], label="accuracy")
    gap = centre[used] - accuracy[used]
    top.bar(
        centre[used], gap, width * 0.92, accuracy[used], color="none", edgecolor=OOD, hatch="////", lw=0.6, label="gap"
    )
    top.plot([0, 1], [0, 1], color="0.4", linestyle=":", linewidth=1)
    ece = float(np.sum(share * np.abs(accuracy - _mean_confidence(confidence))))
    top.set(title=f"{name}\nECE {number(100 * ece, 1)} %", xlim=(0, 1), ylim=(0, 1), ylabel="Accuracy")
    below.bar(centre, 100 * share, width * 0.92, color="0.45")
    below.set(xlabel="Confidence", ylabel="Images (%)", xlim=(0, 1))


def _mean_confidence(confidence: np.ndarray) -> np.ndarray:
    """Mean confidence per bin, as the metric has it (not the bin's centre)."""
    _, mean, _ = reliability(confidence, confidence, _RELIABILITY_BINS)
    return mean
