"""Pictures of reconstructions: images, what a model makes of them, and the difference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ...registry import GauntletError
from ..layout import shown
from .examples import picture
from .kinds import Material, common, few, labels, plot
from .style import figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_IMAGES, _MOST_CELLS = 6, 6
_ROWS = ("input", "reconstruction", "difference")


@plot("reconstructions")
def reconstructions(material: Material) -> Figure:
    """Inputs, reconstructions and their differences from the clean images, with the error above each column.

    Under attack the error is shown clean → attacked. Differences are drawn as 0.5 + difference / 2: grey is none.
    """
    found = few(_kept(material), "reconstruction cells", _MOST_CELLS)
    count = min(_MOST_IMAGES, *(len(arrays["reconstruction"]) for _, arrays in found))
    drawn, grid = figure(0.9 + 1.05 * count, 3.45 * len(found) + 0.4, 3 * len(found), count)
    grid = np.asarray(grid, dtype=object).reshape(3 * len(found), count)
    names = _names([cell for cell, _ in found])
    for block, ((_, arrays), name) in enumerate(zip(found, names, strict=True)):
        for column in range(count):
            images, title = _column(arrays, column)
            for part, image in enumerate(images):
                picture(grid[3 * block + part, column], image, title if part == 0 else "")
        for part, text in enumerate(_ROWS):
            grid[3 * block + part, 0].set_ylabel(f"{name}\n{text}" if name and part == 0 else text, fontsize=8)
    drawn.suptitle(f"{common([cell for cell, _ in found])}: reconstructions, mean squared error")
    return drawn


def _kept(material: Material) -> list[tuple[pd.Series, dict[str, np.ndarray]]]:
    """Cells with examples, one for each set of images and each attack and epsilon."""
    cells = list(material.examples("reconstruction", "reconstruction"))
    if not any(len(arrays["reconstruction"]) for _, arrays in cells):
        raise GauntletError("The run kept no image examples; add `examples: 8` to the suite and run it again.")
    return cells


def _names(cells: list[pd.Series]) -> list[str]:
    """Names of the blocks: what tells their cells apart, the dataset where nothing is said, and the epsilon."""
    plain = [cell.drop("epsilon") for cell in cells]
    names = labels(plain) if len(cells) > 1 else [""]
    if pd.DataFrame(plain)["model"].nunique() == 1:
        names = [name if name != str(cell["model"]) else "" for name, cell in zip(names, cells, strict=True)]
    strengths = [shown("epsilon", cell["epsilon"]) for cell in cells]
    return [
        ", ".join(filter(None, (name, f"ε {strength}" if strength else ""))) or str(cell["dataset"])
        for name, strength, cell in zip(names, strengths, cells, strict=True)
    ]


def _column(arrays: dict[str, np.ndarray], number: int) -> tuple[tuple[np.ndarray, ...], Any]:
    """Input, reconstruction and difference of one example, and its title."""
    made = arrays["reconstruction"][number]
    if "clean" not in arrays:
        image = arrays["image"][number]
        return (image, made, _difference(made, image)), f"{_error(made, image):.4f}"
    clean = arrays["clean"][number]
    before, after = _error(arrays["clean_reconstruction"][number], clean), _error(made, clean)
    return (arrays["adversarial"][number], made, _difference(made, clean)), f"{before:.4f} → {after:.4f}"


def _error(made: np.ndarray, image: np.ndarray) -> float:
    return float(np.square(made - image).mean())


def _difference(made: np.ndarray, image: np.ndarray) -> np.ndarray:
    return 0.5 + (made - image) / 2
