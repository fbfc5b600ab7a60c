"""Gauntlet: run image classifiers through attacks, out-of-distribution data and calibration; get tidy tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .registry import (
    GauntletError,
    attack,
    augmentation,
    calibrator,
    corruption,
    dataset,
    detector,
    model,
    recipe,
)

if TYPE_CHECKING:
    from .bench import run
    from .results import load_results

__version__ = "0.1.0"

__all__ = [
    "GauntletError",
    "__version__",
    "attack",
    "augmentation",
    "calibrator",
    "corruption",
    "dataset",
    "detector",
    "load_results",
    "model",
    "recipe",
    "run",
]


def __getattr__(name: str) -> Any:
    # torch and pandas load only when they are asked for (PEP 562), so that `gauntlet --help` answers at once.
    if name == "run":
        from .bench import run

        return run
    if name == "load_results":
        from .results import load_results

        return load_results
    raise AttributeError(f"module 'gauntlet' has no attribute {name!r}")
