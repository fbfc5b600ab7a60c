"""Open-set recognition: every image is one of the known classes or OOD, by a detector's own decision or a threshold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ...detectors import Detector
from ...registry import GauntletError, NotAvailable, Obstacle, Selected, evaluator
from ...results.curves import confusion
from ...results.intervals import median_interval
from ...results.records import CellResult, Measurement, PlannedCell
from ..fitted_detector import ask
from ..jobs import Finished, ModelRow, OODSet
from ..leaks import require_unseen
from .accuracy import checked_logits
from .base import examples_key, proportion
from .detector_plans import DETECTOR_KEYS, DetectorEvaluator, DetectorJob, Task, plan_detectors

if TYPE_CHECKING:
    from ...detectors import Outputs
    from ..context import RowContext
    from ..fitted_detector import FittedDetector
    from ..suite import Suite

#: Generated images that are kept where the suite asks for examples.
GENERATED = 64


@dataclass(frozen=True)
class OpenSetTask(Task):
    """What one cell is about: an OOD set, and the false alarm rate of the threshold.

    ``rate`` is None where the detector decides itself.
    """

    outside: OODSet
    rate: float | None

    @property
    def obstacle(self) -> Obstacle:
        """Why the OOD images are not here."""
        return self.outside.obstacle

    @property
    def label(self) -> str:
        """The detector's label, with the rate."""
        return self.detector.label if self.rate is None else f"{self.detector.label} at {100 * self.rate:g} %"


@evaluator(
    "open-set",
    title="Open-set recognition",
    order=40,
    needs="logits",
    needs_keys=("detectors", "ood"),
    reads=("false_alarm_rates", "examples", *DETECTOR_KEYS),
    metrics=(
        *("open_accuracy", "open_accuracy_id", "ood_rejected", "false_alarm_rate"),
        *("median_score", "median_h", "median_max_2_max"),
    ),
    plots=("open-set-confusion", "open-set-scores", "open-set-probabilities", "generated"),
)
class OpenSet(DetectorEvaluator):
    """Classifies the images of the test split and of an OOD set into the known classes and OOD.

    A detector that predicts is taken at its word. Every detector also gets a threshold: the quantile of its scores on
    ID validation images that flags at most the suite's ``false_alarm_rates`` of them; what is not flagged has the
    class of the largest logit.
    """

    version = 2  # thresholds flag all that the rate allows

    def plan(self, suite: Suite, row: ModelRow, out_sets: Sequence[OODSet]) -> list[OpenSetJob]:
        """One job a row: a cell for each detector, OOD set and way to decide."""
        tasks = [
            OpenSetTask(plan, part, rate)
            for plan in plan_detectors(suite, row)
            for rate in (*([None] if _decides(plan.detector) else []), *suite.false_alarm_rates)
            for part in out_sets
            if not part.shifted
        ]
        pairs = [(self._cell(suite, row, task, first=not place), task) for place, task in enumerate(tasks)]
        return self.jobs(OpenSetJob, row, self.name, pairs)

    def _cell(self, suite: Suite, row: ModelRow, task: OpenSetTask, *, first: bool) -> PlannedCell:
        dataset, decision = task.outside.dataset, {"false_alarm_rate": task.rate}
        return self.cell(
            row,
            task.plan.content,
            task.outside.fingerprint,
            [task.rate] if row.obstacle or row.dataset.obstacle("val") else [task.rate, row.dataset.fingerprint("val")],
            *(examples_key(suite) if first else ()),
            facts={"ood_group": task.outside.group},
            params={
                **task.plan.params,
                "decision": "own" if task.rate is None else decision,
                "ood": dataset.describe(),
                **task.outside.held_out,
            },
            detector=task.label,
            ood_dataset=dataset.label,
            role=task.outside.role,
        )


@dataclass(frozen=True, kw_only=True)
class OpenSetJob(DetectorJob[OpenSetTask]):
    """Asks each detector once about each set."""

    def needs(self, cells: Sequence[PlannedCell]) -> set[str]:
        """What the detectors of these cells read, and ``h`` of models that have it."""
        return super().needs(cells) | ({"output:h"} if "h" in self.row.model.outputs else set())

    def run(self, cells: Sequence[PlannedCell], context: RowContext) -> Iterator[Finished]:
        """Judge one cell after the other; the first one keeps generated images."""
        for key, result in self.ask(cells, context, _Judge(self.row, context).measure):
            if key == self.cells[0].key and result.status == "ok":
                result = replace(result, examples=_generated(context, self.row))
            yield key, result


@dataclass(frozen=True)
class _Answer:
    """What model and detector say of N images; ``decided`` and ``probabilities`` where the detector has its own."""

    score: np.ndarray
    predicted: np.ndarray
    decided: np.ndarray | None
    probabilities: np.ndarray | None
    h: np.ndarray | None


