"""Conformal prediction sets: coverage and size, where they are calibrated for and where they are not."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...models import why_no_logits
from ...registry import GauntletError, NotAvailable, Obstacle, digest, evaluator
from ...results.estimates import estimate
from ...results.metrics.conformal import CONFORMAL
from ...results.records import CellResult, Measurement, PlannedCell
from ...results.samples import Values
from ..conformal import SCORES, class_quantiles, of_truth, quantile
from ..jobs import Finished, Job, ModelRow, OODSet
from .accuracy import checked_logits
from .attack_plans import AttackingJob
from .base import Evaluator, proportion
from .conditions import Condition, attack_facts, conditions

if TYPE_CHECKING:
    from ...detectors import Outputs
    from ..context import RowContext
    from ..suite import Suite

#: Sizes of sets that are looked at together, from and to.
STRATA = ((0, 1), (2, 3), (4, 10), (11, 100), (101, math.inf))


@dataclass(frozen=True)
class SetTask:
    """What one cell is about: a score, whether each class has its own threshold, and test images in a condition."""

    score: str
    by_class: bool
    miscoverage: float
    condition: Condition

    @property
    def label(self) -> str:
        """As in the column ``detector``."""
        kind = f"{self.score} by class" if self.by_class else self.score
        return f"{kind} at {100 * (1 - self.miscoverage):g} %"


@evaluator(
    "conformal",
    title="Conformal prediction sets",
    order=25,
    needs="logits",
    reads=("miscoverages", "cross"),
    crosses=("corruptions", "attacks"),
    metrics=CONFORMAL,
)
class Conformal(Evaluator):
    """Sets of classes that hold the true one with a probability that is stated, calibrated on validation images.

    By two scores, ``threshold`` and ``aps``, with one threshold for all classes or one for each, at every miscoverage
    of ``miscoverages``. The promise is for images like those of the validation split: what becomes of it on others,
    ``cross: [[conformal, corruptions], [conformal, attacks]]`` shows.
    """

    def plan(self, suite: Suite, row: ModelRow, out_sets: Sequence[OODSet]) -> list[SetJob]:
        """One job for all images that are not attacked, and one an attack."""
        return [self._job(suite, row, found) for found in conditions(suite, row, self.name)]

    def _job(self, suite: Suite, row: ModelRow, found: Sequence[Condition]) -> SetJob:
        tasks = [
            SetTask(score, by_class, miscoverage, condition)
            for condition in found
            for miscoverage in suite.miscoverages
            for score in SCORES
            for by_class in (False, True)
        ]
        pairs = [(self._cell(row, task), task) for task in tasks]
        made: dict[str, Any] = {
            "evaluator": self.name,
            "row": row,
            "cells": tuple(cell for cell, _ in pairs),
            "obstacles": {cell.key: why for cell, task in pairs if (why := _obstacle(row, task))},
            "tasks": {cell.key: task for cell, task in pairs},
        }
        attack = found[0].attack
        if attack is None:
            return SetJob(label=self.name, **made)
        return AttackedSetJob(label=attack.attack.label, **made, **attack_facts(attack))

    def _cell(self, row: ModelRow, task: SetTask) -> PlannedCell:
        has_val = not row.obstacle and not row.dataset.obstacle("val")
        condition = task.condition
        chosen = {"score": task.score, "by_class": task.by_class, "miscoverage": task.miscoverage}
        return self.cell(
            row,
            chosen,
            row.seed,
            row.dataset.fingerprint("val") if has_val else "",
            condition.content,
            facts=condition.facts,
            params={"conformal": chosen, **condition.params},
            detector=task.label,
            **condition.where,
        )


def _obstacle(row: ModelRow, task: SetTask) -> Obstacle:
    return row.dataset.obstacle("val") or task.condition.obstacle


@dataclass(frozen=True, kw_only=True)
class SetJob(Job):
    """Calibrates on the validation split, and looks at the test images of one condition after the other."""

    tasks: Mapping[str, SetTask]

    def run(self, cells: Sequence[PlannedCell], context: RowContext) -> Iterator[Finished]:
        """Measure one cell after the other; no pass is made that accuracy, corruption or attack have made."""
        calibration = self._scored(context.outputs(self.row.dataset, "val"), context, "val")
        kept: dict[int, Scored] = {}
        for cell in cells:
            task = self.tasks[cell.key]
            place = id(task.condition)
            if place not in kept:
                kept = {place: self._scored(task.condition.outputs(self, context, frozenset()), context, "test")}
            yield cell.key, measure(task, calibration, kept[place], self.row.dataset.classes)

    def _scored(self, outputs: Outputs, context: RowContext, split: str) -> Scored:
        logits = checked_logits(outputs.logits, self.row.model.label)
        if why := why_no_logits(logits, self.row.model.label):
            raise NotAvailable(f"Conformal sets are made of a softmax, but {why}")
        probabilities = logits.double().softmax(1).cpu().numpy()
        seed = int(digest("conformal", self.row.dataset.name, self.row.seed, split)[:15], 16)
        uniform = np.random.default_rng(seed).random(len(probabilities))
        scores = {name: score(probabilities, uniform) for name, score in SCORES.items()}
        return Scored(scores, np.asarray(outputs.labels.cpu()))


@dataclass(frozen=True, kw_only=True)
class AttackedSetJob(SetJob, AttackingJob):
    """The same of images that an attack made."""


@dataclass(frozen=True)
class Scored:
    """Nonconformity of images: of every class (N, C), by score, and their labels (N,)."""

    scores: Mapping[str, np.ndarray]
    labels: np.ndarray


def measure(task: SetTask, calibration: Scored, test: Scored, classes: Sequence[str]) -> CellResult:
    """Coverage and size of the sets of test images, with the thresholds that calibration images give.

    Raises:
        GauntletError: There is no calibration image.
    """
    known, scores = calibration.scores[task.score], test.scores[task.score]
    if not len(known):
        raise GauntletError("Conformal sets need calibration images, and the validation split has none.")
    truth = of_truth(known, calibration.labels)
    bars: np.ndarray = np.full(known.shape[1], quantile(truth, task.miscoverage))
    if task.by_class:
        bars = class_quantiles(truth, calibration.labels, known.shape[1], task.miscoverage)
    sets = scores <= bars
    covered, sizes = of_truth(sets, test.labels), sets.sum(1)
    measurements = (*_overall(covered, sizes, 1 - task.miscoverage), *_by_class(covered, test.labels, classes))
    arrays = {"covered": covered, "size": sizes.astype("int16"), "label": test.labels.astype("int16")}
    return CellResult(measurements=measurements, reason=_unbounded(bars, task, classes), arrays=arrays)


def _overall(covered: np.ndarray, sizes: np.ndarray, nominal: float) -> list[Measurement]:
    n, found = len(covered), proportion("coverage", int(covered.sum()), len(covered))
    assert found.ci_low is not None
    assert found.ci_high is not None
    gap = (found.value - nominal, found.ci_low - nominal, found.ci_high - nominal)
    size = estimate(["set_size"], Values(sizes))["set_size"]
    strata = list(_strata(covered, sizes))
    worst = min(part.value for part in strata)
    general = [found, Measurement("coverage_gap", *gap, n), Measurement("set_size", *size, n)]
    return [*general, Measurement("size_coverage", worst, n=n), *strata]


def _strata(covered: np.ndarray, sizes: np.ndarray) -> Iterator[Measurement]:
    """Coverage of sets of like size."""
    for low, high in STRATA:
        part = covered[(sizes >= low) & (sizes <= high)]
        if len(part):
            name = f"{low} to {high:g} classes" if high < math.inf else f"{low} classes or more"
            yield proportion("size_coverage", int(part.sum()), len(part), name)


def _by_class(covered: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> Iterator[Measurement]:
    for index, name in enumerate(classes):
        part = covered[labels == index]
        if len(part):
            yield proportion("coverage", int(part.sum()), len(part), name)


def _unbounded(bars: np.ndarray, task: SetTask, classes: Sequence[str]) -> str:
    """Which classes have too few calibration images for a threshold."""
    lacking = [classes[index] for index in np.flatnonzero(np.isinf(bars)).tolist()]
    if not lacking:
        return ""
    whose = f"of {', '.join(lacking)} " if task.by_class else ""
    what = "these classes are in every set" if task.by_class else "every set holds every class"
    return f"Calibration images {whose}are too few for a coverage of {100 * (1 - task.miscoverage):g} %: {what}."
