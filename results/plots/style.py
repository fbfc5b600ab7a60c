"""How plots look: colour-blind safe, readable in print, the same bytes each time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

#: Okabe & Ito's palette, ordered so that neighbours differ in lightness too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#7F7F7F")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)), (0, (3, 3)))
MARKERS = "osD^vP*X"
ID, OOD = COLOURS[0], COLOURS[1]


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Matplotlib with our settings, whatever the user's are; no window is ever opened."""
    import matplotlib as mpl

    settings: Any = {
        "figure.dpi": 110,
        "savefig.dpi": 160,
        "savefig.bbox": "tight",
        "figure.constrained_layout.use": True,
        "font.family": "DejaVu Sans",
        "font.size": 9.5,
        "axes.titlesize": 10.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.25,
        "grid.linewidth": 0.6,
        "legend.frameon": False,
        "legend.fontsize": 8.5,
        "lines.linewidth": 1.7,
        "image.cmap": "cividis",
        "svg.hashsalt": "gauntlet",
        "svg.fonttype": "path",
        "text.parse_math": False,
        "text.usetex": False,
    }
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(settings)
        yield


def figure(width: float = 5.6, height: float = 4.0, rows: int = 1, columns: int = 1) -> tuple[Any, Any]:
    """A figure with axes (an array of them if there are several), not known to pyplot, so nothing leaks."""
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height))
    axes = made.subplots(rows, columns, squeeze=False)
    return made, axes[0, 0] if rows == columns == 1 else axes


def line(index: int) -> dict[str, Any]:
    """Colour, dashes and marker of the i-th line, so that colour is never the only difference."""
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": LINES[index % len(LINES)]}


def legend_below(drawn: Any, axes: Any, columns: int = 1) -> None:
    """The legend of ``axes`` under the whole figure, where it hides nothing however long the names are."""
    handles, names = axes.get_legend_handles_labels()
    if names:
        drawn.legend(handles, names, loc="outside lower center", ncols=columns)
