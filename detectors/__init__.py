"""OOD detectors: what they see (:class:`Outputs`) and the scores they compute from it, higher = more OOD."""

from __future__ import annotations

from .base import Detector, FunctionDetector, build_detector, check_scores
from .outputs import Head, Outputs, random_projection

__all__ = [
    "Detector",
    "FunctionDetector",
    "Head",
    "Outputs",
    "build_detector",
    "check_scores",
    "random_projection",
]
