"""Intervals of every kind of metric, in numpy and scipy, float64."""

from __future__ import annotations

from .bootstrap import CALIBRATION_METRICS, OOD_METRICS, calibration_bootstrap, ood_bootstrap
from .intervals import auroc_interval, autc_interval, mean_interval, median_interval, proportion_interval
from .paired import Comparison, mean_auroc_interval, oscr_interval, paired_auroc, tied_with_best

__all__ = [
    "CALIBRATION_METRICS",
    "OOD_METRICS",
    "Comparison",
    "auroc_interval",
    "autc_interval",
    "calibration_bootstrap",
    "mean_auroc_interval",
    "mean_interval",
    "median_interval",
    "ood_bootstrap",
    "oscr_interval",
    "paired_auroc",
    "proportion_interval",
    "tied_with_best",
]
