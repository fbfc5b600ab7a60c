"""Error detection: how well any detector's score tells wrong answers from right ones, also beside OOD images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...registry import Obstacle, evaluator
from ...results.metrics import plugged_in
from ...results.metrics.selective import RANKED, SELECTIVE
from ...results.records import CellResult, Measurement, PlannedCell
from ...results.samples import Scores
from ...results.selective import Selective
from ..guard import estimate
from ..jobs import Finished, ModelRow, OODSet
from ..leaks import require_unseen
from .accuracy import checked_logits
from .attack_plans import AttackingJob
from .base import proportion
from .conditions import CLEAN, Condition, attack_facts, conditions
from .detector_plans import DETECTOR_KEYS, DetectorEvaluator, DetectorJob, Task, plan_detectors

if TYPE_CHECKING:
    from ...detectors import Outputs
    from ..context import RowContext
    from ..fitted_detector import FittedDetector
    from ..suite import Suite


@dataclass(frozen=True)
class ErrorTask(Task):
    """What one cell is about: test images in a condition, and the OOD images that come with them, if any do."""

    condition: Condition
    outside: OODSet | None = None

    @property
    def obstacle(self) -> Obstacle:
        """Why the images are not here."""
        return self.condition.obstacle or ("" if self.outside is None else self.outside.obstacle)


@evaluator(
    "misclassification",
    title="Error detection",
    order=35,
    needs="logits",
    needs_keys=("detectors",),
    reads=("ood", "costs", "cross", *DETECTOR_KEYS),
    crosses=("corruptions", "attacks"),
    metrics=("accuracy", *RANKED, *SELECTIVE, "scod_aurc"),
    plots=("error-detection",),
)
class Misclassification(DetectorEvaluator):
    """Tells wrong answers (positive, higher scores) from right ones by each detector's score.

    Beside test images as they are, those that ``cross`` names: ``[misclassification, corruptions]`` and
    ``[misclassification, attacks]``, where wrong answers of before the attack count, too. With OOD sets, also errors
    and OOD images together (SCOD): ``costs: {error: 1, ood: 1}`` says what answering each of them costs.
    """

    statistics = ("ranking", "selection")

    def plan(self, suite: Suite, row: ModelRow, out_sets: Sequence[OODSet]) -> list[DetectorJob[ErrorTask]]:
        """One job for all images that are not attacked, and one an attack."""
        jobs: list[DetectorJob[ErrorTask]] = []
        for found in conditions(suite, row, self.name):
            attack = found[0].attack
            tasks = list(_tasks(suite, row, found, out_sets if attack is None else ()))
            pairs = [(self._cell(suite, row, task), task) for task in tasks]
            if attack is None:
                jobs += self.jobs(ErrorJob, row, self.name, pairs)
            else:
                jobs += self.jobs(AttackedErrorJob, row, attack.attack.label, pairs, **attack_facts(attack))
        return jobs

    def _cell(self, suite: Suite, row: ModelRow, task: ErrorTask) -> PlannedCell:
        condition, outside = task.condition, task.outside
        content: list[Any] = [task.plan.content, condition.content]
        params, where = {**task.plan.params, **condition.params}, {**condition.where}
        facts = {**condition.facts}
        if outside is not None:
            costs = _costs(suite)
            content += [outside.fingerprint, costs]
            params |= {"ood": outside.dataset.describe(), "costs": costs, **outside.held_out}
            where |= {"ood_dataset": outside.dataset.label, "role": outside.role}
            facts["ood_group"] = outside.group
        return self.cell(row, *content, facts=facts, params=params, detector=task.detector.label, **where)


def _costs(suite: Suite) -> dict[str, float]:
    return {"error": suite.costs.get("error", 1.0), "ood": suite.costs.get("ood", 1.0)}


def _tasks(suite: Suite, row: ModelRow, found: Sequence[Condition], out_sets: Sequence[OODSet]) -> Iterator[ErrorTask]:
    """All detectors in one condition after the other, then beside one OOD set after the other."""
    plans = plan_detectors(suite, row)
    yield from (ErrorTask(plan, condition) for condition in found for plan in plans)
    outside = [part for part in out_sets if not part.shifted]
    yield from (ErrorTask(plan, CLEAN, part) for part in outside for plan in plans)


@dataclass(frozen=True, kw_only=True)
class ErrorJob(DetectorJob[ErrorTask]):
    """Scores test images in each condition, for all detectors at once."""

    def run(self, cells: Sequence[PlannedCell], context: RowContext) -> Iterator[Finished]:
        """Measure one cell after the other."""
        return self.ask(cells, context, _Measured(self, cells, context).cell)


@dataclass(frozen=True, kw_only=True)
class AttackedErrorJob(ErrorJob, AttackingJob):
    """The same of images that an attack made."""


class _Measured:
    """Measures the cells of one job; the outputs of one condition at a time are kept."""

    def __init__(self, job: ErrorJob, cells: Sequence[PlannedCell], context: RowContext) -> None:
        self._job, self._context, self._needs = job, context, frozenset(job.needs(cells))
        self._kept: tuple[Condition, Outputs] | None = None

    def _outputs(self, condition: Condition) -> Outputs:
        if self._kept is None or self._kept[0] is not condition:
            self._kept = condition, condition.outputs(self._job, self._context, self._needs)
        return self._kept[1]

    def cell(self, task: ErrorTask, detector: FittedDetector) -> CellResult:
        """The metrics of one cell."""
        outputs = self._outputs(task.condition)
        right = _right(outputs, self._job.row.model.label)
        scores = detector.scores(outputs)
        if task.outside is None:
            return measure(scores, right, self._job.row.model.label)
        require_unseen(task.outside.dataset, self._context)
        outside = detector.scores(self._context.outputs(task.outside.dataset, "test"))
        return measure_with_ood(scores, right, outside, **_costs(self._context.suite))


def _right(outputs: Outputs, model: str) -> np.ndarray:
    logits = checked_logits(outputs.logits, model)
    return np.asarray((logits.argmax(1) == outputs.labels).cpu())


def measure(scores: np.ndarray, right: np.ndarray, model: str = "the model") -> CellResult:
    """Metrics of scores (N,), higher where the answer is less certain, and of which answers (N,) are right.

    Where all answers are right, or all are wrong, what ranks them is undefined; the reason says so.
    """
    n, wrong = len(scores), int((~right).sum())
    selective = Selective(scores, ~right)
    added = [entry.name for entry in plugged_in("misclassification", ("ranking", "selection"))]
    found = estimate((*SELECTIVE, *(name for name in added if name in _of(selective))), selective)
    reason = ""
    if 0 < wrong < n:
        ranked = Scores(scores[right], scores[~right])
        found |= estimate((*RANKED, *(name for name in added if name in _of(ranked))), ranked)
    else:
        outcome = "right" if wrong == 0 else "wrong"
        reason = f"AUROC, AUPR and FPR95 are undefined: {model} gets all {n} images {outcome}."
    if wrong == 1:
        reason = f"AUROC, AUPR and FPR95 rest on the only error that {model} makes on {n} images."
    names = (name for name in (*RANKED, *SELECTIVE, *added) if name in found)
    measurements = (
        proportion("accuracy", n - wrong, n),
        *(Measurement(name, *found[name], n) for name in names),
    )
    return CellResult(
        measurements=measurements, reason=reason, arrays={"score": scores, "loss": (~right).astype("float32")}
    )


def _of(sample: Selective | Scores) -> list[str]:
    return [entry.name for entry in plugged_in("misclassification", sample.kinds)]


def measure_with_ood(
    scores: np.ndarray, right: np.ndarray, outside: np.ndarray, *, error: float, ood: float
) -> CellResult:
    """Right answers against errors and OOD images together; answering one of these costs ``error`` or ``ood``."""
    loss = np.concatenate([np.where(right, 0.0, error), np.full(len(outside), ood)])
    together = np.concatenate([scores, outside])
    found = estimate(["scod_aurc"], Selective(together, loss))
    reason = ""
    if right.any():
        ranked = Scores(scores[right], np.concatenate([scores[~right], outside]))
        found |= estimate(["auroc", "fpr95"], ranked)
    else:
        reason = "AUROC and FPR95 are undefined: no answer is right."
    measurements = tuple(Measurement(name, *estimated, len(loss)) for name, estimated in found.items())
    return CellResult(measurements=measurements, reason=reason, arrays={"score": together, "loss": loss})
