"""Clean accuracy, overall and for each class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from ...attacks import Victim
from ...detectors.numerics import broken_logits
from ...registry import GauntletError, evaluator
from ...results.records import CellResult, PlannedCell
from ..device_images import drawn_positions
from ..jobs import Finished, Job, ModelRow, OODSet
from .base import Evaluator, examples_key, proportion, small

if TYPE_CHECKING:
    from torch import Tensor

    from ..context import RowContext
    from ..suite import Suite


@evaluator(
    "accuracy",
    title="Clean accuracy",
    order=10,
    needs="logits",
    reads=("examples",),
    default_with=(),
    metrics=("accuracy",),
    plots=("confusion", "risk-coverage", "misclassified", "logits", "jacobians"),
)
class Accuracy(Evaluator):
    """Share of test images whose largest logit is that of their class."""

    version = 2  # arrays for confusion matrix, reliability and risk-coverage

    def plan(self, suite: Suite, row: ModelRow, out_sets: Sequence[OODSet]) -> list[AccuracyJob]:
        """One cell a row."""
        wanted = (*examples_key(suite), "jacobians") if suite.examples else ()
        return [AccuracyJob(evaluator=self.name, row=row, label=self.name, cells=(self.cell(row, *wanted),))]


class AccuracyJob(Job):
    """Compares predictions with labels."""

    def run(self, cells: Sequence[PlannedCell], context: RowContext) -> Iterator[Finished]:
        """One pass over the test split."""
        outputs = context.outputs(self.row.dataset, "test")
        logits = checked_logits(outputs.logits, self.row.model.label)
        confidence, predictions = logits.softmax(1).max(1)
        right = predictions == outputs.labels
        measurements = [proportion("accuracy", int(right.sum()), len(right))]
        for index, name in enumerate(self.row.dataset.classes):
            members = outputs.labels == index
            if count := int(members.sum()):
                measurements.append(proportion("accuracy", int(right[members].sum()), count, name))
        arrays = {
            "prediction": small(predictions),
            "success": right.cpu().numpy(),
            "label": small(outputs.labels),
            "confidence": confidence.float().cpu().numpy(),
            "classes": np.array(self.row.dataset.classes),
        }
        examples = _examples(context, self.row, logits, right)
        yield cells[0].key, CellResult(measurements=tuple(measurements), arrays=arrays, examples=examples)


def _examples(context: RowContext, row: ModelRow, logits: Tensor, right: Tensor) -> dict[str, np.ndarray]:
    """The misclassified images of highest confidence first, then right ones, with labels and logits."""
    count = context.suite.examples
    if not count:
        return {}
    order = (logits.softmax(1).amax(1) + (~right).float() * 2).argsort(descending=True, stable=True)
    wrong = int((~right).sum())
    chosen = torch.cat([order[: min(count, wrong)], order[wrong : wrong + count]]).cpu()
    images = context.images(row.dataset, "test").subset(chosen)
    return {
        "image": images.images.float().cpu().numpy(),
        "label": small(images.labels),
        "logits": logits[chosen.to(logits.device)].float().cpu().numpy(),
        **_jacobians(context, row, count),
    }


def _jacobians(context: RowContext, row: ModelRow, count: int) -> dict[str, np.ndarray]:
    """Gradients of the loss at a few test images, the same ones for every model; nothing where none reaches them."""
    whole = context.images(row.dataset, "test")
    images = whole.subset(drawn_positions(len(whole), count, row.dataset.name, "jacobians"))
    x, y = images.images.to(context.device), images.labels.to(context.device)
    try:
        with Victim(context.module(), device=context.device, batch_size=context.batch_size) as victim:
            gradient = victim.gradient(x, y)[0]
    except GauntletError:
        return {}
    kept = {"jacobian": gradient, "jacobian_image": x}
    return {name: value.float().cpu().numpy() for name, value in kept.items()} | {"jacobian_label": small(y)}


def checked_logits(logits: Tensor | None, model: str) -> Tensor:
    """Logits (N, C) that are there and finite, or minus infinity for classes that are masked.

    Raises:
        GauntletError: They are not; the message names the model.
    """
    if logits is None:
        raise GauntletError(f"Model {model!r} yields no logits.")
    if bad := broken_logits(logits):
        raise GauntletError(f"Model {model!r} gives logits that are not finite for {bad} of {len(logits)} images.")
    return logits
