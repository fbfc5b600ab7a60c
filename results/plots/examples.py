"""Pictures: adversarial triptychs, misclassified images, and bar charts of logits and softmax."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..layout import shown
from .kinds import Material, common, few, labels, plot
from .style import COLOURS, figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST = 5


@plot("adversarial-examples")
def adversarial(material: Material) -> Figure:
    """Triptychs: clean image, perturbation (rescaled to full contrast) and attacked image with its prediction."""
    found = few(list(material.examples("attack", "clean", "adversarial", "prediction")), "attack cells", 6)
    count = min(_MOST, min(len(arrays["clean"]) for _, arrays in found))
    drawn, grid = figure(0.8 + 1.15 * count, 3.5 * len(found) + 0.4, 3 * len(found), count)
    grid = np.asarray(grid, dtype=object).reshape(3 * len(found), count)
    for block, ((cell, arrays), name) in enumerate(zip(found, labels([c for c, _ in found]), strict=True)):
        classes = material.classes(cell)
        for i in range(count):
            delta = arrays["adversarial"][i] - arrays["clean"][i]
            largest = float(np.abs(delta).max())
            images = (arrays["clean"][i], 0.5 + delta / (2 * largest or 1), arrays["adversarial"][i])
            truth, predicted = class_name(classes, arrays["label"][i]), class_name(classes, arrays["prediction"][i])
            for part, (image, title) in enumerate(zip(images, (truth, f"±{largest:.2g}", predicted), strict=True)):
                axes = grid[3 * block + part, i]
                picture(axes, image, title, "bold" if part == 2 and truth != predicted else "normal")
        for part, text in enumerate(("clean", "perturbation", "attacked")):
            grid[3 * block + part, 0].set_ylabel(f"{name}\n{text}" if len(found) > 1 else text, fontsize=8)
    budgets = {shown("epsilon", cell["epsilon"]) for cell, _ in found} - {""}
    strength = f", ε {budgets.pop()}" if len(budgets) == 1 else ""
    drawn.suptitle(f"{common([cell for cell, _ in found])}{strength}")
    return drawn


@plot("misclassified")
def misclassified(material: Material) -> Figure:
    """Test images that a model gets wrong with the highest confidence, true class and prediction above each."""
    found = few(list(material.examples("accuracy", "image", "label", "logits")), "models", 4)
    columns = max(len(arrays["image"]) for _, arrays in found)
    columns = min(8, max(1, columns))
    drawn, grid = figure(1.15 * columns + 0.8, 1.75 * len(found) + 0.3, len(found), columns)
    grid = np.asarray(grid, dtype=object).reshape(len(found), columns)
    for row, ((cell, arrays), name) in enumerate(zip(found, labels([c for c, _ in found]), strict=True)):
        classes, predicted = material.classes(cell), arrays["logits"].argmax(1)
        wrong = np.flatnonzero(predicted != arrays["label"])[:columns]
        for place in range(columns):
            grid[row, place].axis("off")
        for place, i in enumerate(wrong):
            share = _softmax(arrays["logits"][i]).max()
            title = (
                f"{class_name(classes, arrays['label'][i])} → {class_name(classes, predicted[i])}\n{100 * share:.0f} %"
            )
            picture(grid[row, place], arrays["image"][i], title)
        grid[row, 0].axis("on")
        grid[row, 0].set_ylabel(name, fontsize=8)
    drawn.suptitle("Misclassified: true → predicted, confidence")
    return drawn


@plot("logits")
def logits(material: Material) -> Figure:
    """Bar charts of logits and softmax for kept images, the image beside them."""
    cell, arrays = next(iter(material.examples("accuracy", "image", "label", "logits")))
    count, classes = min(4, len(arrays["image"])), material.classes(cell)
    drawn, grid = figure(7.6, 1.75 * count + 0.3, count, 3)
    grid = np.asarray(grid, dtype=object).reshape(count, 3)
    for row in range(count):
        values, truth = arrays["logits"][row], int(arrays["label"][row])
        picture(grid[row, 0], arrays["image"][row], f"true class {class_name(classes, truth)}")
        for axes, bars, title in ((grid[row, 1], values, "Logits"), (grid[row, 2], _softmax(values), "Softmax")):
            colours = [COLOURS[1] if i == truth else COLOURS[0] for i in range(len(bars))]
            drawn_bars = axes.bar(range(len(bars)), bars, color=colours)
            drawn_bars[truth].set_hatch("///")
            axes.set_xticks(range(len(bars)), classes or range(len(bars)))
            axes.set_title(title if row == 0 else "")
    drawn.suptitle(f"{cell['model']} on {cell['dataset']}: the true class is hatched")
    return drawn


def picture(axes: Any, image: np.ndarray, title: str, weight: str = "normal") -> None:
    """Show an image (C, H, W) in [0, 1] without ticks or frame."""
    pixels = np.clip(image.transpose(1, 2, 0), 0, 1)
    axes.imshow(pixels[..., 0] if pixels.shape[-1] == 1 else pixels, cmap="gray", vmin=0, vmax=1)
    axes.set_title(title, fontsize=8.5, fontweight=weight)
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def class_name(classes: list[str], number: Any) -> str:
    """Name of a class, or its number where it has none."""
    return classes[int(number)] if 0 <= int(number) < len(classes) else str(int(number))


def _softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max())
    return powers / powers.sum()
