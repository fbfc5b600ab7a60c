"""Gauntlet: run image classifiers through attacks, out-of-distribution data and calibration; get tidy tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .registry import (
    GauntletError,
    attack,
    augmentation,
    calibrator,
    corruption,
    create_attack,
    create_augmentation,
    create_calibrator,
    create_corruption,
    create_dataset,
    create_detector,
    create_evaluator,
    create_metric,
    create_model,
    create_recipe,
    dataset,
    detector,
    evaluator,
    list_attacks,
    list_augmentations,
    list_calibrators,
    list_corruptions,
    list_datasets,
    list_detectors,
    list_evaluators,
    list_metrics,
    list_models,
    list_recipes,
    metric,
    model,
    recipe,
)

if TYPE_CHECKING:
    from .bench import evaluate, run
    from .results import load_results

__version__ = "0.1.0"

__all__ = [
    "GauntletError",
    "__version__",
    "attack",
    "augmentation",
    "calibrator",
    "corruption",
    "create_attack",
    "create_augmentation",
    "create_calibrator",
    "create_corruption",
    "create_dataset",
    "create_detector",
    "create_evaluator",
    "create_metric",
    "create_model",
    "create_recipe",
    "dataset",
    "detector",
    "evaluate",
    "evaluator",
    "list_attacks",
    "list_augmentations",
    "list_calibrators",
    "list_corruptions",
    "list_datasets",
    "list_detectors",
    "list_evaluators",
    "list_metrics",
    "list_models",
    "list_recipes",
    "load_results",
    "metric",
    "model",
    "recipe",
    "run",
]


def __getattr__(name: str) -> Any:
    # torch and pandas load only when they are asked for (PEP 562), so that `gauntlet --help` answers at once.
    if name in ("run", "evaluate"):
        from . import bench

        return getattr(bench, name)
    if name == "load_results":
        from .results import load_results

        return load_results
    raise AttributeError(f"module 'gauntlet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