class _Judge:
    """Asks detectors about the images of one row; outputs keep the answers."""

    def __init__(self, row: ModelRow, context: RowContext) -> None:
        self._row, self._context = row, context
        self._inside = context.outputs(row.dataset, "test")

    def measure(self, task: OpenSetTask, detector: FittedDetector) -> CellResult:
        """The metrics of a cell, and the arrays behind them."""
        sets = (self._row.dataset, task.outside.dataset)
        require_unseen(task.outside.dataset, self._context)
        inside, outside = (self._answer(self._context.outputs(one, "test"), detector) for one in sets)
        labels = self._inside.labels.cpu().numpy()
        label = np.concatenate([labels, np.full(len(outside.score), -1)])
        known = np.arange(len(label)) < len(labels)
        names = [*self._row.dataset.classes, f"{task.outside.dataset.label} (OOD)"]
        parts = [self._decide(one, task, detector) for one in (inside, outside)]
        prediction = np.concatenate(parts)
        columns = {"score": _both(inside.score, outside.score)}
        if task.rate is None:
            columns |= {
                "h": _both(inside.h, outside.h),
                "probabilities": _both(inside.probabilities, outside.probabilities),
            }
        columns = {name: values for name, values in columns.items() if values is not None}
        if "probabilities" in columns:
            top = np.sort(columns["probabilities"], axis=1)
            columns["max_2_max"] = top[:, -1] - top[:, -2]
        measurements = [*_shares(label, prediction, known, names), *_medians(columns, label, names)]
        last = len(names) - 1
        arrays = {
            "label": label.astype("int16"),
            "prediction": prediction.astype("int16"),
            "classes": np.array(names),
            "confusion": confusion(
                np.where(label < 0, last, label), np.where(prediction < 0, last, prediction), last + 1
            ),
            **columns,
        }
        return CellResult(measurements=tuple(measurements), arrays=arrays)

    def _decide(self, answer: _Answer, task: OpenSetTask, detector: FittedDetector) -> np.ndarray:
        if task.rate is None:
            if answer.decided is None:
                raise GauntletError(f"Detector {task.detector.label!r} has a predict that gave nothing.")
            return answer.decided
        if reason := self._row.dataset.obstacle("val"):
            raise NotAvailable(f"{task.label} has no validation images for its threshold: {reason}")
        val = self._context.outputs(self._row.dataset, "val")
        return np.where(answer.score > threshold(detector.scores(val), task.rate), -1, answer.predicted)

    def _answer(self, outputs: Outputs, fitted: FittedDetector) -> _Answer:
        logits, detector = checked_logits(outputs.logits, self._row.model.label), fitted.detector
        seen = outputs.restricted_to(detector.needs)
        return outputs.cached(
            ("answer", fitted),
            lambda: _Answer(
                score=fitted.scores(outputs),
                predicted=logits.argmax(1).cpu().numpy(),
                decided=_array(ask(detector, "predict", seen, detector.name)),
                probabilities=_array(ask(detector, "probabilities", seen, detector.name)),
                h=_array(outputs.named.get("h")),
            ),
        )


def threshold(scores: np.ndarray, rate: float) -> float:
    """The smallest of the scores that at most a share ``rate`` of them exceeds; an image above it is flagged."""
    allowed = int(len(scores) * rate + 1e-9)  # 0.29 * 100 is 28.999999999999996
    return float(np.sort(scores)[max(len(scores) - 1 - allowed, 0)])


def _shares(
    label: np.ndarray, prediction: np.ndarray, known: np.ndarray, names: Sequence[str]
) -> Iterator[Measurement]:
    right, flagged = prediction == label, prediction < 0
    yield proportion("open_accuracy", int(right.sum()), len(label))
    for number, name in enumerate(names):
        members = ~known if number == len(names) - 1 else known & (label == number)
        if count := int(members.sum()):
            yield proportion("open_accuracy", int(right[members].sum()), count, name)
    inside, outside = int(known.sum()), int((~known).sum())
    yield proportion("open_accuracy_id", int(right[known].sum()), inside)
    yield proportion("ood_rejected", int(flagged[~known].sum()), outside)
    yield proportion("false_alarm_rate", int(flagged[known].sum()), inside)


def _medians(columns: Mapping[str, np.ndarray], label: np.ndarray, names: Sequence[str]) -> Iterator[Measurement]:
    for column, low, high in (("score", -np.inf, np.inf), ("h", 0.0, 1.0), ("max_2_max", 0.0, 1.0)):
        for number, name in enumerate(names) if column in columns else ():
            values = columns[column][label == (-1 if number == len(names) - 1 else number)]
            if len(values):
                interval = median_interval(values, low=low, high=high)
                yield Measurement(f"median_{column}", float(np.median(values)), *interval, len(values), name)


def _generated(context: RowContext, row: ModelRow) -> dict[str, np.ndarray]:
    """Images of the model's generator, where it has one and the suite asks for examples."""
    generate: Any = getattr(context.module(), "generate", None)
    if not context.suite.examples or not callable(generate):
        return {}
    made: Tensor = generate(GENERATED, torch.Generator().manual_seed(row.seed))
    return {"generated": made.float().cpu().numpy()}


def _decides(chosen: Selected) -> bool:
    factory = chosen.entry.factory
    return isinstance(factory, type) and issubclass(factory, Detector) and factory.predict is not Detector.predict


def _array(values: Tensor | None) -> np.ndarray | None:
    return None if values is None else values.detach().cpu().numpy()


def _both(inside: np.ndarray | None, outside: np.ndarray | None) -> Any:
    return None if inside is None or outside is None else np.concatenate([inside, outside])
