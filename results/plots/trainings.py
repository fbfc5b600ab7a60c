"""Training histories: loss and accuracy by epoch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ...registry import GauntletError
from .kinds import Material, plot
from .style import COLOURS, figure, legend_below

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST = len(COLOURS)
#: Prefix of the figures in a history, name in the legend, line style.
_SPLITS = (("", "train", ":"), ("val_", "validation", "-"), ("test_", "test", "--"))


@plot("history")
def history(material: Material) -> Figure:
    """Loss and accuracy of every trained model by epoch, on training, validation and test data.

    Raises:
        GauntletError: The store holds no history.
    """
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

    known = material.store.history_labels()
    histories = [(label, rows) for key, label in known.items() if (rows := material.store.history(key))]
    if not histories:
        raise GauntletError("The store holds no training history; its models were loaded, not trained.")
    histories = histories[-_MOST:]
    names = [name for name in ("loss", "accuracy") if any(name in rows[0] for _, rows in histories)]
    drawn, grid = figure(4.0 * len(names), 3.4 + 0.2 * len(histories), 1, len(names))
    panels = list(grid.ravel()) if len(names) > 1 else [grid]
    for axes, name in zip(panels, names, strict=True):
        scale = 100 if name == "accuracy" else 1
        shown = []
        for colour, (label, rows) in zip(COLOURS, histories, strict=False):
            epochs = [row.get("epoch", place + 1) for place, row in enumerate(rows)]
            mark = "" if len(rows) > 1 else "."  # a line needs two points
            for prefix, split, dashes in _SPLITS:
                values = [scale * row.get(f"{prefix}{name}", math.nan) for row in rows]
                if not all(map(math.isnan, values)):
                    axes.plot(epochs, values, color=colour, linestyle=dashes, marker=mark, gid=f"{label} {split}")
                    shown.append((split, dashes))
            axes.plot([], [], color=colour, label=label)
        for split, dashes in dict.fromkeys(shown):
            axes.plot([], [], color="grey", linestyle=dashes, label=split)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel="Epoch", ylabel="Accuracy (%)" if name == "accuracy" else "Loss", title=name.capitalize())
        if name == "loss":
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
    legend_below(drawn, panels[0], 3)  # every model has a loss, not every one an accuracy
    return drawn
