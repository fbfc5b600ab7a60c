"""Training histories: loss and accuracy by epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...registry import GauntletError
from .kinds import Material, plot
from .look import figure, legend_below, line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST = 8


@plot("training")
def training(material: Material) -> Figure:
    """Loss and accuracy of every trained model by epoch, on training and validation data."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    known = material.store.history_labels()
    histories = [(label, rows) for key, label in known.items() if (rows := material.store.history(key))]
    if not histories:
        raise GauntletError("The store holds no training history; its models were loaded, not trained.")
    histories = histories[-_MOST:]
    names = [name for name in ("loss", "accuracy") if any(name in rows[0] for _, rows in histories)]
    drawn, grid = figure(4.0 * len(names), 3.4 + 0.2 * len(histories), 1, len(names))
    panels = list(grid.ravel()) if len(names) > 1 else [grid]
    for axes, name in zip(panels, names, strict=True):
        for i, (label, rows) in enumerate(histories):
            epochs = [row.get("epoch", place + 1) for place, row in enumerate(rows)]
            for prefix, width in (("", 1.0), ("val_", 2.0)):
                if f"{prefix}{name}" in rows[0]:
                    scale = 100 if name == "accuracy" else 1
                    text = f"{label}, {'val' if prefix else 'train'}"
                    values = [scale * row[f"{prefix}{name}"] for row in rows]
                    axes.plot(
                        epochs, values, label=text, **{**line(i), "linewidth": width, "alpha": 1 if prefix else 0.6}
                    )
        axes.set(xlabel="Epoch", ylabel="Accuracy (%)" if name == "accuracy" else "Loss", title=name.capitalize())
        if name == "loss":
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
    legend_below(drawn, panels[0], 2)  # every model has a loss, not every one an accuracy
    return drawn
