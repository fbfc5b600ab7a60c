"""Test images that a model or its detectors have seen are found by their content, whatever set they came from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ..datasets import ResolvedDataset
from ..registry import NotAvailable
from .context import RowContext

#: Share of a test set from which images that were seen before are refused; fewer are told.
_TOLERATED = 0.01


class Seen(NamedTuple):
    """A split that a model or its detectors know: what its images did, what to do about it, and if it is allowed."""

    dataset: ResolvedDataset
    split: str
    role: str
    cure: str
    allowed: bool

    def sentence(self, test: ResolvedDataset, count: int, size: int) -> str:
        """What was found."""
        return f"{count} of the {size} test images of {test.label} {self.role} ({self.dataset.label}, {self.split})"


def require_unseen(dataset: ResolvedDataset, context: RowContext) -> None:
    """To be called before figures on the test split of a set; what may stay is a remark on the cell.

    Raises:
        NotAvailable: Images of it trained the row's model, or fitted or tuned its detectors, and the suite does not say
            ``oracle: true``.
    """
    known = ("unseen", dataset.fingerprint("test"))
    for one, count, size in context.once(known, lambda: list(_common(dataset, context))):
        if count > _TOLERATED * size and not one.allowed:
            raise NotAvailable(f"{one.sentence(dataset, count, size)}: {one.cure}, or say `oracle: true`")
        context.remarks.append(f"{one.sentence(dataset, count, size)}.")


def _common(dataset: ResolvedDataset, context: RowContext) -> Iterator[tuple[Seen, int, int]]:
    for one in _seen(context):
        own = context.content_hashes(dataset, "test")
        count = int(np.isin(own, context.content_hashes(one.dataset, one.split)).sum())
        if count:
            yield one, count, len(own)


def _seen(context: RowContext) -> Iterator[Seen]:
    """The splits that trained a row's model, and that its detectors are fitted and tuned on."""
    row, suite = context.row, context.suite
    for dataset, split in row.exposed_to:
        cure = "name other outliers in its recipe, or leave this set out"
        yield Seen(dataset, split, f"trained {row.model.label}, as outliers", cure, suite.oracle)
    fitted = suite.tune is not None or any(one.entry.is_class for one in suite.detectors)
    for split in ("train", "val") if row.model.trains or fitted else ():
        if not row.dataset.obstacle(split):
            role = f"trained {row.model.label}" if row.model.trains else "fitted its detectors"
            yield Seen(row.dataset, split, role, "take them out of one of the two", suite.oracle)
    if suite.tune is not None and row.outliers is not None and not row.outliers.obstacle("test"):
        allowed = suite.oracle or suite.tune.oracle
        yield Seen(row.outliers, "test", "tuned its detectors", "tune on other outliers", allowed)
