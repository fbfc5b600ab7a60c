"""Hyper-parameters chosen on validation images and validation outliers, never on test images."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..registry import NotAvailable, Selected

if TYPE_CHECKING:
    from .plan import Row
    from .suite import Suite
    from .workbench import Workbench

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


def tune(chosen: Selected, row: Row, bench: Workbench) -> tuple[Selected, dict[str, Any]]:
    """The detector with the hyper-parameters of the highest validation AUROC, the first of equals, and those alone.

    Raises:
        NotAvailable: The dataset has no validation images.
    """
    from .fitted_detector import checked_scores, fitted_detector
    from .kernels import ood_metrics

    facts = tuning_facts(bench.suite, chosen)
    if not facts:
        return chosen, {}
    if reason := row.dataset.missing("val"):
        raise NotAvailable(f"{chosen.label} cannot be tuned: {reason}")
    inside, outside = bench.outputs(row.dataset, "val"), bench.validation_outliers(row.dataset)
    best, choice = -1.0, {}
    for values in itertools.product(*facts["grid"].values()):
        candidate = dict(zip(facts["grid"], values, strict=True))
        variant = replace(chosen, parameters={**chosen.parameters, **candidate})
        detector = fitted_detector(variant, row, inside, bench)
        sides = [checked_scores(detector, side, chosen.label) for side in (inside, outside)]
        auroc = ood_metrics(*sides)["auroc"]
        if auroc > best:
            best, choice = auroc, candidate
    return replace(chosen, parameters={**chosen.parameters, **choice}), choice
