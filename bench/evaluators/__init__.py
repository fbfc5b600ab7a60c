"""Evaluators plan the cells of one kind and compute them; each is one file that registers itself."""

from __future__ import annotations

from ..jobs import Finished, Job, ModelRow, OODSet
from .base import Evaluator, build_evaluator

__all__ = ["Evaluator", "Finished", "Job", "ModelRow", "OODSet", "build_evaluator"]
