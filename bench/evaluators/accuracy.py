"""Clean accuracy, overall and for each class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from ...attacks import Victim
from ...registry import GauntletError
from ...results.records import CellResult
from .base import Evaluator, Finished, examples_key, proportion, small

if TYPE_CHECKING:
    from torch import Tensor

    from ..context import RowContext
    from ..plan import Job, OODSet, Row
    from ..suite import Suite


class Accuracy(Evaluator):
    """Share of test images whose largest logit is that of their class."""

    name = "accuracy"
    version = 2  # arrays for confusion matrix, reliability and risk-coverage

    def plan(self, suite: Suite, row: Row, out_sets: Sequence[OODSet]) -> list[Job]:
        """One cell a row."""
        from ..plan import Job

        wanted = (*examples_key(suite), "jacobians") if suite.examples else ()
        return [Job(self.name, row, "accuracy", (self.cell(row, *wanted, facts={}, params={}),))]

    def run(self, job: Job, missing: frozenset[str], bench: RowContext) -> Iterator[Finished]:
        """Compare predictions with labels."""
        outputs = bench.outputs(job.row.dataset, "test")
        logits = checked_logits(outputs.logits, job.row.model.label)
        confidence, predictions = logits.softmax(1).max(1)
        right = predictions == outputs.labels
        measurements = [proportion("accuracy", int(right.sum()), len(right))]
        for index, name in enumerate(job.row.dataset.classes):
            members = outputs.labels == index
            if count := int(members.sum()):
                measurements.append(proportion("accuracy", int(right[members].sum()), count, name))
        arrays = {
            "prediction": small(predictions),
            "success": right.cpu().numpy(),
            "label": small(outputs.labels),
            "confidence": confidence.float().cpu().numpy(),
            "classes": np.array(job.row.dataset.classes),
        }
        examples = _examples(bench, job.row, logits, right)
        yield job.cells[0].key, CellResult(measurements=tuple(measurements), arrays=arrays, examples=examples)


def _examples(bench: RowContext, row: Row, logits: Tensor, right: Tensor) -> dict[str, np.ndarray]:
    """The misclassified images of highest confidence first, then right ones, with labels and logits."""
    count = bench.suite.examples
    if not count:
        return {}
    order = (logits.softmax(1).amax(1) + (~right).float() * 2).argsort(descending=True, stable=True)
    wrong = int((~right).sum())
    chosen = torch.cat([order[: min(count, wrong)], order[wrong : wrong + count]]).cpu()
    images = bench.images(row.dataset, "test").subset(chosen)
    return {
        "image": images.images.float().cpu().numpy(),
        "label": small(images.labels),
        "logits": logits[chosen.to(logits.device)].float().cpu().numpy(),
        **_jacobians(bench, row, count),
    }


def _jacobians(bench: RowContext, row: Row, count: int) -> dict[str, np.ndarray]:
    """Gradients of the loss at a few test images, the same ones for every model; nothing where none reaches them."""
    from ..device_images import drawn_positions

    whole = bench.images(row.dataset, "test")
    images = whole.subset(drawn_positions(len(whole), count, row.dataset.name, "jacobians"))
    x, y = images.images.to(bench.device), images.labels.to(bench.device)
    try:
        with Victim(bench.module(), device=bench.device, batch_size=bench.batch_size) as victim:
            gradient = victim.gradient(x, y)[0]
    except GauntletError:
        return {}
    kept = {"jacobian": gradient, "jacobian_image": x}
    return {name: value.float().cpu().numpy() for name, value in kept.items()} | {"jacobian_label": small(y)}


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
