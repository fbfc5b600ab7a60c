"""Calibration before and after temperature scaling, of test images as they are, corrupted or attacked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ...models import why_no_logits
from ...models.temperature import fit_temperature
from ...registry import GauntletError, NotAvailable, evaluator
from ...results.calibration_errors import (
    brier_parts,
    classwise_ece,
    debiased_ece,
    equal_mass_ece,
    largest_gap,
    smooth_ece,
)
from ...results.metrics import plugged_in
from ...results.metrics.calibration import BINNED, CALIBRATION, FURTHER
from ...results.records import CellResult, Measurement, PlannedCell
from ..guard import estimate
from ..jobs import Finished, Job, ModelRow, OODSet
from ..kernels import calibration_arrays, calibration_samples
from .accuracy import checked_logits
from .attack_plans import AttackingJob
from .base import Evaluator
from .conditions import Condition, attack_facts, conditions

if TYPE_CHECKING:
    import numpy as np

    from ...detectors import Outputs
    from ..context import RowContext
    from ..suite import Suite

_MEASURED = (*CALIBRATION, *FURTHER)


@evaluator(
    "calibration",
    title="Calibration",
    order=20,
    needs="logits",
    reads=("mce_min_count", "cross"),
    crosses=("corruptions", "attacks"),
    default_with=(),
    metrics=(*_MEASURED, *(f"{name}_scaled" for name in _MEASURED), "mean_confidence", "temperature"),
    plots=("reliability",),
)
class Calibration(Evaluator):
    """How far the softmax's confidence is from accuracy, as it is and with a temperature fitted on val.

    ECE, RMS, MCE, signed gap, NLL and Brier score; errors over bins of equal mass, debiased, smoothed, by class; on
    corrupted and attacked images where ``cross`` says ``[calibration, corruptions]`` or ``[calibration, attacks]``.
    """

    version = 4  # the true ECE; intervals that cover as promised
    statistics = ("reliability",)

    def plan(self, suite: Suite, row: ModelRow, out_sets: Sequence[OODSet]) -> list[CalibrationJob]:
        """One job for all images that are not attacked, and one an attack."""
        return [self._job(suite, row, found) for found in conditions(suite, row, self.name)]

    def _job(self, suite: Suite, row: ModelRow, found: Sequence[Condition]) -> CalibrationJob:
        pairs = [(self._cell(suite, row, condition), condition) for condition in found]
        made: dict[str, Any] = {
            "evaluator": self.name,
            "row": row,
            "cells": tuple(cell for cell, _ in pairs),
            "obstacles": {cell.key: condition.obstacle for cell, condition in pairs if condition.obstacle},
            "conditions": {cell.key: condition for cell, condition in pairs},
        }
        attack = found[0].attack
        if attack is None:
            return CalibrationJob(label=self.name, **made)
        return AttackedCalibrationJob(label=attack.attack.label, **made, **attack_facts(attack))

    def _cell(self, suite: Suite, row: ModelRow, condition: Condition) -> PlannedCell:
        has_val = not row.obstacle and not row.dataset.obstacle("val")
        return self.cell(
            row,
            row.dataset.fingerprint("val") if has_val else "",
            suite.mce_min_count,
            condition.content,
            facts=condition.facts,
            params={"bins": 15, "mce_min_count": suite.mce_min_count, **condition.params},
            **condition.where,
        )


@dataclass(frozen=True, kw_only=True)
class CalibrationJob(Job):
    """Measures the softmax as it is, and with a temperature: in a condition for each cell."""

    conditions: Mapping[str, Condition]

    def run(self, cells: Sequence[PlannedCell], context: RowContext) -> Iterator[Finished]:
        """Measure one condition after the other; where there is a val split, with the temperature fitted on it, too."""
        for cell in cells:
            outputs = self.conditions[cell.key].outputs(self, context, frozenset())
            yield cell.key, self._measured(outputs, context)

    def _measured(self, outputs: Outputs, context: RowContext) -> CellResult:
        row, least = self.row, context.suite.mce_min_count
        logits = checked_logits(outputs.logits, row.model.label)
        if why := why_no_logits(logits, row.model.label):
            raise NotAvailable(f"Calibration is that of a softmax, but {why}")
        measurements, arrays = _measure(logits, outputs.labels, "", least)
        reason = ""
        try:
            val = context.outputs(row.dataset, "val")
            temperature, low, high = fit_temperature(checked_logits(val.logits, row.model.label), val.labels)
        except GauntletError as error:  # no val split, or one that is classified without an error
            reason = f"Temperature scaling was left out. {error}"
        else:
            measurements.append(Measurement("temperature", temperature, low, high, len(val)))
            more, scaled = _measure(logits.double() / temperature, outputs.labels, "_scaled", least)
            measurements += more
            arrays["confidence_scaled"] = scaled["confidence"]
        return CellResult(measurements=tuple(measurements), reason=reason, arrays=arrays)


@dataclass(frozen=True, kw_only=True)
class AttackedCalibrationJob(CalibrationJob, AttackingJob):
    """The same of images that an attack made."""


def _measure(
    logits: Tensor, labels: Tensor, suffix: str, least: int
) -> tuple[list[Measurement], dict[str, np.ndarray]]:
    arrays = calibration_arrays(logits, labels)
    samples = calibration_samples(arrays)
    means = ("nll", "brier", *(() if suffix else ("mean_confidence",)))
    added = () if suffix else (entry.name for entry in plugged_in("calibration", samples["ece"].kinds))
    found = {
        **estimate((*BINNED, *added), samples["ece"]),
        **{name: estimate([name], samples[name])[name] for name in means},
    }
    n = len(arrays["correct"])
    measurements = [Measurement(f"{name}{suffix}", *estimated, n) for name, estimated in found.items()]
    further = _further(logits, labels, arrays, least)
    measurements += [Measurement(f"{name}{suffix}", value, n=n) for name, value in further.items()]
    return measurements, {"confidence": arrays["confidence"].astype("float32"), "correct": arrays["correct"]}


def _further(logits: Tensor, labels: Tensor, arrays: Mapping[str, np.ndarray], least: int) -> dict[str, float]:
    """The errors that are no weighted functions of images."""
    confidence, correct = arrays["confidence"].astype("float64"), arrays["correct"].astype("float64")
    probabilities, truth = logits.double().softmax(1).cpu().numpy(), labels.cpu().numpy()
    largest, _, count = largest_gap(confidence, correct, least)
    return {
        "ece_equal_mass": equal_mass_ece(confidence, correct),
        "ece_debiased": debiased_ece(confidence, correct),
        "smooth_ece": smooth_ece(confidence, correct),
        "classwise_ece": classwise_ece(probabilities, truth),
        "mce_min_count": largest,
        "mce_count": count,
        **brier_parts(probabilities, truth),
    }
