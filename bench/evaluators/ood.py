"""OOD detection: all detectors on all OOD sets from one forward pass a split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...registry import Obstacle, evaluator
from ...results.metrics import plugged_in
from ...results.metrics.detection import DETECTION
from ...results.records import CellResult, Measurement, PlannedCell
from ...results.roc_intervals import mean_auroc_interval
from ...results.samples import Scores
from ..guard import estimate
from ..jobs import Finished, ModelRow, OODSet
from ..leaks import require_unseen
from .base import mean_of, small
from .detector_plans import DETECTOR_KEYS, DetectorEvaluator, DetectorJob, DetectorPlan, Task, plan_detectors

if TYPE_CHECKING:
    from ...datasets import ResolvedDataset
    from ...detectors import Outputs
    from ..context import RowContext
    from ..fitted_detector import FittedDetector
    from ..suite import Suite

FULL_SPECTRUM = "full-spectrum"


@dataclass(frozen=True)
class OODTask(Task):
    """What one cell is about: one OOD set or the several of a group, and what counts as ID beside ID."""

    label: str
    group: str
    outside: tuple[OODSet, ...]
    shifted: tuple[OODSet, ...] = ()

    @property
    def role(self) -> str:
        """What the cell is among the others."""
        return "mean" if len(self.outside) > 1 else "measured" if self.shifted else self.outside[0].role

    @property
    def obstacle(self) -> Obstacle:
        """Why it cannot be computed here."""
        return next(filter(None, (part.obstacle for part in (*self.outside, *self.shifted))), "")


@evaluator(
    "ood",
    title="Out-of-distribution detection",
    order=30,
    needs_keys=("detectors", "ood"),
    reads=("shifted", *DETECTOR_KEYS),
    default_with=("detectors", "ood"),
    metrics=(*DETECTION, "oscr"),
    plots=("roc", "pr", "sorted-scores", "score-histogram", "class-scores", "auroc-grid"),
)
class OOD(DetectorEvaluator):
    """Separates test images from those of another dataset by each detector's score."""

    version = 4  # intervals that cover as promised
    statistics = ("ranking", "right")

    def plan(self, suite: Suite, row: ModelRow, out_sets: Sequence[OODSet]) -> list[OODJob]:
        """One job a row: detectors share the outputs, so they run together."""
        tasks = [task for plan in plan_detectors(suite, row) for task in _tasks(plan, out_sets)]
        return self.jobs(OODJob, row, self.name, [(self._cell(suite, row, task), task) for task in tasks])

    def _cell(self, suite: Suite, row: ModelRow, task: OODTask) -> PlannedCell:
        return self.cell(
            row,
            task.plan.content,
            [part.fingerprint for part in task.outside],
            [part.fingerprint for part in task.shifted],
            facts={"ood_group": task.group},
            params={
                **task.plan.params,
                "feature_dim": suite.feature_dim,
                "fit_limit": suite.fit_limit,
                "ood": _described(task.outside),
                **({"shifted": _described(task.shifted)} if task.shifted else task.outside[0].held_out),
            },
            detector=task.detector.label,
            ood_dataset=task.label,
            role=task.role,
        )


@dataclass(frozen=True, kw_only=True)
class OODJob(DetectorJob[OODTask]):
    """Scores each set once per detector."""

    def run(self, cells: Sequence[PlannedCell], context: RowContext) -> Iterator[Finished]:
        """Measure one cell after the other."""
        scorer = Scorer(self.row, context)
        return self.ask(cells, context, scorer.measure)


