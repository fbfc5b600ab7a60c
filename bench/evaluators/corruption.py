"""Accuracy, calibration and confidence on corrupted test images, and their means; images are corrupted as needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...datasets.corruptions import obstacle, severities
from ...registry import Obstacle, Selected, evaluator, source_fingerprint
from ...results.estimates import bootstrap_intervals, estimate
from ...results.intervals import mean_interval
from ...results.records import CellResult, Measurement, PlannedCell
from ...results.samples import Confidences, Scores, Values
from ..jobs import Finished, Job, ModelRow, OODSet
from ..kernels import calibration_metrics
from .accuracy import checked_logits
from .base import Evaluator, mean_of, proportion, run_derived, small

if TYPE_CHECKING:
    from ...datasets import ResolvedDataset
    from ..context import RowContext
    from ..model_specs import ModelSpec
    from ..suite import Suite


#: The label of the mean over all corruptions.
MEAN = "mean"

METRICS = ("accuracy", "ece", "mean_confidence", "auroc")


@evaluator(
    "corruption",
    title="Corruptions",
    order=80,
    needs="logits",
    needs_keys=("corruptions",),
    reads=("severities",),
    default_with=("corruptions",),
    metrics=METRICS,
    plots=("corruption-severity",),
)
class Corruption(Evaluator):
    """Classifies test images at every severity of every corruption.

    Accuracy, expected calibration error, mean confidence, and how well the largest probability tells the corrupted
    images from the clean ones (AUROC). A corruption with several severities gets their mean, and all corruptions a mean
    in which each counts alike (Hendrycks, Dietterich 2019, arXiv 1903.12261).
    """

    version = 2  # the AUROC's interval covers as promised

    def left_out(self, suite: Suite, model: ModelSpec, dataset: ResolvedDataset) -> Iterator[tuple[str, Obstacle]]:
        """Corruptions of images of another size or colour, or without any of the severities."""
        found = ((chosen.label, _obstacle(suite, chosen, dataset)) for chosen in suite.corruptions)
        yield from ((label, obstacle) for label, obstacle in found if obstacle)

    def plan(self, suite: Suite, row: ModelRow, out_sets: Sequence[OODSet]) -> Sequence[Job]:
        """One job a corruption, and one that averages them."""
        jobs = [
            CorruptionJob(evaluator=self.name, row=row, label=chosen.label, cells=cells, corruption=chosen)
            for chosen in suite.corruptions
            if not _obstacle(suite, chosen, row.dataset)
            for cells in [tuple(self._cell(row, chosen, level) for level in levels(suite, chosen))]
        ]
        return [*jobs, *self._means(row, jobs)]

    def _cell(self, row: ModelRow, chosen: Selected, severity: int) -> PlannedCell:
        parameters = {**chosen.entry.defaults(), **chosen.parameters}
        return self.cell(
            row,
            [chosen.entry.name, parameters, source_fingerprint(chosen.entry), severity],
            params={"corruption": _described(chosen)},
            corruption=chosen.label,
            severity=severity,
        )

    def _means(self, row: ModelRow, jobs: Sequence[CorruptionJob]) -> list[MeanJob]:
        parts = {job.label: tuple(cell.key for cell in job.cells) for job in jobs}
        groups = {label: {label: keys} for label, keys in parts.items() if len(keys) > 1}
        if len(parts) > 1:
            groups[MEAN] = parts
        described = {job.label: _described(job.corruption) for job in jobs}
        cells = {}
        for label, group in groups.items():
            marked = [described[part] for part in group if "stand_in" in described[part]]
            params: dict[str, Any] = {"mean": [*group], **({"corruption": marked[0]} if marked else {})}
            cells[label] = self.cell(row, "mean", list(group.items()), params=params, corruption=label, role="mean")
        if not cells:
            return []
        of = {cell.key: tuple(groups[label].values()) for label, cell in cells.items()}
        return [
            MeanJob(evaluator=self.name, row=row, label="means of corruptions", cells=tuple(cells.values()), parts=of)
        ]


@dataclass(frozen=True, kw_only=True)
class CorruptionJob(Job):
    """Corrupts, classifies and measures one severity after the other."""

    corruption: Selected

    def run(self, cells: Sequence[PlannedCell], context: RowContext) -> Iterator[Finished]:
        """One pass over the test images a severity."""
        row = self.row
        intact = context.outputs(row.dataset, "test")
        clean = intact.cached("confidence", lambda: _confidence(intact.logits, row.model.label)[0])
        for cell in cells:
            assert cell.identity.severity is not None
            changed = context.corrupted(row.dataset, self.corruption, cell.identity.severity)
            outputs = context.outputs_of(changed, frozenset({"logits"}))
            yield cell.key, _measure(outputs.logits, outputs.labels, clean, row.model.label)


@dataclass(frozen=True, kw_only=True)
class MeanJob(Job):
    """Means of stored cells: ``parts`` are, for each key, those of one corruption after the other."""

    parts: Mapping[str, Sequence[Sequence[str]]]

    def run(self, cells: Sequence[PlannedCell], context: RowContext) -> Iterator[Finished]:
        """Average what is stored."""
        flat = {key: [part for parts in groups for part in parts] for key, groups in self.parts.items()}
        return run_derived(flat, cells, context, self._join, "cells of this mean")

    def _join(self, cell: PlannedCell, results: Sequence[CellResult]) -> CellResult:
        left = iter(results)
        return _mean([[next(left) for _ in parts] for parts in self.parts[cell.key]])


def _described(chosen: Selected) -> dict[str, Any]:
    original = chosen.entry.meta.get("stand_in")  # what it stands in for, which tables say in a footnote
    facts = {"name": chosen.entry.name, **chosen.entry.defaults(), **chosen.parameters}
    return {**facts, "stand_in": original} if original else facts


def _obstacle(suite: Suite, chosen: Selected, dataset: ResolvedDataset) -> Obstacle:
    """Why a corruption has no cell on a dataset."""
    if reason := obstacle(chosen.entry, dataset.shape):
        return reason
    known = ", ".join(map(str, severities(chosen.entry)))
    return "" if levels(suite, chosen) else f"it has the severities {known}, none of the suite's"


def levels(suite: Suite, chosen: Selected) -> list[int]:
    """The severities that the suite wants; a corruption with a single one, like MNIST-C's, has that."""
    known = severities(chosen.entry)
    wanted = [level for level in known if not suite.severities or level in suite.severities]
    return wanted if len(known) > 1 else list(known)


