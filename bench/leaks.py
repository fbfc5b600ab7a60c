"""Test images that a model was trained on are found by their content, whatever set they came from."""

from __future__ import annotations

import numpy as np

from ..datasets import ResolvedDataset
from ..datasets.imageset import content_hashes
from ..registry import NotAvailable
from .context import RowContext
from .jobs import ModelRow
from .recipes import outlier_sets, parts

#: Share of a test set from which the images that it has in common with the training are more than chance.
_TOLERATED = 0.01


def require_unseen(dataset: ResolvedDataset, context: RowContext) -> None:
    """To be called before figures on the test split of an OOD set.

    Raises:
        NotAvailable: The row's model was trained on these images, as outliers.
    """
    seen = context.once("trained on", lambda: _trained_on(context.row))
    if not seen:
        return
    own = context.once(("content", dataset.fingerprint("test")), lambda: content_hashes(dataset.load("test")))
    for name, hashes in seen.items():
        count = int(np.isin(own, hashes).sum())
        if count > _TOLERATED * len(own):
            raise NotAvailable(
                f"{count} of the {len(own)} test images of {dataset.label} trained {context.row.model.label}, as "
                f"outliers ({name}): name other outliers in its recipe, or leave this set out"
            )


def _trained_on(row: ModelRow) -> dict[str, np.ndarray]:
    """Content hashes of the outliers in the training of a row's model, by set and split."""
    sets = [one for recipe in row.model.recipes for part in parts(recipe) for one in outlier_sets(part, row.dataset)]
    return {f"{dataset.label}, {split}": content_hashes(dataset.load(split)) for dataset, split in sets}
