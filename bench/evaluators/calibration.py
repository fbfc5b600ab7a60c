"""Calibration before and after temperature scaling."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from ...models import why_no_logits
from ...models.temperature import fit_temperature
from ...registry import GauntletError, NotAvailable, evaluator
from ...results.estimates import estimate
from ...results.metrics import plugged_in
from ...results.metrics.calibration import BINNED, CALIBRATION
from ...results.records import CellResult, Measurement, PlannedCell
from ..jobs import Finished, Job, ModelRow, OODSet
from ..kernels import calibration_arrays, calibration_samples
from .accuracy import checked_logits
from .base import Evaluator

if TYPE_CHECKING:
    import numpy as np

    from ..context import RowContext
    from ..suite import Suite


@evaluator(
    "calibration",
    title="Calibration",
    order=20,
    needs="logits",
    default_with=(),
    metrics=(*CALIBRATION, *(f"{name}_scaled" for name in CALIBRATION), "mean_confidence", "temperature"),
    plots=("reliability",),
)
class Calibration(Evaluator):
    """ECE, RMS, MCE, signed gap, NLL and Brier score of the softmax, as it is and with a temperature fitted on val."""

    version = 2  # arrays for the reliability diagram
    statistics = ("reliability",)

    def plan(self, suite: Suite, row: ModelRow, out_sets: Sequence[OODSet]) -> list[CalibrationJob]:
        """One cell a row."""
        has_val = not row.obstacle and not row.dataset.obstacle("val")
        val = row.dataset.fingerprint("val") if has_val else ""
        cell = self.cell(row, val, params={"bins": 15})
        return [CalibrationJob(evaluator=self.name, row=row, label=self.name, cells=(cell,))]


class CalibrationJob(Job):
    """Measures the softmax as it is, and with a temperature."""

    def run(self, cells: Sequence[PlannedCell], context: RowContext) -> Iterator[Finished]:
        """Measure the test split; where there is a val split, fit the temperature on it and measure again."""
        row = self.row
        outputs = context.outputs(row.dataset, "test")
        logits = checked_logits(outputs.logits, row.model.label)
        if why := why_no_logits(logits, row.model.label):
            raise NotAvailable(f"Calibration is that of a softmax, but {why}")
        measurements, arrays = _measure(logits, outputs.labels, "")
        reason = ""
        try:
            val = context.outputs(row.dataset, "val")
            temperature, low, high = fit_temperature(checked_logits(val.logits, row.model.label), val.labels)
        except GauntletError as error:  # no val split, or one that is classified without an error
            reason = f"Temperature scaling was left out. {error}"
        else:
            measurements.append(Measurement("temperature", temperature, low, high, len(val)))
            more, scaled = _measure(logits.double() / temperature, outputs.labels, "_scaled")
            measurements += more
            arrays["confidence_scaled"] = scaled["confidence"]
        yield cells[0].key, CellResult(measurements=tuple(measurements), reason=reason, arrays=arrays)


def _measure(logits: Tensor, labels: Tensor, suffix: str) -> tuple[list[Measurement], dict[str, np.ndarray]]:
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
    return measurements, {"confidence": arrays["confidence"].astype("float32"), "correct": arrays["correct"]}