def _confidence(logits: Any, model: str) -> tuple[np.ndarray, np.ndarray]:
    """Largest probability and prediction of each image."""
    confidence, predictions = checked_logits(logits, model).softmax(1).max(1)
    return confidence.double().cpu().numpy(), small(predictions)


def _measure(logits: Any, labels: Any, clean: np.ndarray, model: str) -> CellResult:
    confidence, predictions = _confidence(logits, model)
    right = predictions == small(labels)
    n, ece = len(right), calibration_metrics(logits, labels)["ece"]
    same = np.arange(n)  # clean and corrupted, in one order
    auroc = estimate(["auroc"], Scores(-clean, -confidence, images=(same, same)))["auroc"]
    measurements = (
        proportion("accuracy", int(right.sum()), n),
        Measurement("ece", ece, *bootstrap_intervals(Confidences(confidence, right), {"ece": ece})["ece"], n),
        Measurement("mean_confidence", *estimate(["mean_confidence"], Values(confidence))["mean_confidence"], n),
        Measurement("auroc", *auroc, len(clean) + n),
    )
    return CellResult(measurements=measurements, arrays={"prediction": predictions, "success": right})


def _mean(corruptions: Sequence[Sequence[CellResult]]) -> CellResult:
    """Each corruption counts alike, each of its severities too.

    The accuracy's interval is that of a mean over images, which all corruptions share.
    """

    def mean(metric: str) -> Measurement:
        return mean_of(metric, ([mean_of(metric, [part.measurements for part in parts])] for parts in corruptions))

    success = np.mean([np.mean([part.arrays["success"] for part in parts], axis=0) for parts in corruptions], axis=0)
    low, high = (min(max(end, 0.0), 1.0) for end in mean_interval(success))
    accuracy = replace(mean("accuracy"), ci_low=low, ci_high=high)
    return CellResult(measurements=(accuracy, *map(mean, METRICS[1:])))
