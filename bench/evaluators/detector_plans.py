"""What a suite's detector comes to for one row (what keys cover, what ``params`` says), and how it is asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ...registry import Obstacle, Selected, source_fingerprint
from ...results.records import CellResult, PlannedCell
from ..failures import failure, out_of_memory
from ..fitted_detector import FittedDetector, fitted
from ..jobs import Finished, Job, ModelRow
from ..tuning import grid_of, tuning_facts
from .base import Evaluator

if TYPE_CHECKING:
    from ...datasets import ResolvedDataset
    from ..context import RowContext
    from ..model_specs import ModelSpec
    from ..suite import Suite

#: Keys of a suite that say how detectors are tuned and fitted, for evaluators that ask them.
DETECTOR_KEYS = ("tune", "feature_dim", "fit_limit")


@dataclass(frozen=True)
class DetectorPlan:
    """A detector for the model of one row.

    Attributes:
        detector: As the suite selects it.
        content: What the key of its cells covers: itself, what it is fitted to, and how it is tuned.
        params: What the column ``params`` says.
    """

    detector: Selected
    content: list[Any]
    params: dict[str, Any]


def plan_detectors(suite: Suite, row: ModelRow) -> list[DetectorPlan]:
    """The suite's detectors whose needs a row's model can meet, as far as its declared outputs tell."""
    return [_plan(suite, row, chosen) for chosen in suite.detectors if not detector_obstacle(chosen, row.model)]


def _plan(suite: Suite, row: ModelRow, detector: Selected) -> DetectorPlan:
    entry, parameters = detector.entry, {**detector.entry.defaults(), **detector.parameters}
    tuned = tuning_facts(suite, detector)
    content: list[Any] = [
        [entry.name, parameters, source_fingerprint(entry)],
        [suite.feature_dim if "features" in detector.needs else 0, row.seed],
        [suite.fit_limit] if entry.is_class else [],
        tuned,
        *_sources(detector),
    ]
    if not row.obstacle and (entry.is_class or tuned):
        if (tuned or detector.parts) and row.outliers is not None and not row.outliers.obstacle("test"):
            content.append(row.outliers.fingerprint("test"))
        content += [row.dataset.fingerprint(split) for split in ("train", "val") if not row.dataset.obstacle(split)]
    params = {"detector": {"name": entry.name, **parameters}, **({"tune": tuned} if tuned else {})}
    return DetectorPlan(detector, content, params)


def _sources(detector: Selected) -> list[str]:
    """Sources of the detectors that a detector is made of, and of theirs."""
    return [text for part in detector.parts for text in (source_fingerprint(part.entry), *_sources(part))]


def detector_obstacle(chosen: Selected, model: ModelSpec) -> Obstacle:
    """The need of a detector that a model will never meet, by what it declares.

    A named output is one that the model declares; what else one that declares nothing yields shows when it runs.
    """
    lacking = _lacking(chosen, model)
    return f"it needs {lacking}, and {model.label} yields {', '.join(model.outputs)}" if lacking else ""


def _lacking(chosen: Selected, model: ModelSpec) -> str:
    declared = model.entry.meta.get("outputs")
    for need in chosen.needs:
        named = need.removeprefix("output:")
        if need.startswith("output:") and named not in (declared or ()):
            return named
        if declared is None:
            continue
        if need in ("logits", "head", "passes", "deflated-logits") and "logits" not in declared:
            return "logits"
        if need == "features" and not {"logits", "features"} & set(declared):
            return "features"
    return ""


@dataclass(frozen=True)
class Task:
    """What one cell is about: a detector, and whatever else an evaluator adds."""

    plan: DetectorPlan

    @property
    def detector(self) -> Selected:
        """The one to ask."""
        return self.plan.detector

    @property
    def obstacle(self) -> Obstacle:
        """Why the cell cannot be computed here."""
        return ""


T = TypeVar("T", bound=Task)
J = TypeVar("J", bound="DetectorJob[Any]")
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class DetectorJob(Job, Generic[T]):
    """Cells that each ask one detector: ``tasks`` says, by key, which and about what."""

    tasks: Mapping[str, T]

    def needs(self, cells: Sequence[PlannedCell]) -> set[str]:
        """What the detectors of these cells read."""
        return {need for cell in cells for need in self.tasks[cell.key].detector.needs}

    def ask(
        self,
        cells: Sequence[PlannedCell],
        context: RowContext,
        measure: Callable[[T, FittedDetector], CellResult],
    ) -> Iterator[Finished]:
        """Measure each cell with its detector; one that fails takes only its own cells with it."""
        chosen = {task.detector.label: task.detector for task in (self.tasks[cell.key] for cell in cells)}
        # All of them are fitted first, so that they share what they look for.
        ready = {label: attempt(label, partial(fitted, one, context)) for label, one in chosen.items()}
        for cell in cells:
            task, started = self.tasks[cell.key], time.perf_counter()
            result = ready[task.detector.label]
            if not isinstance(result, CellResult):
                context.remarks += filter(None, [result.remark])
                result = attempt(task.detector.label, partial(measure, task, result))
            if {"features", "head"} & set(task.detector.entry.needs) and (taken := context.features_taken()):
                result = replace(result, facts={"features": taken})
            yield cell.key, replace(result, seconds=time.perf_counter() - started)


class DetectorEvaluator(Evaluator):
    """An evaluator that asks detectors."""

    def left_out(self, suite: Suite, model: ModelSpec, dataset: ResolvedDataset) -> Iterator[tuple[str, Obstacle]]:
        """Detectors that need what the model does not yield."""
        found = ((chosen.label, detector_obstacle(chosen, model)) for chosen in suite.detectors)
        yield from ((label, obstacle) for label, obstacle in found if obstacle)

    def unused(self, suite: Suite) -> Iterator[str]:
        """A wish to tune where there is nothing to choose."""
        if suite.tune is not None and not any(map(grid_of, suite.detectors)):
            yield f"{suite.at('tune')}: no detector of this suite has hyper-parameters left to tune."

    def jobs(
        self, kind: type[J], row: ModelRow, label: str, tasks: Sequence[tuple[PlannedCell, Task]], **more: Any
    ) -> list[J]:
        """A job of some tasks, each with its cell; none where there are no tasks."""
        cells, known = tuple(cell for cell, _ in tasks), {cell.key: task for cell, task in tasks}
        obstacles = {key: task.obstacle for key, task in known.items() if task.obstacle}
        made: dict[str, Any] = {
            "evaluator": self.name,
            "row": row,
            "label": label,
            "cells": cells,
            "obstacles": obstacles,
        }
        return [kind(**made, tasks=known, **more)] if tasks else []


def attempt(label: str, compute: Callable[[], R]) -> R | CellResult:
    """What ``compute`` gives, or the record of a cell whose component, called ``label``, failed."""
    try:
        return compute()
    except Exception as error:  # of any kind: the component may be the user's own
        if out_of_memory(error):
            raise
        return failure(error, label)
