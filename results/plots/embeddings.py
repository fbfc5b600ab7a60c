"""Embeddings as pictures: nearest neighbours, and a map in two dimensions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...registry import GauntletError
from .examples import class_name, picture
from .kinds import Material, few, labels, plot
from .style import COLOURS, figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MARKERS = "osD^vP*X"


@plot("neighbours")
def neighbours(material: Material) -> Figure:
    """Test images (left) with the other test images nearest by embedding, cosine and class above each."""
    found = few(list(material.examples("representation", "query", "neighbour", "similarity")), "models", 6)
    rows, nearest = sum(len(kept["query"]) for _, kept in found), found[0][1]["neighbour"].shape[1]
    drawn, grid = figure(1.2 * (nearest + 1) + 0.8, 1.42 * rows + 0.5, rows, nearest + 1)
    names = labels([cell for cell, _ in found]) if len(found) > 1 else [""]
    row = 0
    for (cell, kept), name in zip(found, names, strict=True):
        classes = [str(text) for text in material.store.arrays(cell["key"]).get("classes", ())]
        for i, query in enumerate(kept["query"]):
            truth = int(kept["query_label"][i])
            picture(grid[row, 0], query, f"query: {class_name(classes, truth)}", "bold")
            if i == 0:
                grid[row, 0].set_ylabel(name, fontsize=8)
            for j in range(nearest):
                label, cosine = int(kept["neighbour_label"][i, j]), float(kept["similarity"][i, j])
                title = f"{class_name(classes, label)}, {cosine:.3f}" if np.isfinite(cosine) else "none left"
                picture(grid[row, j + 1], kept["neighbour"][i, j], title)
                grid[row, j + 1].title.set_color("black" if label == truth else COLOURS[1])
            row += 1
    only = f" of {found[0][0]['model']}" if len(found) == 1 else ""
    drawn.suptitle(f"Nearest other test images by embedding{only}, {found[0][0]['dataset']}: class, cosine")
    return drawn


@plot("embedding-map")
def embedding_map(material: Material) -> Figure:
    """t-SNE of the embeddings of test images, one panel a model, coloured by class.

    Raises:
        GauntletError: There are fewer than four images.
    """
    from sklearn.manifold import TSNE

    found = few(list(material.cells("representation", "map", "map_label")), "models", 6)
    columns = min(3, len(found))
    rows = -(-len(found) // columns)
    drawn, grid = figure(3.6 * columns, 3.5 * rows + 0.5, rows, columns)
    flat = np.atleast_1d(np.asarray(grid, dtype=object)).ravel()
    classes = [str(text) for text in found[0][1].get("classes", ())]
    for axes, (_, arrays), name in zip(flat, found, labels([cell for cell, _ in found]), strict=False):
        points, label = arrays["map"], arrays["map_label"]
        if len(points) < 4:
            raise GauntletError(f"A map needs at least four images, and {name!r} has {len(points)}.")
        perplexity = min(30.0, (len(points) - 1) / 3)
        places = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(points)
        for number in range(int(label.max()) + 1):
            chosen = label == number
            look = {"color": COLOURS[number % len(COLOURS)], "marker": _MARKERS[(number // len(COLOURS)) % 8]}
            axes.scatter(*places[chosen].T, s=9, linewidths=0, alpha=0.8, label=class_name(classes, number), **look)
        axes.set(title=name, xticks=[], yticks=[])
        axes.grid(False)
    for axes in flat[len(found) :]:
        axes.set_visible(False)
    handles, names = flat[0].get_legend_handles_labels()
    drawn.legend(handles, names, loc="outside lower center", ncols=min(10, len(names)), markerscale=2)
    drawn.suptitle(f"t-SNE of embeddings, {found[0][0]['dataset']}")
    return drawn
