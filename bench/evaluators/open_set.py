"""Open-set recognition: every image is one of the known classes or OOD, by a detector's own decision or a threshold."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ...detectors import Detector
from ...registry import GauntletError, NotAvailable, Selected
from ...results.curves import confusion
from ...results.intervals import median_interval
from ...results.records import CellResult, Measurement, PlannedCell
from ..failures import failure, out_of_memory
from ..fitted_detector import fitted
from ..tuning import tuning_facts
from .accuracy import checked_logits
from .base import Evaluator, Finished, detectors_for, examples_key, proportion
from .ood import detector_content, held_out_fact, role_of

if TYPE_CHECKING:
    from ...detectors import Outputs
    from ..context import RowContext
    from ..plan import Job, OODSet, Row
    from ..suite import Suite

#: Generated images that are kept where the suite asks for examples.
GENERATED = 64


@dataclass(frozen=True)
class Task:
    """What one cell is about: a detector, an OOD set, and the false alarm rate of the threshold.

    ``rate`` is None where the detector decides itself.
    """

    detector: Selected
    outside: OODSet
    rate: float | None

    @property
    def label(self) -> str:
        """The detector's label, with the rate."""
        return self.detector.label if self.rate is None else f"{self.detector.label} at {100 * self.rate:g} %"


class OpenSet(Evaluator):
    """Classifies the images of the test split and of an OOD set into the known classes and OOD.

    A detector that predicts is taken at its word. Every detector also gets a threshold: the quantile of its scores on
    ID validation images that flags at most the suite's ``false_alarm_rates`` of them; what is not flagged has the
    class of the largest logit.
    """

    name = "open-set"
    version = 2  # thresholds flag all that the rate allows

    def plan(self, suite: Suite, row: Row, out_sets: Sequence[OODSet]) -> list[Job]:
        """One job a row: a cell for each detector, OOD set and way to decide."""
        from ..plan import Job

        tasks = [
            Task(detector, part, rate)
            for detector in detectors_for(suite, row.model)
            for rate in (*([None] if _decides(detector) else []), *suite.false_alarm_rates)
            for part in out_sets
            if not part.shifted
        ]
        cells = [self._cell(suite, row, task, first=not place) for place, task in enumerate(tasks)]
        payload = {cell.key: task for cell, task in zip(cells, tasks, strict=True)}
        blocked = {key: task.outside.blocked for key, task in payload.items() if task.outside.blocked}
        return [Job(self.name, row, self.name, tuple(cells), payload, blocked)] if cells else []

    def _cell(self, suite: Suite, row: Row, task: Task, *, first: bool) -> PlannedCell:
        detector, dataset = task.detector, task.outside.dataset
        tuned = tuning_facts(suite, detector)
        return self.cell(
            row,
            detector_content(suite, row, detector),
            f"blocked {dataset.label}" if task.outside.blocked else dataset.fingerprint("test"),
            [task.rate] if row.blocked or row.dataset.missing("val") else [task.rate, row.dataset.fingerprint("val")],
            *(examples_key(suite) if first else ()),
            facts={"ood_group": task.outside.group},
            params={
                "detector": {"name": detector.entry.name, **detector.entry.defaults(), **detector.parameters},
                "decision": "own" if task.rate is None else {"false_alarm_rate": task.rate},
                "ood": dataset.describe(),
                **held_out_fact(task.outside),
                **({"tune": tuned} if tuned else {}),
            },
            detector=task.label,
            ood_dataset=dataset.label,
            role=role_of(task.outside),
        )

    def needs(self, job: Job, missing: frozenset[str]) -> set[str]:
        """What the detectors of the missing cells read, and ``h`` of models that have it."""
        own = {"output:h"} if "h" in job.row.model.outputs else set()
        return own | {need for key in missing for need in job.payload[key].detector.entry.needs}

    def run(self, job: Job, missing: frozenset[str], bench: RowContext) -> Iterator[Finished]:
        """Ask each detector once about each set; one that fails takes only its own cells with it."""
        judges: dict[str, _Judge | CellResult] = {}
        for cell in job.cells:
            if cell.key not in missing:
                continue
            task, started = job.payload[cell.key], time.perf_counter()
            label = task.detector.label
            try:
                if label not in judges:
                    judges[label] = _Judge(task.detector, job.row, bench)
                judge = judges[label]
                result = judge.measure(task) if isinstance(judge, _Judge) else judge
            except Exception as error:  # of any kind: the detector may be the user's own
                if out_of_memory(error):
                    raise
                result = failure(error, task.label)
                judges.setdefault(label, result)
            if cell is job.cells[0] and result.status == "ok":
                result = replace(result, examples=_generated(bench, job.row))
            yield cell.key, replace(result, seconds=time.perf_counter() - started)


@dataclass(frozen=True)
class _Answer:
    """What model and detector say of N images; ``decided`` and ``probabilities`` where the detector has its own."""

    score: np.ndarray
    predicted: np.ndarray
    decided: np.ndarray | None
    probabilities: np.ndarray | None
    h: np.ndarray | None


class _Judge:
    """A fitted detector, with its answers on every set that it has seen."""

    def __init__(self, chosen: Selected, row: Row, bench: RowContext) -> None:
        self._row, self._bench, self._label = row, bench, chosen.label
        self._inside = bench.outputs(row.dataset, "test")
        self._detector = fitted(chosen, bench)

    def measure(self, task: Task) -> CellResult:
        """The metrics of a cell, and the arrays behind them."""
        sets = (self._row.dataset, task.outside.dataset)
        inside, outside = (self._answer(self._bench.outputs(one, "test")) for one in sets)
        labels = self._inside.labels.cpu().numpy()
        label = np.concatenate([labels, np.full(len(outside.score), -1)])
        known = np.arange(len(label)) < len(labels)
        names = [*self._row.dataset.classes, f"{task.outside.dataset.label} (OOD)"]
        parts = [self._decide(one, task) for one in (inside, outside)]
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

    def _decide(self, answer: _Answer, task: Task) -> np.ndarray:
        if task.rate is None:
            if answer.decided is None:
                raise GauntletError(f"Detector {self._label!r} has a predict that gave nothing.")
            return answer.decided
        if reason := self._row.dataset.missing("val"):
            raise NotAvailable(f"{task.label} has no validation images for its threshold: {reason}")
        val = self._bench.outputs(self._row.dataset, "val")
        return np.where(answer.score > threshold(self._detector.scores(val), task.rate), -1, answer.predicted)

    def _answer(self, outputs: Outputs) -> _Answer:
        logits, detector = checked_logits(outputs.logits, self._row.model.label), self._detector.detector
        seen = outputs.restricted_to(detector.needs)
        return outputs.cached(
            ("answer", self._detector),
            lambda: _Answer(
                score=self._detector.scores(outputs),
                predicted=logits.argmax(1).cpu().numpy(),
                decided=_array(detector.predict(seen)),
                probabilities=_array(detector.probabilities(seen)),
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


def _generated(bench: RowContext, row: Row) -> dict[str, np.ndarray]:
    """Images of the model's generator, where it has one and the suite asks for examples."""
    generate: Any = getattr(bench.module(), "generate", None)
    if not bench.suite.examples or not callable(generate):
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
