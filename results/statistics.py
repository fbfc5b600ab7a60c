"""Intervals of every kind of metric, in numpy and scipy, float64."""

from __future__ import annotations

from .bootstrap import CALIBRATION_METRICS, OOD_METRICS, calibration_bootstrap, ood_bootstrap
from .intervals import auroc_interval, mean_interval, median_interval, proportion_interval

__all__ = [
    "CALIBRATION_METRICS",
    "OOD_METRICS",
    "auroc_interval",
    "calibration_bootstrap",
    "mean_interval",
    "median_interval",
    "ood_bootstrap",
    "proportion_interval",
]
