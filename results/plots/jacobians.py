"""Pictures of input Jacobians: where, and in which direction, each pixel moves a model's loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .examples import class_name, picture
from .kinds import Material, few, labels, plot
from .style import figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST = 8


@plot("jacobians")
def jacobians(material: Material) -> Figure:
    """Test images, and below each the gradient of every model's loss at it: grey is zero, contrast is rescaled.

    A standardised Jacobian (JARN) differs from this picture in contrast alone.
    """
    found = few(list(material.examples("accuracy", "jacobian", "jacobian_image", "jacobian_label")), "models", 6)
    lines: list[tuple[str, np.ndarray, list[str]]] = []
    above = None
    for (cell, arrays), name in zip(found, labels([cell for cell, _ in found]), strict=True):
        if above is None or not np.array_equal(above, arrays["jacobian_image"]):  # the first model of its dataset
            above, classes = arrays["jacobian_image"], material.classes(cell)
            lines.append(("image", above, [class_name(classes, label) for label in arrays["jacobian_label"]]))
        lines.append((name, np.stack([contrast(one) for one in arrays["jacobian"]]), [""] * len(arrays["jacobian"])))
    columns = min(_MOST, max(len(images) for _, images, _ in lines))
    drawn, grid = figure(0.9 + 1.1 * columns, 1.2 * len(lines) + 0.3, len(lines), columns)
    grid = np.asarray(grid, dtype=object).reshape(len(lines), columns)
    for row, (name, images, titles) in enumerate(lines):
        for axes in grid[row, len(images) :]:
            axes.set_visible(False)
        for axes, image, title in zip(grid[row], images, titles, strict=False):
            picture(axes, image, title)
        grid[row, 0].set_ylabel(name, fontsize=8)
    drawn.suptitle("Gradient of the loss at test images")
    return drawn


def contrast(jacobian: np.ndarray) -> np.ndarray:
    """A Jacobian (C, H, W) as an image: zero is 0.5, and all but its largest percent of entries fit in [0, 1]."""
    largest = float(np.quantile(np.abs(jacobian), 0.99)) or float(np.abs(jacobian).max()) or 1.0
    return np.clip(0.5 + jacobian / (2 * largest), 0, 1)