class Scorer:
    """Measures the cells of one row."""

    def __init__(self, row: ModelRow, context: RowContext) -> None:
        self._row, self._context = row, context
        self._inside = context.outputs(row.dataset, "test")
        self._labels = small(self._inside.labels)

    def measure(self, task: OODTask, detector: FittedDetector) -> CellResult:
        """The metrics of a cell, a mean over sets where it has several, and the hyper-parameters that were chosen."""
        scores, correct = detector.scores(self._inside), _correct(self._inside)
        for part in task.shifted:
            more, right = self._side(part.dataset, detector)
            scores = np.concatenate([scores, more])
            correct = None if correct is None or right is None else np.concatenate([correct, right])
        outside = [self._side(part.dataset, detector)[0] for part in task.outside]
        single, numbers = len(outside) == 1, self._numbers(task, len(outside[0]))
        result = measure(scores, outside[0], correct, numbers) if single else _mean(scores, outside, correct)
        if result.arrays:
            unknown = np.full(len(scores) - len(self._labels), -1, dtype=self._labels.dtype)
            result = replace(result, arrays={**result.arrays, "id_label": np.concatenate([self._labels, unknown])})
        chosen = tuple(Measurement(f"tuned_{name}", float(value)) for name, value in detector.choices.items())
        return replace(result, measurements=(*result.measurements, *chosen))

    def _numbers(self, task: OODTask, outside: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Which image each score is of, where shifted images are versions of the clean ones; None where all differ."""
        own = self._row.dataset
        if not any(part.dataset.name == own.name for part in task.shifted):
            return None
        parts = [self._context.images(own, "test").indices.cpu().numpy()]
        for part in task.shifted:
            numbers = self._context.images(part.dataset, "test").indices.cpu().numpy()
            others = max(map(np.max, parts)) + 1 + numbers
            parts.append(numbers if part.dataset.name == own.name else others)
        inside = np.concatenate(parts)
        return inside, inside.max() + 1 + np.arange(outside)

    def _side(self, dataset: ResolvedDataset, detector: FittedDetector) -> tuple[np.ndarray, np.ndarray | None]:
        require_unseen(dataset, self._context)
        outputs = self._context.outputs(dataset, "test")
        same = dataset.classes == self._row.dataset.classes
        return detector.scores(outputs), _correct(outputs) if same else None


def measure(
    inside: np.ndarray,
    outside: np.ndarray,
    correct: np.ndarray | None,
    images: tuple[np.ndarray, np.ndarray] | None = None,
    evaluator: str = "ood",
) -> CellResult:
    """All metrics of scores of ID and OOD images; the OSCR where it is known which ID images are classified right.

    Where several scores may be of one image, ``images`` says which image each of both sides is of.
    """
    sample = Scores(inside, outside, correct, images)
    oscr = ("oscr",) if correct is not None else ()
    added = [entry.name for entry in plugged_in(evaluator, sample.kinds)]
    n = len(inside) + len(outside)
    found = estimate((*DETECTION, *oscr, *added), sample)
    measurements = tuple(Measurement(name, *estimate, n) for name, estimate in found.items())
    numbered = {} if images is None else dict(zip(("id_image", "ood_image"), images, strict=True))
    return CellResult(measurements=measurements, arrays={"id_score": inside, "ood_score": outside, **numbered})


def _mean(inside: np.ndarray, sides: Sequence[np.ndarray], correct: np.ndarray | None) -> CellResult:
    """Unweighted means over OOD sets.

    The AUROC's interval knows that all sets share the ID images.
    """
    tables = [measure(inside, side, correct).measurements for side in sides]
    low, high = mean_auroc_interval(inside, sides)
    n = len(inside) + sum(map(len, sides))
    means = [replace(mean_of(item.metric, tables), n=n) for item in tables[0]]
    return CellResult(
        measurements=tuple(
            replace(item, ci_low=low, ci_high=high) if item.metric == "auroc" else item for item in means
        )
    )


def _tasks(plan: DetectorPlan, out_sets: Sequence[OODSet]) -> Iterator[OODTask]:
    """One set after the other, the mean of each named group of several, and the same with shifted ID images."""
    shifted = tuple(part for part in out_sets if part.shifted)
    outside = [part for part in out_sets if not part.shifted]
    groups: dict[str, list[OODSet]] = {}
    for part in outside:
        groups.setdefault(part.group, []).append(part)
    plain = [OODTask(plan, part.dataset.label, part.group, (part,)) for part in outside]
    plain += [
        OODTask(plan, f"{group} mean", group, tuple(parts))
        for group, parts in groups.items()
        if group and len(parts) > 1
    ]
    yield from plain
    if shifted:
        for task in plain:
            group = f"{task.group} {FULL_SPECTRUM}".strip()
            yield replace(task, label=f"{task.label} ({FULL_SPECTRUM})", group=group, shifted=shifted)


def _described(parts: Sequence[OODSet]) -> Mapping[str, Any] | list[Mapping[str, Any]]:
    facts: list[Mapping[str, Any]] = [part.dataset.describe() for part in parts]
    return facts[0] if len(facts) == 1 else facts


def _correct(outputs: Outputs) -> np.ndarray | None:
    if outputs.logits is None:
        return None
    return np.asarray((outputs.logits.argmax(dim=1) == outputs.labels).cpu())
