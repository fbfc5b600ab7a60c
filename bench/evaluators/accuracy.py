"""Clean accuracy, overall and for each class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ...registry import GauntletError
from ...results.records import CellResult
from .base import Evaluator, Finished, proportion

if TYPE_CHECKING:
    from torch import Tensor

    from ..plan import Job, OODSet, Row
    from ..suite import Suite
    from ..workbench import Workbench


class Accuracy(Evaluator):
    """Share of test images whose largest logit is that of their class."""

    name = "accuracy"

    def plan(self, suite: Suite, row: Row, out_sets: Sequence[OODSet]) -> list[Job]:
        """One cell a row."""
        from ..plan import Job

        return [Job(self.name, row, "accuracy", (self.cell(row, facts={}, params={}),))]

    def run(self, job: Job, missing: frozenset[str], bench: Workbench) -> Iterator[Finished]:
        """Compare predictions with labels."""
        outputs = bench.outputs(job.row.dataset, "test")
        predictions = checked_logits(outputs.logits, job.row.model.label).argmax(1)
        right = predictions == outputs.labels
        measurements = [proportion("accuracy", int(right.sum()), len(right))]
        for index, name in enumerate(job.row.dataset.classes):
            members = outputs.labels == index
            if count := int(members.sum()):
                measurements.append(proportion("accuracy", int(right[members].sum()), count, name))
        arrays = {"prediction": predictions.cpu().numpy().astype("int16"), "success": right.cpu().numpy()}
        yield job.cells[0].key, CellResult(measurements=tuple(measurements), arrays=arrays)


def checked_logits(logits: Tensor | None, model: str) -> Tensor:
    """Logits that are there and finite.

    Raises:
        GauntletError: They are not; the message names the model.
    """
    if logits is None:
        raise GauntletError(f"Model {model!r} yields no logits.")
    bad = int((~logits.isfinite()).any(dim=1).sum())
    if bad:
        raise GauntletError(f"Model {model!r} gives logits that are not finite for {bad} of {len(logits)} images.")
    return logits
