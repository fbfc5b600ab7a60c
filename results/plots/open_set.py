"""Open-set recognition: confusion with OOD, what is behind the decision by label, and a generator's images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .examples import picture
from .histograms import box_plots
from .kinds import Material, common, few, labels, plot
from .maps import draw_confusions
from .style import ID, OOD, figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_AXES = {
    "h": "Discriminator's h (1: fake)",
    "max_2_max": "Max-2-Max",
    "score": "Score (higher is more OOD)",
}
_SMALLEST = 1e-12  # of h, on its logarithmic axis


@plot("open-set-confusion")
def open_set_confusion(material: Material) -> Figure:
    """Confusion matrix of known classes and OOD, which is the last row and column: percent of the true class."""
    found = few(list(material.cells("open-set", "label", "prediction", "classes")), "decisions", 4)
    return draw_confusions([(cell, {**arrays, **_numbered(arrays)}) for cell, arrays in found])


def _numbered(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Labels and predictions in which OOD is the last class instead of -1."""
    last = len(arrays["classes"]) - 1
    return {name: np.where(arrays[name] < 0, last, arrays[name]) for name in ("label", "prediction")}


@plot("open-set-scores")
def open_set_scores(material: Material) -> Figure:
    """Distribution by label of a decision's score, and of h and Max-2-Max where it has them."""
    found = few(list(material.cells("open-set", "label", "prediction", "score", "classes")), "decisions", 4)
    panels = [
        (arrays, key, name)
        for (_, arrays), name in zip(found, labels([cell for cell, _ in found]), strict=True)
        for key in _AXES
        if key in arrays
    ]
    columns = min(3, len(panels))
    drawn, grid = figure(4.6 * columns, 3.3 * -(-len(panels) // columns), -(-len(panels) // columns), columns)
    flat = np.atleast_1d(np.asarray(grid, dtype=object)).ravel()
    for axes, (arrays, key, name) in zip(flat, panels, strict=False):
        _by_label(axes, arrays, arrays[key] if key != "h" else np.maximum(arrays[key], _SMALLEST))
        if key == "h":  # a discriminator that is sure gives medians of 1e-5 (report R3) or less
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.yaxis.set_minor_formatter(lambda *_: "")
        axes.set(ylabel=_AXES[key], title=name if len(found) > 1 else "")
    for axes in flat[len(panels) :]:
        axes.set_visible(False)
    drawn.suptitle(common([cell for cell, _ in found]))
    return drawn


def _by_label(axes: Any, arrays: dict[str, np.ndarray], values: np.ndarray) -> None:
    names, label = [str(name) for name in arrays["classes"]], _numbered(arrays)["label"]
    groups = [values[label == number] for number in range(len(names))]
    box_plots(axes, groups, [ID] * (len(names) - 1) + [OOD])
    axes.set_xticks(range(1, len(names) + 1), names, rotation=45, ha="right")


@plot("open-set-probabilities")
def open_set_probabilities(material: Material) -> Figure:
    """For every true label, the distributions of the probabilities of the known classes and of OOD."""
    cell, arrays = next(iter(material.cells("open-set", "label", "prediction", "probabilities", "classes")))
    names, label = [str(name) for name in arrays["classes"]], _numbered(arrays)["label"]
    columns = min(5, len(names))
    rows = -(-len(names) // columns)
    drawn, grid = figure(2.7 * columns, 2.4 * rows + 0.3, rows, columns)
    flat = np.atleast_1d(np.asarray(grid, dtype=object)).ravel()
    limits = np.quantile(arrays["probabilities"], [0.001, 0.999])
    for number, axes in enumerate(flat[: len(names)]):
        shown = arrays["probabilities"][label == number]
        box_plots(axes, list(shown.T), [ID] * (len(names) - 1) + [OOD])
        axes.set_xticks(range(1, len(names) + 1), [*names[:-1], "OOD"], rotation=45)
        axes.set(title=f"true label {names[number]}", ylim=(limits[0], limits[1]))
    for axes in flat[len(names) :]:
        axes.set_visible(False)
    drawn.suptitle(f"Probabilities by true label: {common([cell])}")
    return drawn


@plot("generated")
def generated(material: Material) -> Figure:
    """A grid of images of the model's generator."""
    cell, arrays = next(iter(material.examples("open-set", "generated")))
    images = arrays["generated"]
    side = int(np.ceil(np.sqrt(len(images))))
    drawn, grid = figure(0.62 * side, 0.62 * side + 0.4, side, side)
    flat = np.atleast_1d(np.asarray(grid, dtype=object)).ravel()
    for axes, image in zip(flat, images, strict=False):
        picture(axes, image, "")
    for axes in flat[len(images) :]:
        axes.set_visible(False)
    drawn.suptitle(f"Generated images: {cell['model']}, trained on {cell['dataset']}")
    return drawn
