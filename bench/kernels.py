"""The metric kernels under one name."""

from __future__ import annotations

from .kernels_calibration import (
    TEMPERATURE_RANGE,
    Bins,
    calibration_arrays,
    calibration_metrics,
    fit_temperature,
    reliability,
    summarize,
)
from .kernels_ood import ood_metrics, oscr

__all__ = [
    "TEMPERATURE_RANGE",
    "Bins",
    "calibration_arrays",
    "calibration_metrics",
    "fit_temperature",
    "ood_metrics",
    "oscr",
    "reliability",
    "summarize",
]
