"""Calibration before and after temperature scaling."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...registry import GauntletError
from ...results.records import CellResult, Measurement
from ...results.statistics import calibration_bootstrap, mean_interval
from .accuracy import checked_logits
from .base import Evaluator, Finished

if TYPE_CHECKING:
    import numpy as np

    from ..context import RowContext
    from ..plan import Job, OODSet, Row
    from ..suite import Suite


class Calibration(Evaluator):
    """ECE, RMS, MCE, signed gap, NLL and Brier score of the softmax, as it is and with a temperature fitted on val."""

    name = "calibration"
    version = 2  # arrays for the reliability diagram

    def plan(self, suite: Suite, row: Row, out_sets: Sequence[OODSet]) -> list[Job]:
        """One cell a row."""
        from ..plan import Job

        has_val = not row.blocked and row.dataset.missing("val") is None
        val = row.dataset.fingerprint("val") if has_val else ""
        return [Job(self.name, row, "calibration", (self.cell(row, val, facts={}, params={"bins": 15}),))]

    def run(self, job: Job, missing: frozenset[str], bench: RowContext) -> Iterator[Finished]:
        """Measure the test split; where there is a val split, fit the temperature on it and measure again."""
        from ..kernels import fit_temperature

        row = job.row
        outputs = bench.outputs(row.dataset, "test")
        logits = checked_logits(outputs.logits, row.model.label)
        measurements, arrays = _measure(logits, outputs.labels, "")
        reason = ""
        try:
            val = bench.outputs(row.dataset, "val")
            temperature, low, high = fit_temperature(checked_logits(val.logits, row.model.label), val.labels)
        except GauntletError as error:  # no val split, or one that is classified without an error
            reason = f"Temperature scaling was left out. {error}"
        else:
            measurements.append(Measurement("temperature", temperature, low, high, len(val)))
            more, scaled = _measure(logits.double() / temperature, outputs.labels, "_scaled")
            measurements += more
            arrays["confidence_scaled"] = scaled["confidence"]
        yield job.cells[0].key, CellResult(measurements=tuple(measurements), reason=reason, arrays=arrays)


def _measure(logits: Tensor, labels: Tensor, suffix: str) -> tuple[list[Measurement], dict[str, np.ndarray]]:
    from ..kernels import calibration_arrays, calibration_metrics

    points = calibration_metrics(logits, labels)
    arrays = calibration_arrays(logits, labels)
    names = ("ece", "rms", "mce", "signed_gap")
    intervals = calibration_bootstrap(arrays["confidence"], arrays["correct"], {name: points[name] for name in names})
    intervals |= {name: mean_interval(arrays[name]) for name in ("nll", "brier")}
    n = int(torch.as_tensor(labels).numel())
    found = [Measurement(f"{name}{suffix}", points[name], *intervals[name], n) for name in (*names, "nll", "brier")]
    if not suffix:
        found.append(Measurement("mean_confidence", points["mean_confidence"], *mean_interval(arrays["confidence"]), n))
    return found, {"confidence": arrays["confidence"].astype("float32"), "correct": arrays["correct"]}
