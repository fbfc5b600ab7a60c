"""Accuracy, calibration and confidence on corrupted test images, and their means; images are corrupted as needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...datasets.corruptions import misfit, severities
from ...registry import Selected, source_fingerprint
from ...results.estimates import bootstrap_intervals, estimate
from ...results.intervals import mean_interval
from ...results.records import CellResult, Measurement, PlannedCell
from ...results.samples import Confidences, Scores, Values
from .accuracy import checked_logits
from .base import Evaluator, Finished, proportion, small

if TYPE_CHECKING:
    from ...datasets import ResolvedDataset
    from ..context import RowContext
    from ..model_specs import ModelSpec
    from ..plan import Job, OODSet, Row
    from ..suite import Suite


#: The label of the mean over all corruptions.
MEAN = "mean"


class Corruption(Evaluator):
    """Classifies test images at every severity of every corruption.

    Accuracy, expected calibration error, mean confidence, and how well the largest probability tells the corrupted
    images from the clean ones (AUROC). A corruption with several severities gets their mean, and all corruptions a mean
    in which each counts alike (Hendrycks, Dietterich 2019, arXiv 1903.12261).
    """

    name = "corruption"

    def misfits(self, suite: Suite, model: ModelSpec, dataset: ResolvedDataset) -> Iterator[tuple[str, str]]:
        """Corruptions of images of another size or colour, or without any of the severities."""
        yield from super().misfits(suite, model, dataset)
        for chosen in suite.corruptions:
            if reason := _why_not(suite, chosen, dataset):
                yield chosen.label, reason

    def plan(self, suite: Suite, row: Row, out_sets: Sequence[OODSet]) -> list[Job]:
        """One job a corruption, and one that averages them."""
        from ..plan import Job

        jobs, parts = [], {}
        for chosen in suite.corruptions:
            if _why_not(suite, chosen, row.dataset):
                continue
            levels = _levels(suite, chosen)
            cells = tuple(self._cell(row, chosen, level) for level in levels)
            keys = tuple(cell.key for cell in cells)
            payload = {"chosen": chosen, "levels": dict(zip(keys, levels, strict=True))}
            jobs.append(Job(self.name, row, chosen.label, cells, payload))
            parts[chosen.label] = keys
        return [*jobs, *self._means(suite, row, parts)]

    def _cell(self, row: Row, chosen: Selected, severity: int) -> PlannedCell:
        parameters = {**chosen.entry.defaults(), **chosen.parameters}
        return self.cell(
            row,
            [chosen.entry.name, parameters, source_fingerprint(chosen.entry), severity],
            facts={},
            params={"corruption": _described(chosen)},
            corruption=chosen.label,
            severity=severity,
        )

    def _means(self, suite: Suite, row: Row, parts: dict[str, tuple[str, ...]]) -> list[Job]:
        from ..plan import Job

        groups = {label: {label: keys} for label, keys in parts.items() if len(keys) > 1}
        if len(parts) > 1:
            groups[MEAN] = parts
        described = {chosen.label: _described(chosen) for chosen in suite.corruptions}
        cells = {}
        for label, group in groups.items():
            marked = [described[part] for part in group if "stand_in" in described[part]]
            params: dict[str, Any] = {"mean": [*group], **({"corruption": marked[0]} if marked else {})}
            content = list(group.items())
            cells[label] = self.cell(row, "mean", content, facts={}, params=params, corruption=label, role="mean")
        payload = {cell.key: groups[label] for label, cell in cells.items()}
        return (
            [Job(self.name, row, "means of corruptions", tuple(cells.values()), {"groups": payload})] if cells else []
        )

    def run(self, job: Job, missing: frozenset[str], bench: RowContext) -> Iterator[Finished]:
        """Corrupt, classify and measure one severity after the other; means come from what is stored."""
        if "groups" in job.payload:
            yield from _run_means(job, missing, bench)
            return
        row, chosen = job.row, job.payload["chosen"]
        intact = bench.outputs(row.dataset, "test")
        clean = intact.cached("confidence", lambda: _confidence(intact.logits, row.model.label)[0])
        for key, severity in job.payload["levels"].items():
            if key in missing:
                changed = bench.corrupted(row.dataset, chosen, severity)
                outputs = bench.outputs_of(changed, frozenset({"logits"}))
                yield key, _measure(outputs.logits, outputs.labels, clean, row.model.label)


def _described(chosen: Selected) -> dict[str, Any]:
    original = chosen.entry.meta.get("stand_in")  # what it stands in for, which tables say in a footnote
    facts = {"name": chosen.entry.name, **chosen.entry.defaults(), **chosen.parameters}
    return {**facts, "stand_in": original} if original else facts


def _why_not(suite: Suite, chosen: Selected, dataset: ResolvedDataset) -> str:
    """Why a corruption has no cell on a dataset, or nothing."""
    if reason := misfit(chosen.entry, dataset.shape):
        return reason
    known = ", ".join(map(str, severities(chosen.entry)))
    return "" if _levels(suite, chosen) else f"it has the severities {known}, none of the suite's"


def _levels(suite: Suite, chosen: Selected) -> list[int]:
    """The severities that the suite wants; a corruption with a single one, like MNIST-C's, has that."""
    known = severities(chosen.entry)
    wanted = [level for level in known if not suite.severities or level in suite.severities]
    return wanted if len(known) > 1 else list(known)


def _confidence(logits: Any, model: str) -> tuple[np.ndarray, np.ndarray]:
    """Largest probability and prediction of each image."""
    confidence, predictions = checked_logits(logits, model).softmax(1).max(1)
    return confidence.double().cpu().numpy(), small(predictions)


def _measure(logits: Any, labels: Any, clean: np.ndarray, model: str) -> CellResult:
    from ..kernels import calibration_metrics

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


def _run_means(job: Job, missing: frozenset[str], bench: RowContext) -> Iterator[Finished]:
    for key, groups in job.payload["groups"].items():
        if key not in missing:
            continue
        results = {label: [bench.stored(part) for part in parts] for label, parts in groups.items()}
        absent = sum(result is None or result.status != "ok" for parts in results.values() for result in parts)
        if absent:
            planned = sum(map(len, groups.values()))
            yield (
                key,
                CellResult(status="skipped", reason=f"{absent} of the {planned} cells of this mean have no result."),
            )
        else:
            yield key, _mean([[part for part in parts if part is not None] for parts in results.values()])


def _mean(corruptions: list[list[CellResult]]) -> CellResult:
    """Each corruption counts alike, each of its severities too.

    The accuracy's interval is that of a mean over images, which all corruptions share; that of every other metric is
    the mean of both ends, which is never too narrow.
    """
    found = []
    for metric in ("accuracy", "ece", "mean_confidence", "auroc"):
        values = np.array([np.mean([_values(part, metric) for part in parts], axis=0) for parts in corruptions])
        value, low, high, n = values.mean(axis=0).tolist()
        if metric == "accuracy":
            success = np.mean([np.mean([part.arrays["success"] for part in parts], axis=0) for parts in corruptions], 0)
            low, high = (min(max(end, 0.0), 1.0) for end in mean_interval(success))
        found.append(Measurement(metric, value, low, high, round(n)))
    return CellResult(measurements=tuple(found))


def _values(result: CellResult, metric: str) -> list[float]:
    """Value, both ends of the interval, and the number of images."""
    measured = next(item for item in result.measurements if item.metric == metric)
    return [
        np.nan if part is None else part for part in (measured.value, measured.ci_low, measured.ci_high, measured.n)
    ]
