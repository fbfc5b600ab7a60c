"""Which detectors a suite tunes, and over which values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..registry import Selected

if TYPE_CHECKING:
    from .suite import Suite

#: What a suite calls the outliers that are made from validation images.
SYNTHETIC = "validation-outliers"


def grid_of(detector: Selected) -> dict[str, list[Any]]:
    """The values that a detector declares for the hyper-parameters that the suite leaves open."""
    declared: Mapping[str, Any] = detector.entry.meta.get("grid", {})
    return {name: list(values) for name, values in declared.items() if name not in detector.parameters}


def tuning_facts(suite: Suite, detector: Selected) -> dict[str, Any]:
    """How a detector is tuned in this suite, for keys and rows; empty where it is not."""
    grid = grid_of(detector)
    if suite.tune is None or not grid:
        return {}
    return {"grid": grid, "outliers": suite.tune.outliers, "oracle": suite.tune.oracle}


def tuned_labels(detectors: tuple[Selected, ...], oracle: bool) -> tuple[Selected, ...]:
    """The detectors, those with an open grid under a label that says so."""
    note = "tuned, oracle" if oracle else "tuned"
    return tuple(replace(one, label=f"{one.label} ({note})") if grid_of(one) else one for one in detectors)
